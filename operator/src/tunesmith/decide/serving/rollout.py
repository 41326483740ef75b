"""Transition table of an alias's rollout.

    no candidate ──admit──▶ candidate at weight 0 ──step──▶ candidate at a step's weight ──promote──▶ stable
        ▲                       │                               │  ▲ │
        └──withdraw─────────────┴──reject, withdraw─────────────┘  └─┘ check, step

==========  ========================================================================  ==============================
transition  condition                                                                 result
==========  ========================================================================  ==============================
withdraw    the source names another artifact, or the candidate's digest is rejected  weight 0, no candidate
relocate    the source names the same artifact at another, reachable location         pods read it from there
check       the analysis interval has passed, or the pause of the step                request counts are recorded
reject      a pod refuted the adapter, or more checks failed than failureLimit        weight 0, digest rejected
admit       the source names an admitted artifact, neither stable nor rejected        a candidate at weight 0
promote     as step, without a further step below 100 %; at once if none is stable    the candidate is stable
step        active on each ready pod, not paused, pause over, analysis passed         the weight of the next step
==========  ========================================================================  ==============================

The first transition whose condition holds is applied, until none does. Only a version that is verified to be active
receives weight; its weight rises from step to step and falls only to 0. Everything that decides is in the record, so
another operator continues exactly where this one stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tunesmith.api.adapterdeployment import Adapter
from tunesmith.api.reasons import AdapterDeploymentReason
from tunesmith.api.values import duration_seconds
from tunesmith.decide.plan import Event
from tunesmith_contract.agent import PROOF_FAILED, Version
from tunesmith_contract.base import short_digest
from tunesmith_contract.shared_rules.verdict import Verdict

from .fleet import Fleet
from .guardrail import is_crossed
from .record import AliasRecord, Counts, Rejection, RolloutCandidate
from .targets import TargetVersion

FULL = 100


@dataclass(frozen=True, slots=True)
class AliasContext:
    """Inputs to the rollout of one alias, beside its record."""

    adapter: Adapter
    target: TargetVersion
    fleet: Fleet
    now: datetime


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """Result of one analysis check on the requests of a step."""

    metric: str
    counts: Counts
    verdict: Verdict

    @property
    def value(self) -> float | None:
        """Error rate, or None without requests."""
        return self.counts.errors / self.counts.requests if self.counts.requests else None


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


def evaluate_checks(candidate: RolloutCandidate, adapter: Adapter) -> tuple[CheckOutcome, ...]:
    """Result of each analysis check on the requests counted up to the latest check."""
    analysis, counts = adapter.rollout.analysis, candidate.tally.total
    steps_below_full = max(sum(step.weight < FULL for step in adapter.rollout.steps), 1)
    outcomes = []
    for check in analysis.checks:
        alpha = (1 - float(check.guardrail.confidence)) / steps_below_full
        if is_crossed(counts.requests, counts.errors, float(check.guardrail.max), alpha):
            verdict = Verdict.FAIL
        elif counts.requests < max(analysis.minimum_requests, 1):
            verdict = Verdict.INCONCLUSIVE
        else:
            verdict = Verdict.PASS
        outcomes.append(CheckOutcome(check.metric, counts, verdict))
    return tuple(outcomes)


def step_index(candidate: RolloutCandidate, adapter: Adapter) -> int:
    """Index of the step that the candidate's weight belongs to, from 0."""
    reached = [step for step in adapter.rollout.steps if step.weight <= candidate.weight]
    return max(len(reached) - 1, 0)


def next_check_time(candidate: RolloutCandidate, adapter: Adapter) -> datetime | None:
    """Time of the next analysis check, or None while the candidate has no weight."""
    if candidate.weight == 0:
        return None
    interval = max(duration_seconds(adapter.rollout.analysis.interval), 1)
    due = candidate.last_check + timedelta(seconds=interval)
    step_end = _step_end(candidate, adapter)
    return min(due, step_end) if candidate.last_check < step_end else due


def find_refutation(record: AliasRecord, fleet: Fleet) -> str:
    """Message of a pod whose verification refuted the candidate; empty without one."""
    if record.candidate is None:
        return ""
    for pod, failed in fleet.failures(record.name, record.candidate.version.digest):
        if failed.reason == PROOF_FAILED:
            return f"{failed.message or 'the adapter is not active'} (pod {pod.name})"
    return ""


def describe(version: Version) -> str:
    """Version as shown in messages, such as ``version 3 (0f3c9d52aa01)``."""
    return f"version {version.version} ({short_digest(version.digest)})"


def _is_superseded(record: AliasRecord, context: AliasContext) -> bool:
    if record.candidate is None or context.target.version is None:
        return False
    return context.target.rejected or context.target.version.digest != record.candidate.version.digest


