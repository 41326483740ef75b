"""Loading of one version: verify its artifact, load it into the engine, prove that it answers."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from tunesmith_agent.artifacts import ArtifactError, ArtifactFolders, ArtifactUnreadable
from tunesmith_agent.engine.client import EngineClient, EngineRefused, EngineUnavailable
from tunesmith_agent.metrics import AgentMetrics
from tunesmith_contract.agent import PROOF_FAILED, UNPROVEN, LoadState, Version, served_name
from tunesmith_contract.artifact import Manifest

from .proof import Measurement, ProofResult, Verdict, expected_noise, judge, probes_to_measure, weigh

log = logging.getLogger(__name__)

#: Versions whose bytes are read from storage at the same time.
_PARALLEL_READS = 2
#: Measurements of a version, all of which fail before the failure is final.
PROOF_ATTEMPTS = 3


class LoadFailure(Exception):
    """A version that can't be loaded: ``reason`` is a PascalCase word; a ``retryable`` one may load later."""

    def __init__(self, reason: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Reservation:
    """Uncertainty about a version that is active: ``reason`` is a PascalCase word; both are empty without one."""

    reason: str = ""
    message: str = ""


class VersionLoader:
    """Loader of versions, each under a name of its own in the engine; none is ever replaced.

    Args:
        engine: client of the engine.
        folders: artifacts on this pod.
        tolerance: difference in nats per token that a proof accepts whatever the noise.
        proof_pause: seconds until a failed proof is measured again.
        metrics: counters of the agent.
    """

    def __init__(
        self,
        engine: EngineClient,
        folders: ArtifactFolders,
        tolerance: float,
        proof_pause: float,
        metrics: AgentMetrics,
    ) -> None:
        self._engine = engine
        self._folders = folders
        self._tolerance = tolerance
        self._metrics = metrics
        self._proof_pause = proof_pause
        self._reads = asyncio.Semaphore(_PARALLEL_READS)
        self._proofs = asyncio.Lock()

    async def load(self, alias: str, version: Version, on_state: Callable[[LoadState], None]) -> Reservation:
        """Verify, load and prove one version; ``on_state`` is called at each step.

        Returns:
            What is uncertain about the version, which is active.

        Raises:
            LoadFailure: it is not active; one that failed its proof is unloaded again.
        """
        started = time.monotonic()
        result = "Cancelled"
        try:
            reservation = await self._load(alias, version, on_state)
            result = LoadState.ACTIVE
            return reservation
        except LoadFailure as failure:
            result = failure.reason
            raise
        finally:
            self._metrics.count_load(alias, result, time.monotonic() - started)

    async def _load(self, alias: str, version: Version, on_state: Callable[[LoadState], None]) -> Reservation:
        name = served_name(alias, version.digest)
        try:
            on_state(LoadState.FETCHING)
            async with self._reads:
                folder, manifest = await asyncio.to_thread(self._folders.open, version.uri, version.digest)
            on_state(LoadState.LOADING)
            if name not in await self._engine.adapters():
                await self._engine.load(name, str(folder))
            on_state(LoadState.PROVING)
            return await self._prove(alias, name, manifest)
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

    async def _prove(self, alias: str, name: str, manifest: Manifest) -> Reservation:
        """Measure until the version is proven, or failed every time.

        Raises:
            LoadFailure: it failed every time and was unloaded, or the base model is another one.
        """
        for attempt in range(1, PROOF_ATTEMPTS + 1):
            async with self._proofs:
                verdict = await self._measure(alias, name, manifest)
            match verdict.result:
                case ProofResult.PROVED:
                    return Reservation()
                case ProofResult.UNPROVEN:
                    return Reservation(UNPROVEN, verdict.message)
                case ProofResult.BASE_MODEL_MISMATCH:
                    # Not a fault of the adapter, and perhaps temporary: vLLM on CPUs has answered for the base model
                    # with an adapter of the same batch.
                    raise LoadFailure(verdict.result.value, verdict.message, retryable=True)
            log.warning(
                "proof %d of %d failed",
                attempt,
                PROOF_ATTEMPTS,
                extra={"alias": alias, "detail": verdict.message},
            )
            if attempt < PROOF_ATTEMPTS:
                await asyncio.sleep(self._proof_pause)
        await self._engine.unload(name)
        message = f"{verdict.message} Measured {PROOF_ATTEMPTS} times."
        raise LoadFailure(PROOF_FAILED, message, retryable=False)

    async def _measure(self, alias: str, name: str, manifest: Manifest) -> Verdict:
        """Verdict on fresh measurements: nothing comes from the engine's prefix cache."""
        probes, salt = probes_to_measure(manifest), uuid.uuid4().hex
        try:
            base = await self._engine.log_probs("", probes, salt)
            adapter = await self._engine.log_probs(name, probes, salt)
        except EngineRefused as error:
            if name not in await self._engine.adapters():
                raise EngineUnavailable("the engine was restarted") from error
            raise
        evidence = weigh([Measurement(*values) for values in zip(probes, base, adapter, strict=True)])
        verdict = judge(evidence, expected_noise(manifest), self._tolerance)
        self._metrics.count_proof(alias, verdict.result.value, evidence.base_rms)
        return verdict
