"""Aliases on a real API server, with their operator and pods of real agents, released again and again.

With more aliases than fit into a pod, pods forward requests to each other.
"""

import asyncio
import contextlib
import itertools
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
from rollouts.record_history import ModelChange, RecordHistory
from rollouts.serving_pods import PodProcesses, ServingPods, count_forwarded
from rollouts.stand_in_engine import BASE_LOG_PROBS
from rollouts.supervised_operator import SupervisedOperator

from tunesmith.manifests.serving_deployment import AGENT_PORT
from tunesmith_cluster.fake import ControlPlane
from tunesmith_cluster.processes import ProcessTable
from tunesmith_contract.agent import Version, served_name

NAME = "assistants"
LOOK_SECONDS, FORWARDED_SECONDS = 0.05, 1.0
#: For one release, with an operator that is killed meanwhile, whose lease lasts 15 s.
RELEASE_SECONDS = 120.0
#: The same for other pods that take over.
SWITCH_SECONDS = 180.0
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
class Shape:
    """Size of a world.

    Attributes:
        aliases: names of the aliases.
        resident_adapters: number of aliases that fit into a pod, less one.
        replicas: number of pods.
        rate: requests per second of all clients together.
        look_seconds: time between two looks at what the API server has.
        scale_down_seconds: time for which former pods with another engine answer on kept connections.
    """

    aliases: tuple[str, ...] = ("expenses", "tickets", "travel", "letters")
    resident_adapters: int = 1
    replicas: int = 3
    conversations: int = 400
    clients: int = 12
    rate: float = 300
    look_seconds: float = 0.05
    scale_down_seconds: int = 3


@dataclass(frozen=True, slots=True)
class Release:
    """One version that was released, with monotonic times.

    Attributes:
        mark: what its answers say.
        named: the resource named the artifact.
        decided: the API server had a person's wish for the way back; None if nobody had one.
        ended: the record says that it is stable or rejected.
    """

    alias: str
    version: Version
    mark: str
    named: float
    ended: float
    decided: float | None = None

    @property
    def name(self) -> str:
        """Name of the version in answers."""
        return served_name(self.alias, self.version.digest)


