"""Serving pods as processes: a kubelet that runs the agent of each pod of the API server beside a stand-in engine.

It does what matters to clients: it mounts the ConfigMap, probes, tells the API server who is ready, restarts an agent
that ended, sends SIGTERM to pods that are deleted and lets them go when they have ended. ``endpoints`` is where the
Service leads to: the pods that it selects and whose probes succeed, without those that are deleted, a moment late.
"""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane.pod_credentials import issue_token
from servers.ports import free_socket

from tunesmith.manifests.serving_deployment import AGENT_PORT, MONITORING_PORT
from tunesmith_cluster.api import ApiError, Document
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.layout import CA_FILE, TOKEN_AUDIENCE, TOKEN_FILE

LOOK_SECONDS = 0.2
PROBE_SECONDS = 0.25
#: Until kube-proxy has heard that a pod is deleted.
ENDPOINT_SECONDS = 0.3
#: Between two copies of the ConfigMap into the pod: kubelet takes up to a minute.
MOUNT_SECONDS = 3.0
END_SECONDS = 5.0
_FAILED_READ = (ApiError, ConnectionError)

#: Variable by which coverage measures a process.
_COVERAGE = "COVERAGE_PROCESS_START"
#: Counter of requests that a pod forwarded and another one answered.
_FORWARDED = re.compile(rb'^tunesmith_agent_forwarded_total\{result="answered"\} (\S+)$', re.MULTILINE)
#: Last parts of the addresses of pods on this machine's loopback.
_ADDRESSES = itertools.count(1)
Event = tuple[float, str, dict[str, Any]]


