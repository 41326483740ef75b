"""Transition table of an alias's rollout.

    no candidate ──admit──▶ candidate at weight 0 ──step──▶ candidate at a step's weight ──promote──▶ stable
        ▲                       │                               │  ▲ │
        └──withdraw─────────────┴──reject, withdraw─────────────┘  └─┘ check, step

==========  ========================================================================  ==============================
transition  condition                                                                 result
==========  ========================================================================  ==============================
withdraw    the source names another artifact, or the candidate's digest is rejected  weight 0, no candidate
relocate    the source names the same artifact at another, reachable location         pods read it from there
revert      the stable version violates a guardrail within the rollback window        the previous version is stable
abandon     no pod can load the stable version of an earlier resource of this name    no version is stable
confirm     that version is active                                                    it is as any other stable one
close       the rollback window is over                                               no previous version is kept
observe     the analysis interval has passed within the window                        request counts are recorded
collect     an agent that has ended had counted requests                              request counts are recorded
progress    more pods than ever have the candidate                                    waiting begins anew
check       the analysis interval has passed, or the pause of the step                checked counts are recorded
reject      pods refuted the adapter, or more checks failed than failureLimit         weight 0, digest rejected
return      the source names the previous version, which is still active              it is stable at once
admit       the source names an admitted artifact, neither stable nor rejected        a candidate at weight 0
promote     as step, without a further step below 100 %; at once if none is stable    the candidate is stable
step        active on the pods, not paused, pause over, analysis passed               the weight of the next step
renew       the stable version was observed for a while after the window              it is counted from zero
==========  ========================================================================  ==============================

The first transition whose condition holds is applied, until none does. Only a version that is verified to be active
receives weight; its weight rises from step to step and falls only to 0. Everything that decides is in the record, so
another operator continues exactly where this one stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.api.adapterdeployment import Adapter
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.values import duration_seconds
from tunesmith.decide.plan import Event
from tunesmith_contract.agent import Version
from tunesmith_contract.base import short_digest
from tunesmith_contract.shared_rules.verdict import Verdict

from .analysis import FULL, check_candidate, find_violation, fold_candidate, fold_watch
from .elapsed import RESTING_SECONDS, check_interval, step_pause
from .evidence import Arm, Evidence, RunCounts
from .fleet import Fleet
from .record import AliasRecord, Rejection, RolloutCandidate, Watch
from .targets import TargetVersion

#: Time without progress after which a version that is active on half of the pods goes on.
QUORUM_SECONDS = 60.0
_UNKNOWN_RUN = RunCounts(pod_uid="")


@dataclass(frozen=True, slots=True)
class AliasContext:
    """Inputs to the rollout of one alias, beside its record."""

    adapter: Adapter
    target: TargetVersion
    fleet: Fleet
    now: datetime


TransitionResult = tuple[AliasRecord, Event | None]


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table: a condition, and the change of the record with its event."""

    name: str
    applies: Callable[[AliasRecord, AliasContext], bool]
    apply: Callable[[AliasRecord, AliasContext], TransitionResult]


def advance(record: AliasRecord, context: AliasContext) -> tuple[AliasRecord, tuple[Event, ...]]:
    """Record after every transition that applies now, with the events about them."""
    events: list[Event] = []
    while transition := next((row for row in TRANSITIONS if row.applies(record, context)), None):
        record, event = transition.apply(record, context)
        events += [event] if event else []
    return record, tuple(events)


def step_index(candidate: RolloutCandidate, adapter: Adapter) -> int:
    """Index of the step that the candidate's weight belongs to, from 0."""
    reached = [step for step in adapter.rollout.steps if step.weight <= candidate.weight]
    return max(len(reached) - 1, 0)


def is_paused(record: AliasRecord, adapter: Adapter) -> bool:
    """True while a person wants the rollout to stay at its step."""
    return adapter.paused or record.paused


def exceeded_limit(candidate: RolloutCandidate, adapter: Adapter) -> str:
    """Sentence about the limit of checks without a result that was exceeded; empty if none was."""
    analysis = adapter.rollout.analysis
    if candidate.unmeasured_checks > analysis.consecutive_error_limit:
        return (
            f"{candidate.unmeasured_checks} checks in a row could not measure anything: {candidate.message}; "
            "consecutiveErrorLimit is exceeded"
        )
    limit = analysis.inconclusive_limit
    if limit is not None and candidate.inconclusive_checks > limit:
        return (
            f"{candidate.inconclusive_checks} checks had too few requests: it {candidate.message}; "
            "inconclusiveLimit is exceeded"
        )
    return ""


