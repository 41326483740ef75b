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
observe     the analysis interval has passed within the window, or nothing is counted request counts are recorded
collect     an agent that has ended had counted requests                              request counts are recorded
progress    more pods than ever have the candidate                                    waiting begins anew
check       the analysis interval has passed, or the pause of the step                checked counts are recorded
reject      pods refuted the adapter, or more checks failed than failureLimit         weight 0, digest rejected
return      the source names the previous version, which is still active              it is stable at once
admit       the source names an admitted artifact, neither stable nor rejected        a candidate at weight 0
promote     as step, without a further step below 100 %; at once if none is stable    the candidate is stable
step        active on the pods, not paused, pause over, analysis passed               the weight of the next step
renew       it was observed for a while after the window, or nothing is counted yet   it is counted from zero
==========  ========================================================================  ==============================

The first transition whose condition holds is applied, until none does. Only a version that is verified to be active
receives weight; its weight rises from step to step and falls only to 0. Everything that decides is in the record, so
another operator continues exactly where this one stopped.
"""

from typing import Any

from tunesmith.api.adapterdeployment import Adapter
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.decide.plan import Event
from tunesmith.decide.serving.evidence import Arm, Evidence, RunCounts
from tunesmith.decide.serving.records.elapsed import check_interval, step_pause
from tunesmith.decide.serving.records.record import AliasRecord, Rejection, RolloutCandidate, Watch
from tunesmith_contract.agent import Version
from tunesmith_contract.shared_rules.verdict import Verdict

from .analysis import FULL, check_candidate, fold_candidate, fold_watch
from .stable_version import (
    abandon,
    begin_watch,
    confirm,
    is_abandoned,
    is_closed,
    is_confirmed,
    is_observed,
    is_renewed,
    is_returned,
    is_reverted,
    observe,
    return_to_previous,
    revert,
    window_seconds,
)
from .transition import QUORUM_SECONDS, AliasContext, Transition, TransitionResult, describe, is_paused
from .undo import finish_undo

_UNKNOWN_RUN = RunCounts(pod_uid="")


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
            f"{candidate.inconclusive_checks} checks had too few requests; inconclusiveLimit is exceeded: raise it, or "
            "write the action promote"
        )
    return ""


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


def _is_admitted(record: AliasRecord, context: AliasContext) -> bool:
    target = context.target
    if record.candidate is not None or target.version is None or not target.admitted:
        return False
    is_stable = record.stable is not None and record.stable.digest == target.version.digest
    return not is_stable and not record.is_rejected(target.version.digest)


def _admit(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert context.target.version is not None
    candidate = RolloutCandidate(
        version=context.target.version, began=context.now, skips_steps=record.undo is not None
    )
    update = {"candidate": candidate, "last_number": max(record.last_number, candidate.version.version)}
    message = f"{record.name}: {describe(candidate.version)} is loaded at weight 0"
    return record.model_copy(update=update), Event(Reason.LOADING, message)


def _is_last_step_done(record: AliasRecord, context: AliasContext) -> bool:
    return _is_step_done(record, context) and _next_weight(record, context) == FULL


def _promote(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    message = f"{record.name}: {describe(record.candidate.version)} answers all requests"
    if record.undo is not None:
        return finish_undo(record, record.undo, context.now), Event(Reason.PROMOTED, f"{message} again")
    evidence = _fold(record, record.candidate, context)
    observed = Evidence(candidate=evidence.candidate.restart(), stable=evidence.stable.freeze())
    previous = record.stable if window_seconds(context) > 0 else None
    update = {
        "stable": record.candidate.version,
        "promoted": context.now,
        "restored": False,
        "watch": Watch(previous=previous, evidence=observed),
        "candidate": None,
    }
    return record.model_copy(update=update), Event(Reason.PROMOTED, message)


def is_proven(record: AliasRecord, candidate: RolloutCandidate, context: AliasContext) -> bool:
    """True if the candidate is active on as many pods as it needs for more weight."""
    alias, digest, fleet = record.name, candidate.version.digest, context.fleet
    if fleet.is_active_since(alias, digest, candidate.began):
        return True
    return candidate.waiting_seconds >= QUORUM_SECONDS and fleet.is_active_on_half(alias, digest)


def _is_step_done(record: AliasRecord, context: AliasContext) -> bool:
    candidate, adapter = record.candidate, context.adapter
    is_held = is_paused(record, adapter) and record.undo is None
    if candidate is None or is_held or not is_proven(record, candidate, context):
        return False
    if context.fleet.final_failure(record.name, candidate.version.digest) is not None:
        return False
    is_tripped = context.fleet.open_breakers(record.name, candidate.version.digest) != ()
    if candidate.skips_steps:
        return context.target.admitted and not is_tripped
    if candidate.weight == 0:
        return not record.restored
    if not candidate.is_last or candidate.step_seconds < step_pause(candidate, adapter):
        return False
    return candidate.verdict is Verdict.PASS and not is_tripped and not exceeded_limit(candidate, adapter)


def _step(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    version, weight = record.candidate.version, _next_weight(record, context)
    evidence = _fold(record, record.candidate, context).restart()
    candidate = RolloutCandidate(version=version, weight=weight, began=context.now, evidence=evidence)
    message = f"{record.name}: {describe(version)} answers {weight} % of the requests"
    return record.model_copy(update={"candidate": candidate}), Event(Reason.STEP_STARTED, message)


def _next_weight(record: AliasRecord, context: AliasContext) -> int:
    if record.stable is None or record.candidate is None or record.candidate.skips_steps:
        return FULL
    weight = record.candidate.weight
    return next((step.weight for step in context.adapter.rollout.steps if step.weight > weight), FULL)


TRANSITIONS = (
    Transition("withdraw", _is_superseded, _withdraw),
    Transition("relocate", _is_relocated, _relocate),
    Transition("revert", is_reverted, revert),
    Transition("abandon", is_abandoned, abandon),
    Transition("confirm", is_confirmed, confirm),
    Transition("close", is_closed, begin_watch),
    Transition("observe", is_observed, observe),
    Transition("collect", _is_collected, _collect),
    Transition("progress", _has_progressed, _progress),
    Transition("check", _is_check_due, _check),
    Transition("reject", _is_rejected, _reject),
    Transition("return", is_returned, return_to_previous),
    Transition("admit", _is_admitted, _admit),
    Transition("promote", _is_last_step_done, _promote),
    Transition("step", _is_step_done, _step),
    Transition("renew", is_renewed, begin_watch),
)