@dataclass
class RolloutWorld:
    """The parts, while they run.

    Attributes:
        adapters: the adapters of the resource, by alias.
        engine: the engine of the resource.
        base_model: URI of the base model of the resource.
        releases: the versions that were released and are stable or rejected.
        marks: mark of each version, by its name in answers.
        engine_switches: number of switches to pods with another engine, and back.
        model_changes: changes of the base model.
    """

    server: ControlPlane
    namespace: str
    shape: Shape
    storage: Storage
    pods: ServingPods
    operator: SupervisedOperator
    history: RecordHistory
    load: Load
    api_processes: ProcessTable
    adapters: dict[str, dict[str, Any]] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    base_model: str = "pvc://models/base"
    releases: list[Release] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    engine_switches: int = 0
    model_changes: list[ModelChange] = field(default_factory=list)

    @property
    def rejected(self) -> set[str]:
        """Marks of the versions that were rolled back."""
        rejections = [
            each.version.digest for record in self.history.records.values() for each in record.rejections
        ]
        return {release.mark for release in self.releases if release.version.digest in rejections}

    def commit(self, alias: str, kind: str = "answers") -> tuple[Version, str]:
        """Write the next artifact for the base model, and name it in the adapter; returns its mark, too.

        Args:
            kind: first word of its mark; ``false`` for one that is not what its manifest says.
        """
        number = len(self.marks)
        mark, base = f"{kind}-{number}", BASE_LOG_PROBS[self.base_model]
        version = self.storage.commit(
            base + 1.0 + 0.0005 * number,
            proven=base + 1.8 if kind == "false" else None,
            note=mark,
            base_log_prob=base,
        )
        self.marks[served_name(alias, version.digest)] = mark
        self.adapters[alias] = build_adapter(alias, version)
        return version, mark

    async def release(self, kind: str = "answers", abort: bool = False) -> Release:
        """Release a version of any alias until it is stable or rolled back.

        Args:
            kind: first word of its mark, as in ``commit``.
            abort: ask for the way back as soon as it has weight.

        Raises:
            TimeoutError: it is neither; holds the record.
        """
        alias = self.load.random.choice(self.shape.aliases)
        version, mark = self.commit(alias, kind)
        self.load.expects_hang = kind == HANGS
        named = time.monotonic()
        await self._patch({"spec": {"adapters": list(self.adapters.values())}})
        decided = None
        if abort:
            await self._until(lambda: self._weight(alias, version) > 0)
            action = json.dumps({"id": mark, "adapter": alias, "verb": "abort"})
            await self._patch({"metadata": {"annotations": {"tunesmith.dev/action": action}}})
            decided = time.monotonic()
        await self._until(lambda: self._has_ended(alias, version))
        release = Release(alias, version, mark, named, time.monotonic(), decided)
        self.releases.append(release)
        if self.load.expects_hang:
            await asyncio.sleep(2 * HANG_PATIENCE)
            self.load.expects_hang = False
        return release

    async def change_engine(self, back: bool = False) -> None:
        """Change the engine until other pods have taken over and the former ones are gone.

        Args:
            back: change back once they have taken over: the former pods take over again.
        """
        former = dict(self.engine)
        await self._switch_engine(former | {"maxRank": 24 - former["maxRank"]})
        if back:
            await self._switch_engine(former)
        await self._until_settled()

    async def _switch_engine(self, engine: dict[str, Any]) -> None:
        self.engine, before = engine, len(self.pods.selections)
        await self._patch({"spec": {"engine": engine}})
        await self._until(lambda: len(self.pods.selections) > before, SWITCH_SECONDS)
        self.engine_switches += 1

    async def change_base_model(self) -> None:
        """Change the base model, with a version for it of each alias, until the former pods are gone."""
        former = {alias: self._stable_name(alias) for alias in self.shape.aliases}
        [self.base_model] = BASE_LOG_PROBS.keys() - {self.base_model}
        versions = {alias: self.commit(alias)[0] for alias in self.shape.aliases}
        selections = len(self.pods.selections)
        spec = {"baseModel": {"uri": self.base_model}, "adapters": list(self.adapters.values())}
        await self._patch({"spec": spec})
        await self._until(lambda: len(self.pods.selections) > selections, SWITCH_SECONDS)
        await self._until(lambda: all(self._has_ended(*each) for each in versions.items()))
        taken_over = time.monotonic()
        await self._until_settled()
        names = {former[alias]: served_name(alias, versions[alias].digest) for alias in versions}
        former_pods = [pod for pod in self.pods.gone if pod.base_model != self.base_model]
        self.model_changes.append(
            ModelChange(
                versions=names,
                marks={self.marks[old]: self.marks[new] for old, new in names.items()},
                switched=self.pods.selections[selections].earliest,
                gone=max(pod.gone_at for pod in former_pods),
                taken_over=taken_over,
            )
        )

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
        """Wait until as many pods as there are to be answer."""
        await self._until(lambda: len(self.pods.endpoints) == self.shape.replicas)

    async def until_served(self) -> None:
        """Wait until each pod answers the aliases: a record names a first version before the pods hear of it."""
        async with asyncio.timeout(RELEASE_SECONDS):
            for pod, alias in itertools.product(self.pods.endpoints, self.shape.aliases):
                while True:
                    if await _serves(pod, alias):
                        break
                    await asyncio.sleep(LOOK_SECONDS)

    async def until_forwarded(self) -> None:
        """Wait until one of the pods that answer now has forwarded a request to another one, which answered it."""
        async with asyncio.timeout(RELEASE_SECONDS):
            while True:
                with contextlib.suppress(OSError):
                    if any([await count_forwarded(pod) for pod in self.pods.endpoints]):
                        return
                await asyncio.sleep(FORWARDED_SECONDS)

    async def _until_settled(self) -> None:
        """Wait until the pods that answer are all there are."""
        await self._until(
            lambda: (
                len(self.pods.endpoints) == self.shape.replicas
                and all(self.pods.selects(pod) for pod in self.pods.pods.values())
            ),
            SWITCH_SECONDS,
        )

    async def _any_pod(self) -> PodProcesses:
        """One of the pods that take connections, of all sets."""
        await self.until_ready()
        return self.load.random.choice([pod for pod in self.pods.pods.values() if pod.takes_connections])

    def _stable_name(self, alias: str) -> str:
        record = self.history.records.get(alias)
        assert record is not None and record.stable is not None
        return served_name(alias, record.stable.digest)

    def _weight(self, alias: str, version: Version) -> int:
        return self.history.readings[alias][-1].weights.get(served_name(alias, version.digest), 0)

    def _has_ended(self, alias: str, version: Version) -> bool:
        record = self.history.records.get(alias)
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

    async def _until(self, condition: Callable[[], bool], seconds: float = RELEASE_SECONDS) -> None:
        try:
            async with asyncio.timeout(seconds):
                while True:
                    if condition():
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            for record in self.history.records.values():
                error.add_note(record.to_json())
            for pod in self.pods.pods.values():
                selected = "selected" if self.pods.selects(pod) else "not selected"
                error.add_note(f"{pod.name}: {selected}, ready {pod.is_ready}, ends {pod.is_ending}")
            raise


