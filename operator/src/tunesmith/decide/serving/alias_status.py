"""What people are told about one stable name: made anew each time from its record and what is known."""

from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith.api.adapterdeployment import (
    MAX_HISTORY,
    MAX_REJECTED,
    AdapterStatus,
    CandidateVersion,
    CheckResult,
    PastVersion,
    RejectedDigest,
    StableVersion,
)
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.reasons import AdapterPhase as Phase

from .record import AliasRecord, Trial
from .rollout import Facts, Look, describe, judge, step_index
from .sources import UNEVALUATED, VersionRecord

MAX_MESSAGE = 512


@dataclass(frozen=True, slots=True)
class Standing:
    """Phase, and why."""

    phase: Phase
    reason: str
    message: str


def build_adapter_status(
    record: AliasRecord, facts: Facts, versions: Iterable[VersionRecord]
) -> AdapterStatus:
    """The status of one stable name."""
    own = [known for known in versions if known.alias == record.name]
    standing = find_standing(record, facts, own)
    return AdapterStatus(
        name=record.name,
        phase=standing.phase,
        reason=standing.reason,
        message=standing.message[:MAX_MESSAGE],
        evaluated=_evaluated(record, own),
        stable=_stable(record, facts),
        candidate=_candidate(record, facts),
        history=_history(own),
        rejected=_rejected(own),
    )


def find_standing(record: AliasRecord, facts: Facts, versions: list[VersionRecord]) -> Standing:
    """Phase and reason, the most telling first."""
    if record.trial is not None:
        return _under_way(record, record.trial, facts)
    wanted, stable = facts.wanted, record.stable
    is_current = stable is not None and wanted.version is not None and stable.digest == wanted.version.digest
    if wanted.rejected and wanted.version is not None and not is_current:
        return _taken_back(record, facts)
    if stable is None or (wanted.version is not None and not is_current):
        return Standing(Phase.BLOCKED, wanted.reason, wanted.message)
    if wanted.reason == Reason.SOURCE_UNREACHABLE:
        return Standing(Phase.DEGRADED, Reason.SOURCE_UNREACHABLE, wanted.message)
    for pod, failed in facts.fleet.failures(record.name, stable.digest):
        message = f"{describe(stable)} on pod {pod.name}: {failed.reason}: {failed.message}"
        return Standing(Phase.DEGRADED, Reason.LOAD_FAILED, message)
    message = f"{describe(stable)} answers all requests"
    if _evaluated(record, versions) == UNEVALUATED:
        return Standing(Phase.STABLE, Reason.UNEVALUATED, f"{message}; no EvalRun has passed it")
    return Standing(Phase.STABLE, Reason.PROMOTED, message)


def _under_way(record: AliasRecord, trial: Trial, facts: Facts) -> Standing:
    name = describe(trial.version)
    if facts.adapter.paused:
        return Standing(Phase.PAUSED, Reason.PAUSED, f"{name} stays at {trial.weight} % while paused is true")
    phase = Phase.PROGRESSING if trial.weight else Phase.LOADING
    for pod, failed in facts.fleet.failures(record.name, trial.version.digest):
        message = f"{name} on pod {pod.name}: {failed.reason}: {failed.message}"
        return Standing(phase, Reason.LOAD_FAILED, message)
    if not facts.fleet.is_proved(record.name, trial.version.digest):
        active = facts.fleet.active_on(record.name, trial.version.digest)
        message = f"{name} is active on {active} of {len(facts.fleet.ready)} ready pods"
        return Standing(phase, Reason.NOT_ACTIVE if trial.weight else Reason.LOADING, message)
    seen, needed = trial.tally.total.requests, facts.adapter.rollout.analysis.minimum_requests
    if seen < needed:
        message = f"{name} at {trial.weight} % has answered {seen} of the {needed} requests that a step needs"
        return Standing(phase, Reason.WAITING_FOR_REQUESTS, message)
    return Standing(phase, Reason.STEP_STARTED, f"{name} answers {trial.weight} % of the requests")


def _taken_back(record: AliasRecord, facts: Facts) -> Standing:
    assert facts.wanted.version is not None
    if facts.fleet.holds(record.name, facts.wanted.version.digest):
        return Standing(Phase.ROLLING_BACK, Reason.DIGEST_REJECTED, facts.wanted.message)
    return Standing(Phase.ROLLED_BACK, Reason.DIGEST_REJECTED, facts.wanted.message)


def _evaluated(record: AliasRecord, versions: list[VersionRecord]) -> str | None:
    newest = record.trial.version if record.trial else record.stable
    if newest is None:
        return None
    return next((known.evaluated for known in versions if known.version.digest == newest.digest), UNEVALUATED)


def _stable(record: AliasRecord, facts: Facts) -> StableVersion | None:
    if record.stable is None:
        return None
    return StableVersion(
        version=record.stable.version,
        digest=record.stable.digest,
        uri=record.stable.uri,
        weight=100 - (record.trial.weight if record.trial else 0),
        loaded_on=facts.fleet.active_on(record.name, record.stable.digest),
    )


def _candidate(record: AliasRecord, facts: Facts) -> CandidateVersion | None:
    trial = record.trial
    if trial is None:
        return None
    return CandidateVersion(
        version=trial.version.version,
        digest=trial.version.digest,
        uri=trial.version.uri,
        weight=trial.weight,
        loaded_on=facts.fleet.active_on(record.name, trial.version.digest),
        step=step_index(trial, facts.adapter),
        step_start_time=trial.began if trial.weight else None,
        analysis=tuple(_check_result(look, trial) for look in judge(trial, facts.adapter))
        if trial.weight
        else (),
    )


def _check_result(look: Look, trial: Trial) -> CheckResult:
    return CheckResult(
        metric=look.metric,
        value=None if look.value is None else f"{look.value:.4g}",
        requests=look.counts.requests,
        failures=trial.failed_looks,
        verdict=look.verdict.value,
    )


def _history(versions: list[VersionRecord]) -> tuple[PastVersion, ...]:
    promoted = [(known.promoted, known) for known in versions if known.promoted]
    promoted.sort(key=lambda pair: (pair[0], pair[1].version.version), reverse=True)
    return tuple(
        PastVersion(
            version=known.version.version, digest=known.version.digest, verdict=known.evaluated, time=time
        )
        for time, known in promoted[:MAX_HISTORY]
    )


def _rejected(versions: list[VersionRecord]) -> tuple[RejectedDigest, ...]:
    rejected = [(known.rejected, known) for known in versions if known.rejected]
    rejected.sort(key=lambda pair: (pair[0], pair[1].version.version), reverse=True)
    return tuple(
        RejectedDigest(digest=known.version.digest, reason=known.reason, time=time)
        for time, known in rejected[:MAX_REJECTED]
    )
