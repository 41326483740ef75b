"""Loading of one version: verify its artifact, load it into the engine, prove that it answers."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from tunesmith_agent.artifacts.errors import ArtifactError, ArtifactUnreadable
from tunesmith_agent.engine.client import EngineClient, EngineRefused, EngineUnavailable
from tunesmith_agent.metrics import AgentMetrics
from tunesmith_contract.agent import PROOF_FAILED, UNPROVEN, LoadState, Version, served_name
from tunesmith_contract.answer_formats import ChatFormat
from tunesmith_contract.artifact import Manifest

from .fetches import Fetches
from .proof import Measurement, ProofResult, Verdict, expected_noise, judge, probes_to_measure, weigh
from .residency import Residency

log = logging.getLogger(__name__)

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
    """Uncertainty about a version that is active: ``reason`` is a PascalCase word; both are empty without one.

    Attributes:
        chat: form of its conversations, from its manifest.
    """

    reason: str = ""
    message: str = ""
    chat: ChatFormat | None = None


@dataclass(frozen=True, slots=True)
class ProofRules:
    """Rules of proofs.

    Attributes:
        tolerance: difference in nats per token that is accepted whatever the noise.
        pause_seconds: time until a failed proof is measured again.
        seconds: time in which the probes of one measurement must be answered.
    """

    tolerance: float
    pause_seconds: float
    seconds: float


class VersionLoader:
    """Loader of versions, each under a name of its own in the engine; none is ever replaced.

    Args:
        engine: client of the engine.
        fetches: artifacts on this pod.
        residency: owner of the engine's slots.
        rules: rules of proofs.
        metrics: counters of the agent.
    """

    def __init__(
        self,
        engine: EngineClient,
        fetches: Fetches,
        residency: Residency,
        rules: ProofRules,
        metrics: AgentMetrics,
    ) -> None:
        self._engine = engine
        self._fetches = fetches
        self._residency = residency
        self._rules = rules
        self._metrics = metrics
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
        key = alias, version.digest
        try:
            on_state(LoadState.FETCHING)
            artifact = await self._fetches.fetch(alias, version)
            on_state(LoadState.LOADING)
            async with self._residency.hold(key, artifact.folder):
                on_state(LoadState.PROVING)
                result = await self._prove(alias, served_name(*key), artifact.manifest)
            if isinstance(result, Reservation):
                return replace(result, chat=artifact.manifest.chat)
            await self._residency.unload(key)
            raise result
        except ArtifactError as error:
            retryable = isinstance(error, ArtifactUnreadable)
            raise LoadFailure(error.reason, str(error), retryable=retryable) from error
        except EngineRefused as error:
            raise LoadFailure("EngineRefused", str(error), retryable=False) from error
        except EngineUnavailable as error:
            raise LoadFailure("EngineUnavailable", str(error), retryable=True) from error

    def forget_others(self, aliases: set[str]) -> None:
        """Drop what is kept of aliases that are not served any more."""
        self._fetches.forget(aliases)

    async def _prove(self, alias: str, name: str, manifest: Manifest) -> Reservation | LoadFailure:
        """Measure until the version is proven, or failed every time.

        Raises:
            LoadFailure: the base model is another one, or the engine did not answer in time.
        """
        for attempt in range(1, PROOF_ATTEMPTS + 1):
            async with self._proofs:
                verdict = await self._measure_in_time(alias, name, manifest)
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
                await asyncio.sleep(self._rules.pause_seconds)
        message = f"{verdict.message} Measured {PROOF_ATTEMPTS} times."
        return LoadFailure(PROOF_FAILED, message, retryable=False)

    async def _measure_in_time(self, alias: str, name: str, manifest: Manifest) -> Verdict:
        try:
            async with asyncio.timeout(self._rules.seconds):
                return await self._measure(alias, name, manifest)
        except TimeoutError:
            message = f"The engine did not answer the probes within {self._rules.seconds:g} s."
            raise LoadFailure("ProofTimedOut", message, retryable=True) from None

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
        verdict = judge(evidence, expected_noise(manifest), self._rules.tolerance)
        self._metrics.count_proof(alias, verdict.result.value, evidence.base_rms)
        return verdict
