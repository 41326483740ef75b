"""One version from storage to proven: verify, load, prove."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from tunesmith_agent.artifacts.fetch import ArtifactFolders
from tunesmith_agent.artifacts.verify import ArtifactInvalid, ArtifactUnreadable, verify_artifact
from tunesmith_agent.engine.client import EngineClient, EngineRefused, EngineUnavailable
from tunesmith_agent.metrics import AgentMetrics
from tunesmith_contract.agent import LoadState, Version, served_name
from tunesmith_contract.artifact import Manifest

from .proof import Measurement, choose_probes, judge_adapter, judge_base

#: Versions whose bytes are read from storage at the same time.
_PARALLEL_READS = 2


class LoadFailure(Exception):
    """A version can't be active: ``reason`` is a PascalCase word, ``retryable``: time may help."""

    def __init__(self, reason: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class BringUp:
    """Brings versions up, each under its own name in the engine, never replacing one."""

    def __init__(
        self, engine: EngineClient, folders: ArtifactFolders, tolerance: float, metrics: AgentMetrics
    ) -> None:
        self._engine = engine
        self._folders = folders
        self._tolerance = tolerance
        self._metrics = metrics
        self._reads = asyncio.Semaphore(_PARALLEL_READS)
        self._proofs = asyncio.Lock()

    async def run(self, alias: str, version: Version, on_state: Callable[[LoadState], None]) -> None:
        """Verify, load and prove one version; ``on_state`` hears of each step.

        Raises:
            LoadFailure: it is not active, and not in the engine either if it had to be refused.
        """
        began = time.monotonic()
        result = "Cancelled"
        try:
            await self._run(alias, version, on_state)
            result = LoadState.ACTIVE
        except LoadFailure as failure:
            result = failure.reason
            raise
        finally:
            self._metrics.count_load(alias, result, time.monotonic() - began)

    async def _run(self, alias: str, version: Version, on_state: Callable[[LoadState], None]) -> None:
        name = served_name(alias, version.digest)
        try:
            on_state(LoadState.FETCHING)
            async with self._reads:
                folder, manifest = await asyncio.to_thread(self._read, version)
            on_state(LoadState.LOADING)
            if name not in await self._engine.adapters():
                await self._engine.load(name, str(folder))
            on_state(LoadState.PROVING)
            async with self._proofs:
                measurements = await self._measure(name, manifest)
            await self._judge(name, measurements)
        except ArtifactInvalid as error:
            raise LoadFailure(error.reason, str(error), retryable=False) from error
        except ArtifactUnreadable as error:
            raise LoadFailure(error.reason, str(error), retryable=True) from error
        except EngineRefused as error:
            raise LoadFailure("EngineRefused", str(error), retryable=False) from error
        except EngineUnavailable as error:
            raise LoadFailure("EngineUnavailable", str(error), retryable=True) from error

    def _read(self, version: Version) -> tuple[Path, Manifest]:
        folder = self._folders.find(version.uri, version.digest)
        return folder, verify_artifact(folder, version.digest)

    def forget(self, digest: str) -> None:
        """Give back the disk of a version that no alias has any more."""
        self._folders.forget(digest)

    async def _judge(self, name: str, measurements: list[Measurement]) -> None:
        if problem := judge_base(measurements, self._tolerance):
            # Not the adapter's fault, and perhaps of the moment: vLLM on CPUs has answered for the base model with an
            # adapter that was in the same batch.
            raise LoadFailure("BaseModelMismatch", problem, retryable=True)
        if problem := judge_adapter(measurements, self._tolerance):
            await self._engine.unload(name)
            raise LoadFailure("ProofFailed", problem, retryable=False)

    async def _measure(self, name: str, manifest: Manifest) -> list[Measurement]:
        try:
            return [
                Measurement(
                    probe, await self._engine.base_log_prob(probe), await self._engine.log_prob(name, probe)
                )
                for probe in choose_probes(manifest.probes)
            ]
        except EngineRefused as error:
            if name not in await self._engine.adapters():
                raise EngineUnavailable("the engine was restarted") from error
            raise
