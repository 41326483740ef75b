"""Loading of one version: verify its artifact, load it into the engine, prove that it answers."""

import asyncio
import time
from collections.abc import Callable

from tunesmith_agent.artifacts import ArtifactError, ArtifactFolders, ArtifactUnreadable
from tunesmith_agent.engine.client import EngineClient, EngineRefused, EngineUnavailable
from tunesmith_agent.metrics import AgentMetrics
from tunesmith_contract.agent import LoadState, Version, served_name
from tunesmith_contract.artifact import Manifest

from .proof import Measurement, choose_probes, judge_adapter, judge_base

#: Versions whose bytes are read from storage at the same time.
_PARALLEL_READS = 2


class LoadFailure(Exception):
    """A version that can't be loaded: ``reason`` is a PascalCase word; a ``retryable`` one may load later."""

    def __init__(self, reason: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class VersionLoader:
    """Loader of versions, each under a name of its own in the engine; none is ever replaced."""

    def __init__(
        self, engine: EngineClient, folders: ArtifactFolders, tolerance: float, metrics: AgentMetrics
    ) -> None:
        self._engine = engine
        self._folders = folders
        self._tolerance = tolerance
        self._metrics = metrics
        self._reads = asyncio.Semaphore(_PARALLEL_READS)
        self._proofs = asyncio.Lock()

    async def load(self, alias: str, version: Version, on_state: Callable[[LoadState], None]) -> None:
        """Verify, load and prove one version; ``on_state`` is called at each step.

        Raises:
            LoadFailure: it is not active; one that failed its proof is unloaded again.
        """
        started = time.monotonic()
        result = "Cancelled"
        try:
            await self._load(alias, version, on_state)
            result = LoadState.ACTIVE
        except LoadFailure as failure:
            result = failure.reason
            raise
        finally:
            self._metrics.count_load(alias, result, time.monotonic() - started)

    async def _load(self, alias: str, version: Version, on_state: Callable[[LoadState], None]) -> None:
        name = served_name(alias, version.digest)
        try:
            on_state(LoadState.FETCHING)
            async with self._reads:
                folder, manifest = await asyncio.to_thread(self._folders.open, version.uri, version.digest)
            on_state(LoadState.LOADING)
            if name not in await self._engine.adapters():
                await self._engine.load(name, str(folder))
            on_state(LoadState.PROVING)
            async with self._proofs:
                measurements = await self._measure(name, manifest)
            await self._judge(name, measurements)
        except ArtifactError as error:
            retryable = isinstance(error, ArtifactUnreadable)
            raise LoadFailure(error.reason, str(error), retryable=retryable) from error
        except EngineRefused as error:
            raise LoadFailure("EngineRefused", str(error), retryable=False) from error
        except EngineUnavailable as error:
            raise LoadFailure("EngineUnavailable", str(error), retryable=True) from error

    def remove_artifact(self, digest: str) -> None:
        """Free the disk space of a version that no alias has any more."""
        self._folders.remove(digest)

    async def _judge(self, name: str, measurements: list[Measurement]) -> None:
        if problem := judge_base(measurements, self._tolerance):
            # Not a fault of the adapter, and perhaps temporary: vLLM on CPUs has answered for the base model with an
            # adapter of the same batch.
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
