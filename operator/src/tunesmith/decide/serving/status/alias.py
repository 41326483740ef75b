"""Status of one alias, rebuilt each time from its record and the observed pods."""

from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith.api.adapterdeployment import (
    MAX_ACTIONS,
    MAX_HISTORY,
    MAX_REJECTED,
    ActionResult,
    AdapterStatus,
    CandidateVersion,
    CheckResult,
    PastVersion,
    PreviousVersion,
    RejectedDigest,
    StableVersion,
)
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.reasons import AdapterPhase as Phase
from tunesmith.api.values import duration_seconds
from tunesmith.decide.serving.admission.targets import UNEVALUATED, VersionRecord
from tunesmith.decide.serving.records.elapsed import step_pause
from tunesmith.decide.serving.records.record import ActionOutcome, AliasRecord, RolloutCandidate
from tunesmith.decide.serving.rollout.analysis import evaluate_checks, find_violation, fold_watch
from tunesmith.decide.serving.rollout.transition import AliasContext, describe, is_paused
from tunesmith.decide.serving.rollout.transitions import exceeded_limit, is_proven, step_index
from tunesmith_contract.shared_rules.verdict import Verdict

MAX_MESSAGE = 512
MAX_MANAGER = 128


@dataclass(frozen=True, slots=True)
class PhaseSummary:
    """Phase of an alias with its reason."""

    phase: Phase
    reason: str
    message: str


def build_adapter_status(
    record: AliasRecord, context: AliasContext, versions: Iterable[VersionRecord], generation: int
) -> AdapterStatus:
    """Status of one alias.

    Args:
        versions: the versions of all aliases.
        generation: the generation that a pod must have applied to answer as the record says.
    """
    own = [version for version in versions if version.alias == record.name]
    summary = summarize_phase(record, context, own, generation)
    return AdapterStatus(
        name=record.name,
        phase=summary.phase,
        reason=summary.reason,
        message=summary.message[:MAX_MESSAGE],
        evaluated=_newest_verdict(record, own),
        eval_runs=context.target.eval_runs or None,
        stable=_stable_status(record, context),
        paused=is_paused(record, context.adapter),
        candidate=_candidate_status(record, context),
        previous=_previous_status(record, context),
        history=_promoted_versions(own),
        rejected=_rejected_digests(own, record),
        actions=tuple(map(_action_result, record.actions[:MAX_ACTIONS])),
    )


def summarize_phase(
    record: AliasRecord, context: AliasContext, versions: list[VersionRecord], generation: int
) -> PhaseSummary:
    """Phase of the alias, with the most important reason.

    Args:
        versions: the versions of this alias.
        generation: the generation that a pod must have applied to answer as the record says.
    """
    summary = _phase_of_source(record, context, versions, generation)
    is_moving = summary.phase in {Phase.LOADING, Phase.PROGRESSING, Phase.ROLLING_BACK}
    if is_moving or record.stable is None:
        return summary
    violation = find_violation(
        fold_watch(record.watch, context.fleet, record.name, record.stable.digest), context.adapter
    )
    if violation is None:
        return summary
    message = (
        f"{describe(record.stable)}: {violation.message}. No earlier version is kept loaded to go back to"
    )
    if summary.phase is not Phase.STABLE:
        message = f"{message}; and {summary.message}"
    return PhaseSummary(Phase.DEGRADED, Reason.ERROR_RATE_TOO_HIGH, message)