def _withdraw(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    message = f"{record.name}: {describe(record.candidate.version)} is not requested any more"
    return record.model_copy(update={"candidate": None}), Event(AdapterDeploymentReason.WITHDRAWN, message)


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


def _is_check_due(record: AliasRecord, context: AliasContext) -> bool:
    due = next_check_time(record.candidate, context.adapter) if record.candidate else None
    return due is not None and context.now >= due


def _check(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    readings = context.fleet.readings(record.name, record.candidate.version.digest)
    tally = record.candidate.tally.absorb(readings, context.fleet.uids)
    candidate = record.candidate.model_copy(update={"tally": tally, "last_check": context.now})
    if any(outcome.verdict is Verdict.FAIL for outcome in evaluate_checks(candidate, context.adapter)):
        candidate = candidate.model_copy(update={"failed_checks": candidate.failed_checks + 1})
    return record.model_copy(update={"candidate": candidate}), None


def _is_rejected(record: AliasRecord, context: AliasContext) -> bool:
    if record.candidate is None:
        return False
    too_many = record.candidate.failed_checks > context.adapter.rollout.analysis.failure_limit
    return too_many or find_refutation(record, context.fleet) != ""


def _reject(record: AliasRecord, context: AliasContext) -> TransitionResult:
    candidate = record.candidate
    assert candidate is not None
    if refutation := find_refutation(record, context.fleet):
        reason, cause = AdapterDeploymentReason.NOT_ACTIVE, refutation
    else:
        counts, guardrail = candidate.tally.total, context.adapter.rollout.analysis.checks[0].guardrail
        reason = AdapterDeploymentReason.ERROR_RATE_TOO_HIGH
        cause = (
            f"{counts.errors} of {counts.requests} requests failed at weight {candidate.weight}, "
            f"more than the allowed rate of {guardrail.max} at a confidence of {guardrail.confidence}"
        )
    serving = f"{describe(record.stable)} answers all requests" if record.stable else "nothing is served"
    message = f"{record.name}: {describe(candidate.version)} is rolled back, {serving}: {cause}"
    rejection = Rejection(version=candidate.version, reason=reason, message=cause, time=context.now)
    event = Event(AdapterDeploymentReason.ROLLED_BACK, message, "Warning")
    return record.model_copy(update={"candidate": None, "rejection": rejection}), event


def _is_admitted(record: AliasRecord, context: AliasContext) -> bool:
    target = context.target
    if record.candidate is not None or target.version is None or not target.admitted:
        return False
    decided = (record.stable, record.rejection.version if record.rejection else None)
    return all(version is None or version.digest != target.version.digest for version in decided)


def _admit(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert context.target.version is not None
    candidate = RolloutCandidate(version=context.target.version, began=context.now, last_check=context.now)
    message = f"{record.name}: {describe(candidate.version)} is loaded at weight 0"
    return record.model_copy(update={"candidate": candidate}), Event(AdapterDeploymentReason.LOADING, message)


def _is_last_step_done(record: AliasRecord, context: AliasContext) -> bool:
    return _is_step_done(record, context) and _next_weight(record, context) == FULL


def _promote(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    update = {"stable": record.candidate.version, "promoted": context.now, "candidate": None}
    message = f"{record.name}: {describe(record.candidate.version)} answers all requests"
    return record.model_copy(update=update), Event(AdapterDeploymentReason.PROMOTED, message)


def _is_step_done(record: AliasRecord, context: AliasContext) -> bool:
    candidate, adapter = record.candidate, context.adapter
    if candidate is None or adapter.paused:
        return False
    if not context.fleet.is_active_on_all(record.name, candidate.version.digest):
        return False
    if candidate.weight == 0:
        return True
    if candidate.last_check < _step_end(candidate, adapter):
        return False
    passed = all(outcome.verdict is not Verdict.FAIL for outcome in evaluate_checks(candidate, adapter))
    return passed and candidate.tally.total.requests >= adapter.rollout.analysis.minimum_requests


def _step(record: AliasRecord, context: AliasContext) -> TransitionResult:
    assert record.candidate is not None
    version, weight = record.candidate.version, _next_weight(record, context)
    readings = context.fleet.readings(record.name, version.digest)
    candidate = RolloutCandidate(
        version=version,
        weight=weight,
        began=context.now,
        last_check=context.now,
        tally=record.candidate.tally.absorb(readings, context.fleet.uids).restart(),
    )
    message = f"{record.name}: {describe(version)} answers {weight} % of the requests"
    return record.model_copy(update={"candidate": candidate}), Event(
        AdapterDeploymentReason.STEP_STARTED, message
    )


def _step_end(candidate: RolloutCandidate, adapter: Adapter) -> datetime:
    pauses = (step.pause for step in adapter.rollout.steps if step.weight == candidate.weight)
    pause = next(pauses, None)
    return candidate.began + timedelta(seconds=duration_seconds(pause) if pause else 0)


def _next_weight(record: AliasRecord, context: AliasContext) -> int:
    if record.stable is None or record.candidate is None:
        return FULL
    weight = record.candidate.weight
    return next((step.weight for step in context.adapter.rollout.steps if step.weight > weight), FULL)


TRANSITIONS = (
    Transition("withdraw", _is_superseded, _withdraw),
    Transition("relocate", _is_relocated, _relocate),
    Transition("check", _is_check_due, _check),
    Transition("reject", _is_rejected, _reject),
    Transition("admit", _is_admitted, _admit),
    Transition("promote", _is_last_step_done, _promote),
    Transition("step", _is_step_done, _step),
)
