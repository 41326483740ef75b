"""Transitions of the stable version of an alias: rollback window, switch back, and what an earlier resource served."""

from datetime import datetime
from typing import Any

from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.values import duration_seconds
from tunesmith.decide.plan import Event
from tunesmith.decide.serving.evidence import Evidence
from tunesmith.decide.serving.records.elapsed import RESTING_SECONDS, check_interval
from tunesmith.decide.serving.records.record import AliasRecord, Rejection, Watch
from tunesmith_contract.shared_rules.verdict import Verdict

from .analysis import find_violation, fold_watch
from .transition import QUORUM_SECONDS, AliasContext, TransitionResult, describe, is_paused


def switch_back(record: AliasRecord, now: datetime) -> AliasRecord:
    """Record in which the previous version, which is still loaded, is the stable one.

    A candidate is compared with that one from now on.
    """
    update: dict[str, Any] = {"stable": record.watch.previous, "promoted": now, "watch": Watch()}
    if candidate := record.candidate:
        evidence = Evidence(candidate=candidate.evidence.candidate.restart())
        zeros = {"step_seconds": 0, "check_seconds": 0, "waiting_seconds": 0}
        update["candidate"] = candidate.model_copy(
            update={
                "evidence": evidence,
                "seen": evidence.candidate.total,
                "verdict": Verdict.INCONCLUSIVE,
                **zeros,
            }
        )
    return record.model_copy(update=update)


def is_reverted(record: AliasRecord, context: AliasContext) -> bool:
    """True if the stable version fails within the rollback window."""
    if record.watch.previous is None or _is_window_over(record, context):
        return False
    return _violation_of_stable(record, context) is not None


def _violation_of_stable(record: AliasRecord, context: AliasContext) -> str | None:
    if record.stable is None:
        return None
    evidence = fold_watch(record.watch, context.fleet, record.name, record.stable.digest)
    violation = find_violation(evidence, context.adapter)
    return violation.message if violation else None


def revert(record: AliasRecord, context: AliasContext) -> TransitionResult:
    """The previous version is stable again, and the failing one rejected."""
    bad, previous = record.stable, record.watch.previous
    assert bad is not None and previous is not None
    cause = f"{_violation_of_stable(record, context)}, after its promotion"
    message = (
        f"{record.name}: {describe(bad)} is rolled back, {describe(previous)} answers all requests: {cause}"
    )
    rejection = Rejection(version=bad, reason=Reason.ERROR_RATE_TOO_HIGH, message=cause, time=context.now)
    event = Event(Reason.ROLLED_BACK, message, "Warning")
    return switch_back(record, context.now).with_rejection(rejection), event


def is_abandoned(record: AliasRecord, context: AliasContext) -> bool:
    """True if another version can be served, and the restored one can't."""
    stable, candidate = record.stable, record.candidate
    if not record.restored or stable is None or candidate is None:
        return False
    fleet = context.fleet
    if fleet.final_failure(record.name, stable.digest) is not None:
        return True
    failed = {pod.uid for pod, _ in fleet.failures(record.name, stable.digest)}
    is_failing = bool(fleet.ready) and all(pod.uid in failed for pod in fleet.ready)
    return is_failing and candidate.waiting_seconds >= QUORUM_SECONDS


def abandon(record: AliasRecord, context: AliasContext) -> TransitionResult:
    """No version is stable."""
    assert record.stable is not None
    message = (
        f"{record.name}: {describe(record.stable)}, which an earlier resource of this name served, can't be loaded; "
        "the new version does without it"
    )
    update = {"stable": None, "restored": False}
    return record.model_copy(update=update), Event(Reason.LOAD_FAILED, message, "Warning")


def is_confirmed(record: AliasRecord, context: AliasContext) -> bool:
    """True if the version of an earlier resource is active."""
    stable = record.stable
    return (
        record.restored and stable is not None and context.fleet.is_active_on_half(record.name, stable.digest)
    )


def confirm(record: AliasRecord, context: AliasContext) -> TransitionResult:
    """That version is as any other stable one."""
    return record.model_copy(update={"restored": False}), None


def window_seconds(context: AliasContext) -> int:
    """Length of the rollback window."""
    return duration_seconds(context.adapter.rollout.rollback_window)


def _is_window_over(record: AliasRecord, context: AliasContext) -> bool:
    return record.watch.seconds >= window_seconds(context)


def is_closed(record: AliasRecord, context: AliasContext) -> bool:
    """True if the rollback window is over."""
    return record.watch.previous is not None and _is_window_over(record, context)


def is_renewed(record: AliasRecord, context: AliasContext) -> bool:
    """True if the stable version was observed for a while after the window, or is not counted yet."""
    watch = record.watch
    if record.stable is None or watch.previous is not None:
        return False
    if _is_uncounted(record, context):
        return True
    if watch.seconds < RESTING_SECONDS:
        return False
    folded = fold_watch(watch, context.fleet, record.name, record.stable.digest)
    return folded.candidate != watch.evidence.candidate


def _is_uncounted(record: AliasRecord, context: AliasContext) -> bool:
    """True if there are no counters yet from which requests of the stable version can be counted.

    So it is where that version did not come from a candidate: after a switch back, in a record that was rebuilt.
    """
    if record.stable is None or record.watch.evidence.candidate.runs:
        return False
    return context.fleet.readings(record.name, record.stable.digest) != ()


def begin_watch(record: AliasRecord, context: AliasContext) -> TransitionResult:
    """The stable version is counted from zero, and no previous one is kept."""
    assert record.stable is not None
    evidence = fold_watch(record.watch, context.fleet, record.name, record.stable.digest)
    watch = Watch(evidence=Evidence(candidate=evidence.candidate.restart()))
    return record.model_copy(update={"watch": watch}), None


def is_observed(record: AliasRecord, context: AliasContext) -> bool:
    """True if the requests of the stable version are to be recorded."""
    if record.watch.previous is None or record.stable is None:
        return False
    is_due = record.watch.check_seconds >= check_interval(context.adapter)
    return is_due or _is_uncounted(record, context)


def observe(record: AliasRecord, context: AliasContext) -> TransitionResult:
    """The requests of the stable version are recorded."""
    assert record.stable is not None
    evidence = fold_watch(record.watch, context.fleet, record.name, record.stable.digest)
    watch = record.watch.model_copy(update={"evidence": evidence, "check_seconds": 0})
    return record.model_copy(update={"watch": watch}), None


def is_returned(record: AliasRecord, context: AliasContext) -> bool:
    """True if the source names the previous version, which the pods still have."""
    target, previous = context.target, record.watch.previous
    if (
        record.candidate is not None
        or previous is None
        or not target.admitted
        or is_paused(record, context.adapter)
    ):
        return False
    is_named = target.version is not None and target.version.digest == previous.digest
    return is_named and context.fleet.is_active_on_half(record.name, previous.digest)


def return_to_previous(record: AliasRecord, context: AliasContext) -> TransitionResult:
    """Switch to the previous version, and keep the other one loaded for as long."""
    left, stable = record.stable, record.watch.previous
    assert stable is not None
    after = switch_back(record, context.now).model_copy(update={"watch": Watch(previous=left)})
    message = f"{record.name}: {describe(stable)} answers all requests again"
    return after, Event(Reason.PROMOTED, message)