@dataclass
class PodProcesses:
    """One pod: two processes and their folders; its agent has the ports of a real pod.

    Attributes:
        address: of the agent, on loopback; the API server tells it as the pod's.
        is_ready: the readiness probe succeeded last time.
        is_ending: the pod is deleted.
        killed: monotonic times from each kill of the agent until its process was gone.
        events: what the agent logged: monotonic time, message, fields.
        gone_at: monotonic time of the end of its processes.
    """

    name: str
    uid: str
    folder: Path
    body: Document
    address: str = field(default_factory=lambda: f"127.{1 + os.getpid() % 250}.1.{next(_ADDRESSES)}")
    engine_socket: str = field(default_factory=free_socket)
    agent: asyncio.subprocess.Process | None = None
    engine: asyncio.subprocess.Process | None = None
    is_ready: bool = False
    is_ending: bool = False
    ended_at: float = float("inf")
    killed: list[tuple[float, float]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    gone_at: float = float("inf")

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the pod."""
        labels: dict[str, str] = self.body["metadata"]["labels"]
        return labels

    @property
    def base_model(self) -> str:
        """URI of the base model of its engine."""
        return _agent_environment(self.body)["TUNESMITH_BASE_MODEL_URI"]

    @property
    def config_map(self) -> str:
        """Name of the ConfigMap that the pod mounts."""
        [desired] = [each for each in self.body["spec"]["volumes"] if each["name"] == "desired"]
        name: str = desired["projected"]["sources"][0]["configMap"]["name"]
        return name

    @property
    def takes_connections(self) -> bool:
        """True if a Service leads to it that selects it."""
        return self.is_ready and time.monotonic() < self.ended_at + ENDPOINT_SECONDS

    def make_folders(self) -> None:
        """Make the folders of its volumes."""
        for name in ("config", "credentials", "state", "cache"):
            (self.folder / name).mkdir(parents=True)

    def end(self) -> None:
        """Send the agent SIGTERM, as for a pod that is deleted."""
        self.is_ending, self.ended_at = True, time.monotonic()
        if self.agent is not None and self.agent.returncode is None:
            self.agent.terminate()

    def kill(self) -> None:
        """Kill the agent in the middle of anything."""
        assert self.agent is not None
        self.killed.append((time.monotonic(), float("inf")))
        self.agent.send_signal(signal.SIGKILL)

    def note_end(self) -> None:
        """The agent's process is gone."""
        self.killed = [(began, min(ended, time.monotonic())) for began, ended in self.killed]


@dataclass(frozen=True, slots=True)
class Selection:
    """Selector of the Service, which it got after the monotonic time ``earliest``."""

    earliest: float
    labels: dict[str, str]

    def selects(self, pod: PodProcesses) -> bool:
        """True for a pod with all of these labels."""
        return self.labels.items() <= pod.labels.items()


class ServingPods:
    """The pods of one namespace; ``run`` is the kubelet.

    Args:
        service: name of the Service.
        storage: folder where claims are mounted.
        arguments: more arguments of each agent.
        look_seconds: time between two looks at what the API server has.

    Attributes:
        selections: selectors of the Service, one after the other.
    """

    def __init__(
        self,
        server: ControlPlane,
        namespace: str,
        service: str,
        folder: Path,
        storage: Path,
        arguments: tuple[str, ...] = (),
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self.pods: dict[str, PodProcesses] = {}
        self.gone: list[PodProcesses] = []
        self.selections: list[Selection] = []
        self._server, self._namespace = server, namespace
        self._folder, self._storage, self._arguments = folder, storage, arguments
        self._look_seconds = look_seconds
        self._pods_path = f"/api/v1/namespaces/{namespace}/pods"
        self._service_path = f"/api/v1/namespaces/{namespace}/services/{service}"
        self._numbers = itertools.count()

    @property
    def endpoints(self) -> list[PodProcesses]:
        """Where a new connection may lead."""
        return [pod for pod in self.pods.values() if pod.takes_connections and self.selects(pod)]

    def selects(self, pod: PodProcesses) -> bool:
        """True if the Service selects the pod now."""
        return bool(self.selections) and self.selections[-1].selects(pod)

    @property
    def all(self) -> list[PodProcesses]:
        """All pods there were."""
        return [*self.gone, *self.pods.values()]

    async def run(self) -> None:
        """Run what the API server lists, until cancelled; then kill it all."""
        async with asyncio.TaskGroup() as group:
            looked_at = time.monotonic()
            while True:
                began = time.monotonic()
                service, listed = await self._read(self._service_path), await self._read(self._pods_path)
                if service is not None:
                    selection = Selection(looked_at, service["spec"]["selector"])
                    looked_at = began
                    if not self.selections or self.selections[-1].labels != selection.labels:
                        self.selections.append(selection)
                if listed is not None:
                    self._follow(listed["items"], group)
                await asyncio.sleep(self._look_seconds)

    def _follow(self, bodies: list[Document], group: asyncio.TaskGroup) -> None:
        present = {body["metadata"]["uid"]: body for body in bodies}
        for uid, body in present.items():
            runs = body["status"].get("phase") == "Running" and "deletionTimestamp" not in body["metadata"]
            if runs and uid not in self.pods:
                name = body["metadata"]["name"]
                pod = PodProcesses(name, uid, self._folder / f"pod-{next(self._numbers)}", body)
                self.pods[uid] = pod
                group.create_task(self._live(pod))
        for uid, pod in self.pods.items():
            body = present.get(uid, {})
            if not pod.is_ending and ("deletionTimestamp" in body.get("metadata", {"deletionTimestamp": 1})):
                pod.end()

    async def delete(self, pod: PodProcesses) -> None:
        """Delete the pod as `kubectl delete` does."""
        await asyncio.to_thread(self._server.api.delete, f"{self._pods_path}/{pod.name}")

    # -- one pod

    async def _live(self, pod: PodProcesses) -> None:
        """From its start until its processes have ended; a deleted pod stays Terminating until then."""
        pod.make_folders()
        try:
            command = [sys.executable, "-m", "rollouts.stand_in_engine", pod.engine_socket, pod.base_model]
            environment = {name: value for name, value in _environment().items() if name != _COVERAGE}
            pod.engine = await asyncio.create_subprocess_exec(*command, env=environment)
            await self._until(lambda: self._begin(pod))
            await self._mount_credentials(pod)
            async with asyncio.TaskGroup() as group:
                loops = [self._mount(pod), self._probe(pod)]
                tasks = [group.create_task(loop) for loop in loops]
                while not pod.is_ending:
                    await self._run_agent(pod)
                    await asyncio.sleep(LOOK_SECONDS)
                for task in tasks:
                    task.cancel()
        finally:
            await asyncio.shield(self._finish(pod))

    async def _finish(self, pod: PodProcesses) -> None:
        await _end(pod)
        pod.gone_at = time.monotonic()
        self.gone.append(self.pods.pop(pod.uid))
        await self._until(lambda: self._release(pod))

    async def _run_agent(self, pod: PodProcesses) -> None:
        """One life of the agent's container."""
        arguments = (f"--mount-root={self._storage}", *self._arguments)
        await run_agent(pod, arguments, _agent_environment(pod.body))

    async def _mount_credentials(self, pod: PodProcesses) -> None:
        await self._until(lambda: self._write_token(pod))
        await self._until(lambda: pod.is_ending or self._copy_config(pod))

    def _write_token(self, pod: PodProcesses) -> bool:
        if not pod.is_ending:
            token = issue_token(self._server, pod.body, TOKEN_AUDIENCE)
            (pod.folder / "credentials" / TOKEN_FILE).write_text(token)
        return True

    async def _mount(self, pod: PodProcesses) -> None:
        while True:
            await asyncio.sleep(MOUNT_SECONDS)
            with contextlib.suppress(*_FAILED_READ):
                await asyncio.to_thread(self._copy_config, pod)

    def _copy_config(self, pod: PodProcesses) -> bool:
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{pod.config_map}"
        # kubelet exchanges all files at once. The whole state comes before the first release's part of it.
        for name, text in sorted(self._server.api.get(path)["data"].items(), reverse=True):
            folder = pod.folder / ("credentials" if name == CA_FILE else "config")
            new = folder / f"{name}.new"
            new.write_text(text)
            new.rename(folder / name)
        return True

    async def _probe(self, pod: PodProcesses) -> None:
        """Probe readiness; the API server hears of each change."""
        told = False
        while True:
            pod.is_ready = await answers_ok(pod.address, b"/readyz")
            if pod.is_ready != told:
                with contextlib.suppress(*_FAILED_READ):
                    await asyncio.to_thread(self._tell_ready, pod, pod.is_ready)
                    told = pod.is_ready
            await asyncio.sleep(PROBE_SECONDS)

    def _tell_ready(self, pod: PodProcesses, is_ready: bool) -> None:
        path = f"{self._pods_path}/{pod.name}"
        conditions = self._server.api.get(path)["status"]["conditions"]
        for condition in conditions:
            if condition["type"] in ("Ready", "ContainersReady"):
                condition["status"] = str(is_ready)
        address = {"podIP": pod.address, "podIPs": [{"ip": pod.address}]}
        self._server.api.merge(f"{path}/status", {"status": {"conditions": conditions, **address}})

    def _begin(self, pod: PodProcesses) -> bool:
        if not pod.is_ending:
            self._server.hold_pod(self._namespace, pod.name)
            self._tell_ready(pod, False)
        return True

    def _release(self, pod: PodProcesses) -> bool:
        try:
            self._server.release_pod(self._namespace, pod.name)
        except ApiError as error:
            if error.status != 404:
                raise
        return True

    # -- the API server, which may be away

    async def _read(self, path: str) -> Document | None:
        try:
            return await asyncio.to_thread(self._server.api.get, path)
        except _FAILED_READ:
            return None

    async def _until(self, call: Callable[[], object]) -> None:
        """Call until the API server answers."""
        while True:
            try:
                await asyncio.to_thread(call)
                return
            except _FAILED_READ:
                await asyncio.sleep(LOOK_SECONDS)


async def run_agent(pod: PodProcesses, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """One life of the agent's process, which keeps its folders and ports from one to the next."""
    folders = {name: pod.folder / name for name in ("state", "cache", "credentials")}
    pod.agent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rollouts.pod_agent", f"--host={pod.address}", f"--port={AGENT_PORT}",
        f"--monitoring-port={MONITORING_PORT}", f"--engine-socket={pod.engine_socket}",
        f"--desired-dir={pod.folder / 'config'}",
        *(f"--{name}-dir={folder}" for name, folder in folders.items()), *arguments,
        stderr=asyncio.subprocess.PIPE, env={**_environment(), **environment},
    )  # fmt: skip
    if pod.is_ending:
        pod.agent.terminate()
    assert pod.agent.stderr is not None
    with (pod.folder / "agent.log").open("ab") as log:
        async for line in pod.agent.stderr:
            log.write(line)
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                pod.events.append((time.monotonic(), entry.pop("message"), entry))
    await pod.agent.wait()
    pod.note_end()


async def _end(pod: PodProcesses) -> None:
    """End what still runs of a pod."""
    for process in (pod.agent, pod.engine):
        if process is not None and process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), END_SECONDS)
                continue
            process.kill()
            await process.wait()
    await asyncio.to_thread(Path(pod.engine_socket).unlink, missing_ok=True)


def _environment() -> dict[str, str]:
    """Environment of a process that has the paths of this one."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _agent_environment(pod: Document) -> dict[str, str]:
    """Variables of the agent's container."""
    metadata = pod["metadata"]
    fields = {f"metadata.{name}": metadata[name] for name in ("name", "uid", "namespace")}
    [agent] = [each for each in pod["spec"]["containers"] if each["name"] == "agent"]
    environment = {}
    for variable in agent["env"]:
        source = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        environment[variable["name"]] = fields[source] if source else variable["value"]
    return environment


async def count_forwarded(pod: PodProcesses) -> int:
    """Requests that other pods answered for this one since its agent started."""
    reader, writer = await asyncio.open_connection(pod.address, MONITORING_PORT)
    try:
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        found = _FORWARDED.search(await reader.read())
        return int(float(found[1])) if found else 0
    finally:
        writer.transport.abort()


async def answers_ok(address: str, path: bytes) -> bool:
    """True if a probe of this path succeeds within a second."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(address, MONITORING_PORT)
            try:
                writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path)
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return False
