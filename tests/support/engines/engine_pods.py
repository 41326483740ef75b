"""Serving pods with the real engine: each an agent and a vLLM process; a scripted operator says what to serve.

A kubelet and a Service without an API server: an agent that ends is started again, ``selected`` is the base model whose
pods a new connection leads to.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agents.scripted_operator import ScriptedOperator
from engines.engine_process import ENGINE_SECONDS, EngineProcess
from models.order import model_uri
from rollouts.record_history import StateHistory
from rollouts.serving_pods import PodProcesses, answers_ok, run_agent

from tunesmith_contract.agent import (
    DesiredAlias,
    DesiredState,
    LoadState,
    OtherModel,
    Version,
)
from tunesmith_contract.layout import TOKEN_FILE

LOOK_SECONDS = 0.1
#: Greedy answers are the marks; one slot stays free, as the operator leaves it.
ENGINE_ARGUMENTS = ("--max-loras=6", "--max-cpu-loras=12", '--override-generation-config={"temperature": 0}')
AGENT_ARGUMENTS = (
    "--adapter-slots=12",
    "--lame-duck-seconds=1",
    "--drain-seconds=20",
    "--proof-pause-seconds=0.5",
)


class EnginePods:
    """The pods of one deployment; everything runs on one event loop.

    Args:
        folder: with a folder for each model, and the claims in ``mnt``.

    Attributes:
        selected: base model whose pods the Service selects.
        history: the states that were pushed.
    """

    def __init__(self, folder: Path, group: asyncio.TaskGroup) -> None:
        self.operator = ScriptedOperator()
        self.history = StateHistory()
        self.selected = ""
        self.all: list[PodProcesses] = []
        self.engines: dict[str, EngineProcess] = {}
        self._folder, self._group = folder, group
        self._state = DesiredState(generation=0)
        self._lives: dict[str, asyncio.Task[None]] = {}

    @property
    def endpoints(self) -> list[PodProcesses]:
        """Where a new connection may lead."""
        return [pod for pod in self.all if pod.takes_connections and pod.name == self.selected]

    def pod(self, model: str) -> PodProcesses:
        """The pod on a base model, which is its name."""
        return next(pod for pod in self.all if pod.name == model)

    async def add(self, model: str) -> None:
        """Start a pod on a base model, and wait until it is ready."""
        engine = EngineProcess(self._folder / model, *ENGINE_ARGUMENTS)
        self.engines[model] = engine
        engine.start()
        pod = PodProcesses(model, model, self._folder / f"pod-{model}", {}, engine_socket=engine.socket)
        pod.make_folders()
        (pod.folder / "credentials" / TOKEN_FILE).write_text("token")
        self.all.append(pod)
        self._lives[model] = self._group.create_task(self._live(pod))
        await self.until_ready(model)

    async def remove(self, model: str) -> None:
        """Delete the pod on a base model, and wait until its processes are gone."""
        self.pod(model).end()
        await self._lives.pop(model)

    async def end(self) -> None:
        """Delete all pods."""
        for model in tuple(self._lives):
            await self.remove(model)
        await self.operator.stop()

    async def push(self, *aliases: DesiredAlias, other: OtherModel | None = None) -> None:
        """Push the next state to all pods."""
        self.history.note(self._state, time.monotonic(), time.monotonic())
        self._state = DesiredState(generation=self._state.generation + 1, aliases=aliases, other=other)
        began = time.monotonic()
        await self.operator.push(self._state)
        self.history.note(self._state, began, time.monotonic())

    def is_active(self, model: str, alias: str, version: Version) -> bool:
        """True if the pod on a base model has reported a version as active."""
        report = self.operator.latest.get(model)
        return report is not None and any(
            (each.alias, each.digest, each.state) == (alias, version.digest, LoadState.ACTIVE)
            for each in report.versions
        )

    async def until_active(self, model: str, alias: str, *versions: Version) -> None:
        """Wait until a pod has reported versions as active."""
        await until(lambda: all(self.is_active(model, alias, version) for version in versions))

    async def until_ready(self, model: str) -> None:
        """Wait until a pod is ready."""
        await until(lambda: self.pod(model).is_ready)

    async def _live(self, pod: PodProcesses) -> None:
        """From its start until its processes have ended."""
        probing = asyncio.create_task(self._probe(pod))
        arguments = (
            f"--mount-root={self._folder / 'mnt'}",
            *self.operator.arguments,
            *AGENT_ARGUMENTS,
            f"--pod-name={pod.name}",
            f"--base-model-uri={model_uri(pod.name)}",
        )
        try:
            while not pod.is_ending:
                await run_agent(pod, arguments, {})
        finally:
            probing.cancel()
            if pod.agent is not None and pod.agent.returncode is None:
                pod.agent.kill()
                await pod.agent.wait()
            await asyncio.to_thread(self.engines[pod.name].end)
            pod.gone_at = time.monotonic()

    async def _probe(self, pod: PodProcesses) -> None:
        while True:
            pod.is_ready = await answers_ok(pod.address, b"/readyz")
            await asyncio.sleep(LOOK_SECONDS)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that pods bring about."""
    async with asyncio.timeout(ENGINE_SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def engine_pods(folder: Path) -> AsyncIterator[EnginePods]:
    """No pods at first; those that are added end with the block."""
    async with asyncio.TaskGroup() as group:
        pods = EnginePods(folder, group)
        await pods.operator.start()
        try:
            yield pods
        finally:
            await pods.end()