def describe(version: Version) -> str:
    """Version as shown in messages, such as ``version 3 (0f3c9d52aa01)``."""
    return f"version {version.version} ({short_digest(version.digest)})"


def switch_back(record: AliasRecord) -> AliasRecord:
    """Record in which the previous version, which is still loaded, is the stable one.

    A candidate is compared with that one from now on.
    """
    update: dict[str, Any] = {"stable": record.watch.previous, "watch": Watch()}
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


def _is_superseded(record: AliasRecord, context: AliasContext) -> bool:
    if record.candidate is None or context.target.version is None:
        return False
    return context.target.rejected or context.target.version.digest != record.candidate.version.digest


def _withdraw(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    message = f"{record.name}: {describe(record.candidate.version)} is not requested any more"
    return record.model_copy(update={"candidate": None}), Event(Reason.WITHDRAWN, message)


def _is_relocated(record: AliasRecord, context: AliasContext) -> bool:
    return context.target.reachable and _relocate(record, context)[0] != record


def _relocate(record: AliasRecord, context: AliasContext) -> TransitionResult:
    target = context.target.version
    if target is None:
        return record, None
    if record.stable and record.stable.digest == target.digest:
        record = record.model_copy(update={"stable": target})
    if record.candidate and record.candidate.version.digest == target.digest:
        candidate = record.candidate.model_copy(update={"version": target})
        record = record.model_copy(update={"candidate": candidate})
    return record, None


def _is_reverted(record: AliasRecord, context: AliasContext) -> bool:
    if record.watch.previous is None or _is_window_over(record, context):
        return False
    return _violation_of_stable(record, context) is not None


def _violation_of_stable(record: AliasRecord, context: AliasContext) -> str | None:
    if record.stable is None:
        return None
    evidence = fold_watch(record.watch, context.fleet, record.name, record.stable.digest)
    violation = find_violation(evidence, context.adapter)
    return violation.message if violation else None


def _revert(record: AliasRecord, context: AliasContext) -> TransitionResult:
    bad, previous = record.stable, record.watch.previous
    assert bad is not None and previous is not None
    cause = f"{_violation_of_stable(record, context)}, after its promotion"
    message = (
        f"{record.name}: {describe(bad)} is rolled back, {describe(previous)} answers all requests: {cause}"
    )
    rejection = Rejection(version=bad, reason=Reason.ERROR_RATE_TOO_HIGH, message=cause, time=context.now)
    event = Event(Reason.ROLLED_BACK, message, "Warning")
    return switch_back(record).with_rejection(rejection), event


def _is_abandoned(record: AliasRecord, context: AliasContext) -> bool:
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


def _abandon(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.stable is not None
    message = (
        f"{record.name}: {describe(record.stable)}, which an earlier resource of this name served, can't be loaded; "
        "the new version does without it"
    )
    update = {"stable": None, "restored": False}
    return record.model_copy(update=update), Event(Reason.LOAD_FAILED, message, "Warning")


def _is_confirmed(record: AliasRecord, context: AliasContext) -> bool:
    stable = record.stable
    return (
        record.restored and stable is not None and context.fleet.is_active_on_half(record.name, stable.digest)
    )


def _confirm(record: AliasRecord, context: AliasContext) -> TransitionResult:
    return record.model_copy(update={"restored": False}), None


def _window_seconds(context: AliasContext) -> int:
    return duration_seconds(context.adapter.rollout.rollback_window)


def _is_window_over(record: AliasRecord, context: AliasContext) -> bool:
    return record.watch.seconds >= _window_seconds(context)


def _is_closed(record: AliasRecord, context: AliasContext) -> bool:
    return record.watch.previous is not None and _is_window_over(record, context)


def _is_renewed(record: AliasRecord, context: AliasContext) -> bool:
    watch = record.watch
    if record.stable is None or watch.previous is not None or watch.seconds < RESTING_SECONDS:
        return False
    folded = fold_watch(watch, context.fleet, record.name, record.stable.digest)
    return folded.candidate != watch.evidence.candidate


def _begin_watch(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.stable is not None
    evidence = fold_watch(record.watch, context.fleet, record.name, record.stable.digest)
    watch = Watch(evidence=Evidence(candidate=evidence.candidate.restart()))
    return record.model_copy(update={"watch": watch}), None


def _is_observed(record: AliasRecord, context: AliasContext) -> bool:
    is_open = record.watch.previous is not None and record.stable is not None
    return is_open and record.watch.check_seconds >= check_interval(context.adapter)


def _observe(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.stable is not None
    evidence = fold_watch(record.watch, context.fleet, record.name, record.stable.digest)
    watch = record.watch.model_copy(update={"evidence": evidence, "check_seconds": 0})
    return record.model_copy(update={"watch": watch}), None


def _is_collected(record: AliasRecord, context: AliasContext) -> bool:
    """True if the record lacks requests that only an agent which has ended knows of."""
    arms: list[tuple[Version | None, Arm]] = []
    if candidate := record.candidate:
        arms += [
            (candidate.version, candidate.evidence.candidate),
            (record.stable, candidate.evidence.stable),
        ]
    if record.watch.previous is not None:
        arms.append((record.stable, record.watch.evidence.candidate))
    ended = {report.boot_id for report in context.fleet.ended}
    return any(
        reading.boot_id in ended and reading.counts != arm.runs.get(reading.boot_id, _UNKNOWN_RUN).latest
        for version, arm in arms
        if version is not None
        for reading in context.fleet.readings(record.name, version.digest)
    )


def _collect(record: AliasRecord, context: AliasContext) -> TransitionResult:
    stable = record.stable.digest if record.stable else ""
    update: dict[str, Any] = {}
    if candidate := record.candidate:
        evidence = fold_candidate(candidate, context.fleet, record.name, stable)
        update["candidate"] = candidate.model_copy(update={"evidence": evidence})
    if record.watch.previous is not None:
        folded = fold_watch(record.watch, context.fleet, record.name, stable)
        update["watch"] = record.watch.model_copy(update={"evidence": folded})
    return record.model_copy(update=update), None


def _has_progressed(record: AliasRecord, context: AliasContext) -> bool:
    candidate = record.candidate
    if candidate is None:
        return False
    return context.fleet.active_on(record.name, candidate.version.digest) > candidate.most_active


def _progress(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    active = context.fleet.active_on(record.name, record.candidate.version.digest)
    candidate = record.candidate.model_copy(update={"most_active": active, "waiting_seconds": 0})
    return record.model_copy(update={"candidate": candidate}), None


def _is_check_due(record: AliasRecord, context: AliasContext) -> bool:
    candidate = record.candidate
    if candidate is None or candidate.weight == 0:
        return False
    ends_now = candidate.step_seconds >= step_pause(candidate, context.adapter) and not candidate.is_last
    return ends_now or candidate.check_seconds >= check_interval(context.adapter)


def _check(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    evidence = _fold(record, record.candidate, context)
    checked = check_candidate(record.candidate, evidence, context.adapter, context.fleet, record.name)
    return record.model_copy(update={"candidate": checked}), None


def _fold(record: AliasRecord, candidate: RolloutCandidate, context: AliasContext) -> Evidence:
    stable = record.stable.digest if record.stable else ""
    return fold_candidate(candidate, context.fleet, record.name, stable)


def _is_rejected(record: AliasRecord, context: AliasContext) -> bool:
    if record.candidate is None:
        return False
    too_many = record.candidate.failed_checks > context.adapter.rollout.analysis.failure_limit
    return too_many or context.fleet.refutation(record.name, record.candidate.version.digest) != ""


def _reject(record: AliasRecord, context: AliasContext) -> TransitionResult:
    candidate = record.candidate
    assert candidate is not None
    if refutation := context.fleet.refutation(record.name, candidate.version.digest):
        reason, cause = str(Reason.NOT_ACTIVE), refutation
    else:
        reason, cause = candidate.reason, f"{candidate.message}, at weight {candidate.weight}"
    serving = f"{describe(record.stable)} answers all requests" if record.stable else "nothing is served"
    message = f"{record.name}: {describe(candidate.version)} is rolled back, {serving}: {cause}"
    rejection = Rejection(version=candidate.version, reason=reason, message=cause, time=context.now)
    event = Event(Reason.ROLLED_BACK, message, "Warning")
    return record.model_copy(update={"candidate": None}).with_rejection(rejection), event


def _is_returned(record: AliasRecord, context: AliasContext) -> bool:
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


def _return(record: AliasRecord, context: AliasContext) -> TransitionResult:
    """Switch to the previous version, and keep the other one loaded for as long."""
    left, stable = record.stable, record.watch.previous
    assert stable is not None
    after = switch_back(record).model_copy(update={"promoted": context.now, "watch": Watch(previous=left)})
    message = f"{record.name}: {describe(stable)} answers all requests again"
    return after, Event(Reason.PROMOTED, message)


def _is_admitted(record: AliasRecord, context: AliasContext) -> bool:
    target = context.target
    if record.candidate is not None or target.version is None or not target.admitted:
        return False
    is_stable = record.stable is not None and record.stable.digest == target.version.digest
    return not is_stable and not record.is_rejected(target.version.digest)


def _admit(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert context.target.version is not None
    candidate = RolloutCandidate(version=context.target.version, began=context.now)
    update = {"candidate": candidate, "last_number": max(record.last_number, candidate.version.version)}
    message = f"{record.name}: {describe(candidate.version)} is loaded at weight 0"
    return record.model_copy(update=update), Event(Reason.LOADING, message)


def _is_last_step_done(record: AliasRecord, context: AliasContext) -> bool:
    return _is_step_done(record, context) and _next_weight(record, context) == FULL


def _promote(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    evidence = _fold(record, record.candidate, context)
    observed = Evidence(candidate=evidence.candidate.restart(), stable=evidence.stable.freeze())
    previous = record.stable if _window_seconds(context) > 0 else None
    update = {
        "stable": record.candidate.version,
        "promoted": context.now,
        "restored": False,
        "watch": Watch(previous=previous, evidence=observed),
        "candidate": None,
    }
    message = f"{record.name}: {describe(record.candidate.version)} answers all requests"
    return record.model_copy(update=update), Event(Reason.PROMOTED, message)


def is_proven(record: AliasRecord, candidate: RolloutCandidate, context: AliasContext) -> bool:
    """True if the candidate is active on as many pods as it needs for more weight."""
    alias, digest, fleet = record.name, candidate.version.digest, context.fleet
    if fleet.is_active_since(alias, digest, candidate.began):
        return True
    return candidate.waiting_seconds >= QUORUM_SECONDS and fleet.is_active_on_half(alias, digest)


def _is_step_done(record: AliasRecord, context: AliasContext) -> bool:
    candidate, adapter = record.candidate, context.adapter
    if candidate is None or is_paused(record, adapter) or not is_proven(record, candidate, context):
        return False
    if candidate.weight == 0:
        return not record.restored
    if not candidate.is_last or candidate.step_seconds < step_pause(candidate, adapter):
        return False
    is_tripped = context.fleet.open_breakers(record.name, candidate.version.digest) != ()
    return candidate.verdict is Verdict.PASS and not is_tripped and not exceeded_limit(candidate, adapter)


def _step(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    version, weight = record.candidate.version, _next_weight(record, context)
    evidence = _fold(record, record.candidate, context).restart()
    candidate = RolloutCandidate(version=version, weight=weight, began=context.now, evidence=evidence)
    message = f"{record.name}: {describe(version)} answers {weight} % of the requests"
    return record.model_copy(update={"candidate": candidate}), Event(Reason.STEP_STARTED, message)


def _next_weight(record: AliasRecord, context: AliasContext) -> int:
    if record.stable is None or record.candidate is None:
        return FULL
    weight = record.candidate.weight
    return next((step.weight for step in context.adapter.rollout.steps if step.weight > weight), FULL)


TRANSITIONS = (
    Transition("withdraw", _is_superseded, _withdraw),
    Transition("relocate", _is_relocated, _relocate),
    Transition("revert", _is_reverted, _revert),
    Transition("abandon", _is_abandoned, _abandon),
    Transition("confirm", _is_confirmed, _confirm),
    Transition("close", _is_closed, _begin_watch),
    Transition("observe", _is_observed, _observe),
    Transition("collect", _is_collected, _collect),
    Transition("progress", _has_progressed, _progress),
    Transition("check", _is_check_due, _check),
    Transition("reject", _is_rejected, _reject),
    Transition("return", _is_returned, _return),
    Transition("admit", _is_admitted, _admit),
    Transition("promote", _is_last_step_done, _promote),
    Transition("step", _is_step_done, _step),
    Transition("renew", _is_renewed, _begin_watch),
)