def _phase_of_source(
    record: AliasRecord, context: AliasContext, versions: list[VersionRecord], generation: int
) -> PhaseSummary:
    """Phase of the alias by what its source names and its pods hold, whatever clients see."""
    if record.candidate is not None:
        return _candidate_phase(record, record.candidate, context)
    target, stable = context.target, record.stable
    is_current = stable is not None and target.version is not None and stable.digest == target.version.digest
    if target.rejected and target.version is not None and not is_current:
        is_held = context.fleet.holds(record.name, target.version.digest)
        phase = Phase.ROLLING_BACK if is_held else Phase.ROLLED_BACK
        return PhaseSummary(phase, Reason.DIGEST_REJECTED, target.message)
    if target.reason == Reason.WAITING_FOR_SWITCH:
        return PhaseSummary(Phase.LOADING, Reason.WAITING_FOR_SWITCH, target.message)
    if stable is None or (target.version is not None and not is_current):
        return PhaseSummary(Phase.BLOCKED, target.reason, target.message)
    if target.reason == Reason.SOURCE_UNREACHABLE:
        return PhaseSummary(Phase.DEGRADED, Reason.SOURCE_UNREACHABLE, target.message)
    for pod, failed in context.fleet.failures(record.name, stable.digest):
        message = f"{describe(stable)} on pod {pod.name}: {failed.reason}: {failed.message}"
        return PhaseSummary(Phase.DEGRADED, Reason.LOAD_FAILED, message)
    message = f"{describe(stable)} answers all requests"
    if not context.fleet.has_confirmed(record.name, stable.digest, generation):
        return PhaseSummary(
            Phase.PROGRESSING, Reason.PROMOTED, f"{message} once a ready pod has confirmed it"
        )
    if unproven := context.fleet.unproven(record.name, stable.digest):
        return PhaseSummary(Phase.STABLE, Reason.UNPROVEN, f"{message}; {unproven}")
    if _newest_verdict(record, versions) == UNEVALUATED:
        return PhaseSummary(Phase.STABLE, Reason.UNEVALUATED, f"{message}; no EvalRun has passed it")
    return PhaseSummary(Phase.STABLE, Reason.PROMOTED, message)


def _candidate_phase(record: AliasRecord, candidate: RolloutCandidate, context: AliasContext) -> PhaseSummary:
    name, weight, digest = describe(candidate.version), candidate.weight, candidate.version.digest
    if final := context.fleet.final_failure(record.name, digest):
        pod, failed = final
        message = f"{name} can't be served: {failed.reason}: {failed.message} (pod {pod.name})"
        if record.undo is not None:
            message = f"{message}. Write the action abort to give up the undo"
        return PhaseSummary(Phase.BLOCKED, Reason.INCOMPATIBLE, message)
    if is_paused(record, context.adapter) and record.undo is None:
        return PhaseSummary(Phase.PAUSED, Reason.PAUSED, _paused_message(record, candidate, context))
    phase = Phase.PROGRESSING if weight else Phase.LOADING
    summary = _progress(phase, record, candidate, context)
    if limit := exceeded_limit(candidate, context.adapter):
        return PhaseSummary(phase, Reason.ANALYSIS_LIMIT_EXCEEDED, f"{name} at {weight} %: {limit}")
    deadline = context.adapter.rollout.progress_deadline
    if candidate.waiting_seconds >= duration_seconds(deadline):
        message = f"no progress within {deadline}: {summary.message}"
        return PhaseSummary(phase, Reason.PROGRESS_DEADLINE_EXCEEDED, message)
    return summary


def _paused_message(record: AliasRecord, candidate: RolloutCandidate, context: AliasContext) -> str:
    message = f"{describe(candidate.version)} stays at {candidate.weight} %"
    if context.adapter.paused:
        return f"{message} while paused is true"
    return f"{message} until the action resume"


def _progress(
    phase: Phase, record: AliasRecord, candidate: RolloutCandidate, context: AliasContext
) -> PhaseSummary:
    """The cause for which the candidate does not go on yet."""
    name, weight, digest = describe(candidate.version), candidate.weight, candidate.version.digest
    fleet = context.fleet
    if not is_proven(record, candidate, context):
        for pod, failed in fleet.failures(record.name, digest):
            message = f"{name} on pod {pod.name}: {failed.reason}: {failed.message}"
            return PhaseSummary(phase, Reason.LOAD_FAILED, message)
        active = fleet.active_on(record.name, digest)
        message = f"{name} is active on {active} of {len(fleet.ready)} ready pods"
        return PhaseSummary(phase, Reason.NOT_ACTIVE if weight else Reason.LOADING, message)
    reservation = "; unproven" if fleet.unproven(record.name, digest) else ""
    waits = candidate.reason == Reason.WAITING_FOR_REQUESTS
    is_held = candidate.verdict is not Verdict.PASS and candidate.reason != "" and not waits
    if is_held:
        message = f"{name} at {weight} % stays at its step: {candidate.message}"
        return PhaseSummary(phase, candidate.reason, message)
    if waits and candidate.step_seconds >= step_pause(candidate, context.adapter):
        message = f"{name} at {weight} % {candidate.message}"
        return PhaseSummary(phase, Reason.WAITING_FOR_REQUESTS, f"{message}{reservation}")
    return PhaseSummary(phase, Reason.STEP_STARTED, f"{name} answers {weight} % of the requests{reservation}")


