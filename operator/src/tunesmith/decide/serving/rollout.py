"""The rollout of one stable name as a transition table.

    no trial ──admit──▶ trial at weight 0 ──step──▶ trial at a step's weight ──promote──▶ stable
        ▲                   │                           │  ▲ │
        └──withdraw─────────┴──reject, withdraw─────────┘  └─┘ look, step

=========  ==========================================================================  ===========================
move       when                                                                        afterwards
=========  ==========================================================================  ===========================
withdraw   the source names another artefact, or the trial's digest is rejected        weight 0, no trial
relocate   the source names the same artefact at another, reachable place              pods read it there
look       the analysis interval is over, or the step's pause                          what was counted is recorded
reject     a pod proved that it is not this adapter, or more looks failed than allowed weight 0, digest rejected
admit      the source names an artefact that is new, reachable, proven and unrejected  a trial at weight 0
promote    as step, and no further step below 100 %; at once if nothing is stable yet  the trial is stable
step       active on each ready pod, not paused, pause over, analysis content          the next step's weight
=========  ==========================================================================  ===========================

The first line that applies is taken, until none does. Weight is given only to what is proven active, rises from step to
step, and falls once, to 0. Everything that decides is in the record: another operator goes on where this one stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tunesmith.api.adapterdeployment import Adapter, AnalysisCheck
from tunesmith.api.reasons import AdapterDeploymentReason, Verdict
from tunesmith.api.values import duration_seconds
from tunesmith.decide.plan import Event
from tunesmith_contract.agent import PROOF_FAILED, Version
from tunesmith_contract.base import short_digest

from .fleet import Fleet
from .guardrail import is_crossed
from .record import AliasRecord, Counts, Rejection, Trial
from .sources import Wanted

FULL = 100


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about one stable name beside its record."""

    adapter: Adapter
    wanted: Wanted
    fleet: Fleet
    now: datetime


@dataclass(frozen=True, slots=True)
class Look:
    """What one check says about a step."""

    metric: str
    counts: Counts
    verdict: Verdict

    @property
    def value(self) -> float | None:
        """The error rate; None without requests."""
        return self.counts.errors / self.counts.requests if self.counts.requests else None


Moved = tuple[AliasRecord, Event | None]


@dataclass(frozen=True, slots=True)
class Transition:
    """A line of the table."""

    applies: Callable[[AliasRecord, Facts], bool]
    move: Callable[[AliasRecord, Facts], Moved]


def advance(record: AliasRecord, facts: Facts) -> tuple[AliasRecord, tuple[Event, ...]]:
    """Take every transition that applies now, in the table's order."""
    events: list[Event] = []
    while transition := next((line for line in TRANSITIONS if line.applies(record, facts)), None):
        record, event = transition.move(record, facts)
        events += [event] if event else []
    return record, tuple(events)


def judge(trial: Trial, adapter: Adapter) -> tuple[Look, ...]:
    """What the checks say about what was counted up to the last look."""
    return tuple(_judge_check(check, trial.tally.total, adapter) for check in adapter.rollout.analysis.checks)


def step_index(trial: Trial, adapter: Adapter) -> int:
    """The step that the trial's weight belongs to, from 0."""
    reached = [step for step in adapter.rollout.steps if step.weight <= trial.weight]
    return max(len(reached) - 1, 0)


def next_look(trial: Trial, adapter: Adapter) -> datetime | None:
    """When the trial is to be judged again; None while it has no weight."""
    if trial.weight == 0:
        return None
    interval = max(duration_seconds(adapter.rollout.analysis.interval), 1)
    due = trial.looked + timedelta(seconds=interval)
    end = _step_end(trial, adapter)
    return min(due, end) if trial.looked < end else due


def refutation(record: AliasRecord, fleet: Fleet) -> str:
    """The sentence of a pod that proved the trial not to be this adapter; empty if none did."""
    if record.trial is None:
        return ""
    for pod, failed in fleet.failures(record.name, record.trial.version.digest):
        if failed.reason == PROOF_FAILED:
            return f"{failed.message or 'the adapter is not active'} (pod {pod.name})"
    return ""


def describe(version: Version) -> str:
    """A version in a sentence: ``version 3 (0f3c9d52aa01)``."""
    return f"version {version.version} ({short_digest(version.digest)})"


def _judge_check(check: AnalysisCheck, counts: Counts, adapter: Adapter) -> Look:
    steps_below_full = max(sum(step.weight < FULL for step in adapter.rollout.steps), 1)
    alpha = (1 - float(check.guardrail.confidence)) / steps_below_full
    if is_crossed(counts.requests, counts.errors, float(check.guardrail.max), alpha):
        verdict = Verdict.FAIL
    elif counts.requests < max(adapter.rollout.analysis.minimum_requests, 1):
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS
    return Look(check.metric, counts, verdict)


def _is_unwanted(record: AliasRecord, facts: Facts) -> bool:
    if record.trial is None or facts.wanted.version is None:
        return False
    return facts.wanted.rejected or facts.wanted.version.digest != record.trial.version.digest


def _withdraw(record: AliasRecord, facts: Facts) -> Moved:
    assert record.trial is not None
    message = f"{record.name}: {describe(record.trial.version)} is not wanted any more"
    return record.model_copy(update={"trial": None}), Event(AdapterDeploymentReason.WITHDRAWN, message)


def _is_elsewhere(record: AliasRecord, facts: Facts) -> bool:
    return facts.wanted.reachable and _relocated(record, facts) != record


def _relocate(record: AliasRecord, facts: Facts) -> Moved:
    return _relocated(record, facts), None


