"""One alias on a real API server, with its operator and three pods of real agents, released again and again."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.agent_harness import Storage
from agents.wire import ASK, Wire, post
from rollouts.clients import HANG_PATIENCE, HANGS, Load
from rollouts.record_history import RecordHistory
from rollouts.serving_pods import PodProcesses, ServingPods
from rollouts.supervised_operator import SupervisedOperator

from tunesmith.manifests.serving_deployment import AGENT_PORT
from tunesmith_cluster.fake import ControlPlane
from tunesmith_cluster.processes import ProcessTable
from tunesmith_contract.agent import Version, served_name

NAME, ALIAS, REPLICAS = "assistants", "expenses", 3
LOOK_SECONDS = 0.05
#: For one release, with an operator that is killed meanwhile, whose lease lasts 15 s.
RELEASE_SECONDS = 120.0
ROLLOUT = {
    "steps": [{"weight": 20, "pause": "2s"}, {"weight": 50, "pause": "2s"}, {"weight": 100}],
    "analysis": {
        "interval": "1s",
        "minimumRequests": 10,
        "checks": [{"metric": "ErrorRate", "guardrail": {"max": "0.02", "confidence": "0.99"}}],
    },
}
#: Abandoned requests are to count within the test's time.
AGENT_ARGUMENTS = ("--abandoned-seconds=1", "--proof-pause-seconds=0.1")


@dataclass(frozen=True, slots=True)
class Release:
    """One version that was released, with monotonic times.

    Attributes:
        mark: what its answers say.
        named: the resource named the artifact.
        decided: the API server had a person's wish for the way back; None if nobody had one.
        ended: the record says that it is stable or rejected.
    """

    version: Version
    mark: str
    named: float
    ended: float
    decided: float | None = None

    @property
    def name(self) -> str:
        """Name of the version in answers."""
        return served_name(ALIAS, self.version.digest)


@dataclass
class RolloutWorld:
    """The parts, while they run."""

    server: ControlPlane
    namespace: str
    storage: Storage
    pods: ServingPods
    operator: SupervisedOperator
    history: RecordHistory
    load: Load
    api_processes: ProcessTable
    releases: list[Release] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)

    @property
    def rejected(self) -> set[str]:
        """Marks of the versions that were rolled back."""
        record = self.history.latest
        digests = {rejection.version.digest for rejection in record.rejections} if record else set()
        return {release.mark for release in self.releases if release.version.digest in digests}

    async def release(self, kind: str = "answers", abort: bool = False) -> Release:
        """Release a version until it is stable or rolled back.

        Args:
            kind: first word of its mark; ``false`` for one that is not what its manifest says.
            abort: ask for the way back as soon as it has weight.

        Raises:
            TimeoutError: it is neither; holds the record.
        """
        number = len(self.marks) + 1
        mark = f"{kind}-{number}"
        self.marks.append(mark)
        log_prob = -1.0 + 0.0005 * number
        version = self.storage.commit(log_prob, proven=-0.2 if kind == "false" else None, note=mark)
        self.load.expects_hang = kind == HANGS
        named = time.monotonic()
        await self._patch({"spec": {"adapters": [build_adapter(version)]}})
        decided = None
        if abort:
            await self._until(lambda: self._weight(version) > 0)
            action = json.dumps({"id": mark, "adapter": ALIAS, "verb": "abort"})
            await self._patch({"metadata": {"annotations": {"tunesmith.dev/action": action}}})
            decided = time.monotonic()
        await self._until(lambda: self._has_ended(version))
        release = Release(version, mark, named, time.monotonic(), decided)
        self.releases.append(release)
        if self.load.expects_hang:
            await asyncio.sleep(2 * HANG_PATIENCE)
            self.load.expects_hang = False
        return release

    # -- what may happen meanwhile; a pod is only taken away while the others are ready

    async def kill_agent(self) -> None:
        """Kill the agent of any pod; kubelet starts it again in the same pod."""
        (await self._any_pod()).kill()

    async def delete_pod(self) -> None:
        """Delete any pod; another one follows."""
        pod = await self._any_pod()
        await self._try(lambda: self.pods.delete(pod))

    async def lose_pod(self) -> None:
        """Kill both processes of any pod, which is deleted, as with a node that is lost."""
        pod = await self._any_pod()
        pod.kill()
        assert pod.engine is not None
        pod.engine.kill()
        await self._try(lambda: self.pods.delete(pod))

    async def kill_operator(self) -> None:
        """Kill the operator, whose successor waits for its lease to end."""
        self.operator.kill()

    async def pause_api_server(self, seconds: float = 3.0) -> None:
        """Let the API server answer nothing for a while."""
        with self.api_processes.paused("kube-apiserver"):
            await asyncio.sleep(seconds)

    async def until_ready(self) -> None:
        """Wait until all pods are ready and a version is stable."""
        await self._until(lambda: len(self.pods.endpoints) == REPLICAS)

    async def until_served(self) -> None:
        """Wait until each pod answers the alias: the record names a first version before the pods hear of it."""
        async with asyncio.timeout(RELEASE_SECONDS):
            for pod in self.pods.endpoints:
                while True:
                    if await _serves(pod):
                        break
                    await asyncio.sleep(LOOK_SECONDS)

    async def _any_pod(self) -> PodProcesses:
        await self.until_ready()
        return self.load.random.choice(self.pods.endpoints)

    def _weight(self, version: Version) -> int:
        return self.history.readings[-1].weights.get(served_name(ALIAS, version.digest), 0)

    def _has_ended(self, version: Version) -> bool:
        record = self.history.latest
        if record is None:
            return False
        is_stable = record.stable is not None and record.stable.digest == version.digest
        return is_stable or record.is_rejected(version.digest)

    async def _patch(self, change: dict[str, Any]) -> None:
        path = f"/apis/tunesmith.dev/v1alpha1/namespaces/{self.namespace}/adapterdeployments/{NAME}"
        await self._try(lambda: asyncio.to_thread(self.server.api.merge, path, change))

    async def _try(self, call: Callable[[], Awaitable[object]]) -> None:
        """Call again while the API server is away."""
        while True:
            with contextlib.suppress(ConnectionError):
                await call()
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                while True:
                    if condition():
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            record = self.history.latest
            error.add_note(record.to_json() if record else "there is no record")
            raise


def build_adapter(version: Version) -> dict[str, Any]:
    """The alias with this artifact."""
    source = {"uri": version.uri, "digest": version.digest}
    verdict = {"verdict": "None"}
    return {"name": ALIAS, "source": source, "requireEvalRun": verdict, "rollout": ROLLOUT}


async def _serves(pod: PodProcesses) -> bool:
    reader, writer = await asyncio.open_connection(pod.address, AGENT_PORT)
    try:
        writer.write(post({**ASK, "model": ALIAS}))
        return (await Wire(reader, writer).answer()).status == 200
    finally:
        writer.transport.abort()


@asynccontextmanager
async def rollout_world(
    server: ControlPlane,
    folder: Path,
    *,
    seed: int,
    conversations: int = 300,
    clients: int = 12,
    rate: float = 250,
) -> AsyncIterator[RolloutWorld]:
    """A world whose first version answers all requests; the load begins with the block, and ends before it does."""
    namespace = server.namespace("rollouts")
    for claim in ("artifacts", "models"):
        await asyncio.to_thread(
            server.add_volume, namespace, claim, folder, "gpu-0", access_mode="ReadWriteMany"
        )
    storage = Storage(folder / "storage")
    pods = ServingPods(server, namespace, folder, storage.root, AGENT_ARGUMENTS)
    load = Load(pods, ALIAS, conversations, clients, rate, random.Random(seed))
    world = RolloutWorld(
        server, namespace, storage, pods, SupervisedOperator(server, folder, namespace),
        RecordHistory(server, namespace), load, ProcessTable(server.kubeconfig.parent),
    )  # fmt: skip
    first = storage.commit(-1.0, note="answers-0")
    spec: dict[str, Any] = {
        "baseModel": {"uri": "pvc://models/base"},
        "replicas": REPLICAS,
        "engine": {"lameDuck": "1s", "drain": "20s"},
        "artifactVolumes": [{"claim": "artifacts"}],
        "adapters": [build_adapter(first)],
    }
    body = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "AdapterDeployment", "metadata": {"name": NAME}}
    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(part.run()) for part in (world.operator, pods, world.history)]
        await asyncio.to_thread(server.apply, body | {"spec": spec}, namespace)
        await world._until(lambda: world._has_ended(first))
        await world.until_ready()
        await world.until_served()
        asking = group.create_task(load.run())
        yield world
        load.stop.set()
        await asking
        for part in parts:
            part.cancel()