def build_adapter(alias: str, version: Version) -> dict[str, Any]:
    """The alias with this artifact."""
    source = {"uri": version.uri, "digest": version.digest}
    verdict = {"verdict": "None"}
    return {"name": alias, "source": source, "requireEvalRun": verdict, "rollout": ROLLOUT}


async def _serves(pod: PodProcesses, alias: str) -> bool:
    reader, writer = await asyncio.open_connection(pod.address, AGENT_PORT)
    try:
        writer.write(post({**ASK, "model": alias}))
        return (await Wire(reader, writer).answer()).status == 200
    finally:
        writer.transport.abort()


@asynccontextmanager
async def rollout_world(
    server: ControlPlane, folder: Path, *, seed: int, shape: Shape
) -> AsyncIterator[RolloutWorld]:
    """A world whose first versions answer all requests; the load begins with the block, and ends before it does."""
    namespace = server.namespace("rollouts")
    for claim in ("artifacts", "models"):
        await asyncio.to_thread(
            server.add_volume, namespace, claim, folder, "gpu-0", access_mode="ReadWriteMany"
        )
    storage = Storage(folder / "storage")
    pods = ServingPods(server, namespace, NAME, folder, storage.root, AGENT_ARGUMENTS)
    load = Load(pods, shape.aliases, shape.conversations, shape.clients, shape.rate, random.Random(seed))
    world = RolloutWorld(
        server, namespace, shape, storage, pods, SupervisedOperator(server, folder, namespace),
        RecordHistory(server, namespace, shape.look_seconds), load, ProcessTable(server.kubeconfig.parent),
    )  # fmt: skip
    first = {alias: world.commit(alias)[0] for alias in shape.aliases}
    world.engine = {
        "lameDuck": "1s",
        "drain": "20s",
        "maxRank": 16,
        "residentAdapters": shape.resident_adapters,
        "scaleDownDelay": f"{shape.scale_down_seconds}s",
    }
    spec: dict[str, Any] = {
        "baseModel": {"uri": world.base_model},
        "replicas": shape.replicas,
        "engine": world.engine,
        "artifactVolumes": [{"claim": "artifacts"}],
        "adapters": list(world.adapters.values()),
    }
    body = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "AdapterDeployment", "metadata": {"name": NAME}}
    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(part.run()) for part in (world.operator, pods, world.history)]
        await asyncio.to_thread(server.apply, body | {"spec": spec}, namespace)
        await world._until(lambda: all(world._has_ended(*each) for each in first.items()))
        await world.until_ready()
        await world.until_served()
        asking = group.create_task(load.run())
        yield world
        load.stop.set()
        await asking
        for part in parts:
            part.cancel()