def _relocated(record: AliasRecord, facts: Facts) -> AliasRecord:
    wanted = facts.wanted.version
    if wanted is None:
        return record
    if record.stable and record.stable.digest == wanted.digest:
        record = record.model_copy(update={"stable": wanted})
    if record.trial and record.trial.version.digest == wanted.digest:
        record = record.model_copy(update={"trial": record.trial.model_copy(update={"version": wanted})})
    return record


def _is_look_due(record: AliasRecord, facts: Facts) -> bool:
    due = next_look(record.trial, facts.adapter) if record.trial else None
    return due is not None and facts.now >= due


def _look(record: AliasRecord, facts: Facts) -> Moved:
    assert record.trial is not None
    readings = facts.fleet.readings(record.name, record.trial.version.digest)
    tally = record.trial.tally.absorb(readings, facts.fleet.uids)
    trial = record.trial.model_copy(update={"tally": tally, "looked": facts.now})
    if any(look.verdict is Verdict.FAIL for look in judge(trial, facts.adapter)):
        trial = trial.model_copy(update={"failed_looks": trial.failed_looks + 1})
    return record.model_copy(update={"trial": trial}), None


def _is_refused(record: AliasRecord, facts: Facts) -> bool:
    if record.trial is None:
        return False
    too_many = record.trial.failed_looks > facts.adapter.rollout.analysis.failure_limit
    return too_many or refutation(record, facts.fleet) != ""


def _reject(record: AliasRecord, facts: Facts) -> Moved:
    assert record.trial is not None
    reason, why = _ground(record, record.trial, facts)
    back_to = f"{describe(record.stable)} answers all requests" if record.stable else "nothing is served"
    message = f"{record.name}: {describe(record.trial.version)} is taken back, {back_to}: {why}"
    rejection = Rejection(version=record.trial.version, reason=reason, message=why, time=facts.now)
    event = Event(AdapterDeploymentReason.ROLLED_BACK, message, "Warning")
    return record.model_copy(update={"trial": None, "rejection": rejection}), event


def _ground(record: AliasRecord, trial: Trial, facts: Facts) -> tuple[AdapterDeploymentReason, str]:
    if why := refutation(record, facts.fleet):
        return AdapterDeploymentReason.NOT_ACTIVE, why
    counts, guardrail = trial.tally.total, facts.adapter.rollout.analysis.checks[0].guardrail
    why = (
        f"{counts.errors} of {counts.requests} requests failed at weight {trial.weight}, "
        f"more than the allowed rate of {guardrail.max} at a confidence of {guardrail.confidence}"
    )
    return AdapterDeploymentReason.ERROR_RATE_TOO_HIGH, why


def _is_admitted(record: AliasRecord, facts: Facts) -> bool:
    wanted = facts.wanted
    if record.trial is not None or wanted.version is None or not wanted.admitted:
        return False
    known = (record.stable, record.rejection.version if record.rejection else None)
    return all(version is None or version.digest != wanted.version.digest for version in known)


def _admit(record: AliasRecord, facts: Facts) -> Moved:
    assert facts.wanted.version is not None
    trial = Trial(version=facts.wanted.version, began=facts.now, looked=facts.now)
    message = f"{record.name}: {describe(trial.version)} is loaded at weight 0"
    return record.model_copy(update={"trial": trial}), Event(AdapterDeploymentReason.LOADING, message)


def _may_advance(record: AliasRecord, facts: Facts) -> bool:
    trial = record.trial
    if trial is None or facts.adapter.paused or not facts.fleet.is_proved(record.name, trial.version.digest):
        return False
    return trial.weight == 0 or _is_step_done(trial, facts)


def _is_step_done(trial: Trial, facts: Facts) -> bool:
    if trial.looked < _step_end(trial, facts.adapter):
        return False
    content = all(look.verdict is not Verdict.FAIL for look in judge(trial, facts.adapter))
    return content and trial.tally.total.requests >= facts.adapter.rollout.analysis.minimum_requests


def _step_end(trial: Trial, adapter: Adapter) -> datetime:
    pauses = (step.pause for step in adapter.rollout.steps if step.weight == trial.weight)
    pause = next(pauses, None)
    return trial.began + timedelta(seconds=duration_seconds(pause) if pause else 0)


def _next_weight(record: AliasRecord, facts: Facts) -> int:
    if record.stable is None or record.trial is None:
        return FULL
    weight = record.trial.weight
    return next((step.weight for step in facts.adapter.rollout.steps if step.weight > weight), FULL)


def _may_promote(record: AliasRecord, facts: Facts) -> bool:
    return _may_advance(record, facts) and _next_weight(record, facts) == FULL


def _promote(record: AliasRecord, facts: Facts) -> Moved:
    assert record.trial is not None
    update = {"stable": record.trial.version, "promoted": facts.now, "trial": None}
    message = f"{record.name}: {describe(record.trial.version)} answers all requests"
    return record.model_copy(update=update), Event(AdapterDeploymentReason.PROMOTED, message)


def _step(record: AliasRecord, facts: Facts) -> Moved:
    assert record.trial is not None
    weight = _next_weight(record, facts)
    readings = facts.fleet.readings(record.name, record.trial.version.digest)
    tally = record.trial.tally.absorb(readings, facts.fleet.uids).restart()
    trial = Trial(version=record.trial.version, weight=weight, began=facts.now, looked=facts.now, tally=tally)
    message = f"{record.name}: {describe(trial.version)} answers {weight} % of the requests"
    return record.model_copy(update={"trial": trial}), Event(AdapterDeploymentReason.STEP_STARTED, message)


TRANSITIONS = (
    Transition(_is_unwanted, _withdraw),
    Transition(_is_elsewhere, _relocate),
    Transition(_is_look_due, _look),
    Transition(_is_refused, _reject),
    Transition(_is_admitted, _admit),
    Transition(_may_promote, _promote),
    Transition(_may_advance, _step),
)