def _newest_verdict(record: AliasRecord, versions: list[VersionRecord]) -> str | None:
    newest = record.candidate.version if record.candidate else record.stable
    if newest is None:
        return None
    verdicts = (version.evaluated for version in versions if version.version.digest == newest.digest)
    return next(verdicts, UNEVALUATED)


def _stable_status(record: AliasRecord, context: AliasContext) -> StableVersion | None:
    if record.stable is None:
        return None
    return StableVersion(
        version=record.stable.version,
        digest=record.stable.digest,
        uri=record.stable.uri,
        weight=100 - (record.candidate.weight if record.candidate else 0),
        loaded_on=context.fleet.active_on(record.name, record.stable.digest),
    )


def _previous_status(record: AliasRecord, context: AliasContext) -> PreviousVersion | None:
    previous = record.watch.previous
    if previous is None:
        return None
    return PreviousVersion(
        version=previous.version,
        digest=previous.digest,
        loaded_on=context.fleet.active_on(record.name, previous.digest),
    )


def _candidate_status(record: AliasRecord, context: AliasContext) -> CandidateVersion | None:
    candidate = record.candidate
    if candidate is None:
        return None
    outcomes = evaluate_checks(candidate.evidence, context.adapter) if candidate.weight else ()
    return CandidateVersion(
        version=candidate.version.version,
        digest=candidate.version.digest,
        uri=candidate.version.uri,
        weight=candidate.weight,
        loaded_on=context.fleet.active_on(record.name, candidate.version.digest),
        step=step_index(candidate, context.adapter),
        step_start_time=candidate.began if candidate.weight else None,
        analysis=tuple(
            CheckResult(
                metric=outcome.metric,
                value=None if outcome.value is None else f"{outcome.value:.4g}",
                requests=outcome.counts.requests,
                failures=candidate.failed_checks,
                verdict=outcome.verdict.value,
            )
            for outcome in outcomes
        ),
    )


def _promoted_versions(versions: list[VersionRecord]) -> tuple[PastVersion, ...]:
    promoted = [(version.promoted, version) for version in versions if version.promoted]
    promoted.sort(key=lambda pair: (pair[0], pair[1].version.version), reverse=True)
    return tuple(
        PastVersion(
            version=version.version.version,
            digest=version.version.digest,
            verdict=version.evaluated,
            time=time,
        )
        for time, version in promoted[:MAX_HISTORY]
    )


def _rejected_digests(versions: list[VersionRecord], record: AliasRecord) -> tuple[RejectedDigest, ...]:
    people = {rejection.version.digest: rejection.by for rejection in record.rejections}
    rejected = [(version.rejected, version) for version in versions if version.rejected]
    rejected.sort(key=lambda pair: (pair[0], pair[1].version.version), reverse=True)
    return tuple(
        RejectedDigest(
            digest=version.version.digest,
            reason=version.reason,
            time=time,
            by=people.get(version.version.digest) or None,
        )
        for time, version in rejected[:MAX_REJECTED]
    )


def _action_result(outcome: ActionOutcome) -> ActionResult:
    return ActionResult(
        id=outcome.id,
        verb=outcome.verb,
        digest=outcome.digest or None,
        to_version=outcome.to_version,
        result="Done" if outcome.done else "Refused",
        message=outcome.message[:MAX_MESSAGE] or None,
        time=outcome.time,
        by=outcome.by or None,
        manager=outcome.manager[:MAX_MANAGER] or None,
        reason=outcome.reason or None,
    )
