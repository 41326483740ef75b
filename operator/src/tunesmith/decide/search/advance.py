"""Next step of a search whose trials are FineTuneJobs.

A proposal is recorded before its FineTuneJob is made, and the end of a trial before anything follows from it. So a
restart at any point comes to the same trials, and none is made twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import ConditionType, FineTuneJobReason, RunReason
from tunesmith.decide.plan import Action, Create, Event, Patch
from tunesmith.decide.run.stage import StageState
from tunesmith.decide.run.suspension import HELD_ANNOTATION
from tunesmith.manifests.objects import Body
from tunesmith.manifests.trial_job import STOP_ANNOTATION, build_trial_job, trial_name
from tunesmith.manifests.trial_records import (
    TrialProposal,
    TrialRecord,
    build_proposal,
    build_trial_record,
)
from tunesmith_contract.search import SearchSettings, Trial, TrialState
from tunesmith_search.halving import falls_behind
from tunesmith_search.proposals import propose
from tunesmith_search.results import best_trial

from .observed import ObservedSearch
from .settings import search_settings
from .trials import find_end, is_over, parse_own_jobs, running_trial, status_by_number

#: Until the next look: at what was just created, and at the losses of trials that may be pruned.
SOON_SECONDS = 2.0
COMPARE_SECONDS = 10.0

#: Failures after which no further trial begins if nothing else has ended: the cause is not in the values.
FIRST_FAILURES = 5

#: GPU time with which no training is worth beginning.
LEAST_GPU_SECONDS = 60.0

EverySteps = Callable[[TrialProposal], int | None]


@dataclass(frozen=True, slots=True)
class SearchStep:
    """Next step of a search.

    Attributes:
        state: SUCCEEDED and FAILED when no trial runs and none will follow.
        trials: all trials, by number.
        best: record of the best trial, once it has succeeded.
        failure: message of a search of which no trial succeeded.
    """

    state: StageState
    settings: SearchSettings
    trials: tuple[Trial, ...] = ()
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    best: TrialRecord | None = None
    failure: str = ""

    @property
    def gpu_seconds(self) -> float:
        """GPU time of all ended trials."""
        return sum(trial.gpu_seconds for trial in self.trials)


@dataclass(slots=True)
class _Draft:
    """Actions and events of a step in the making."""

    actions: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def advance_search(
    job: FineTuneJob, observed: ObservedSearch, every_steps: EverySteps, now: datetime
) -> SearchStep:
    """The next step.

    Args:
        job: the job as its inputs were taken.
        every_steps: interval of checkpoints of a trial; None leaves it as it is written.
    """
    assert job.spec.search is not None
    settings, draft = search_settings(job.spec.search), _Draft()
    children = parse_own_jobs(job, observed)
    observed = _record_ends(job, observed, children, settings, now, draft)
    trials = _gather(job, observed, children, settings)
    for proposal in observed.unfinished:
        body, child = observed.jobs.get(proposal.number), children.get(proposal.number)
        if body is None and not job.spec.suspend:
            _create(job, proposal, every_steps(proposal), draft)
        elif body is not None and child is not None and child.metadata.deletion_timestamp is None:
            _hold_or_resume(job, body, child, draft)
            _stop_if_behind(body, child, proposal, trials, settings, draft)
    begins = () if job.spec.suspend else _propose(observed, trials, settings)
    draft.actions += [Create(build_proposal(job, proposal)) for proposal in begins]
    trials += [Trial(number=item.number, parameters=item.parameters) for item in begins]
    actions, events = tuple(draft.actions), tuple(draft.events)
    if observed.unfinished or begins or job.spec.suspend:
        state = StageState.SUSPENDED if job.spec.suspend else StageState.RUNNING
        unrecorded = any(
            is_over(children[item.number]) for item in observed.unfinished if item.number in children
        )
        wait = SOON_SECONDS if actions or unrecorded else COMPARE_SECONDS if settings.pruner else None
        return SearchStep(state, settings, tuple(trials), actions, events, wait)
    best = best_trial(trials)
    if best is None:
        return SearchStep(
            StageState.FAILED, settings, tuple(trials), actions, events, failure=_describe_failure(trials)
        )
    record = observed.records[best.number]
    return SearchStep(StageState.SUCCEEDED, settings, tuple(trials), actions, events, best=record)


def describe_trial(trial: Trial) -> str:
    """A trial with its values, for people."""
    values = ", ".join(f"{name} {value}" for name, value in trial.parameters.items())
    return f"trial {trial.number} ({values})"


def _record_ends(
    job: FineTuneJob,
    observed: ObservedSearch,
    children: Mapping[int, FineTuneJob],
    settings: SearchSettings,
    now: datetime,
    draft: _Draft,
) -> ObservedSearch:
    """Record the trials that have ended since."""
    for proposal in observed.unfinished:
        record = find_end(job, observed, proposal, children.get(proposal.number), settings, now)
        if record is None:
            continue
        ended, trial = observed.ended_jobs.get(proposal.number), record.trial
        draft.actions.append(Create(build_trial_record(job, record, ended.run if ended else None)))
        draft.events.append(_end_event(trial))
        observed = observed.with_record(record)
    return observed


def _end_event(trial: Trial) -> Event:
    name = describe_trial(trial).capitalize()
    match trial.state:
        case TrialState.COMPLETED:
            message = f"{name} completed with a validation loss of {trial.loss:.4g}."
            return Event(FineTuneJobReason.TRIAL_ENDED, message)
        case TrialState.PRUNED:
            return Event(FineTuneJobReason.TRIAL_ENDED, f"{name} was ended early: {trial.message}")
    return Event(FineTuneJobReason.TRIAL_FAILED, f"{name} failed: {trial.message}", "Warning")


def _gather(
    job: FineTuneJob, observed: ObservedSearch, children: Mapping[int, FineTuneJob], settings: SearchSettings
) -> list[Trial]:
    """All trials, in the order of their numbers."""
    before = status_by_number(job)
    trials = {number: record.trial for number, record in observed.records.items()}
    for proposal in observed.unfinished:
        number, pruner = proposal.number, settings.pruner
        trials[number] = running_trial(proposal, children.get(number), pruner, before.get(number))
    return [trials[number] for number in sorted(trials)]


def _create(job: FineTuneJob, proposal: TrialProposal, every_steps: int | None, draft: _Draft) -> None:
    """Create the FineTuneJob of a trial."""
    draft.actions.append(
        Create(build_trial_job(job, proposal, every_steps), condition=ConditionType.JOB_CREATED)
    )
    name = describe_trial(Trial(number=proposal.number, parameters=proposal.parameters))
    message = f"FineTuneJob {trial_name(job, proposal.number)} runs {name}."
    draft.events.append(Event(FineTuneJobReason.TRIAL_STARTED, message, condition=ConditionType.JOB_CREATED))


def _hold_or_resume(job: FineTuneJob, body: Body, child: FineTuneJob, draft: _Draft) -> None:
    """Suspend a trial with the search, and resume it with the search; one that a person has suspended stays so."""
    held = HELD_ANNOTATION in child.metadata.annotations
    if job.spec.suspend and not child.spec.suspend:
        change = {"metadata": {"annotations": {HELD_ANNOTATION: "true"}}, "spec": {"suspend": True}}
        draft.actions.append(Patch.of(body, change))
    elif held and not job.spec.suspend:
        change = {"metadata": {"annotations": {HELD_ANNOTATION: None}}, "spec": {"suspend": False}}
        draft.actions.append(Patch.of(body, change))


def _stop_if_behind(
    body: Body,
    child: FineTuneJob,
    proposal: TrialProposal,
    trials: list[Trial],
    settings: SearchSettings,
    draft: _Draft,
) -> None:
    """Ask a trial to stop whose validation loss is not among the best."""
    number = proposal.number
    if STOP_ANNOTATION in child.metadata.annotations or not falls_behind(settings, trials, number):
        return
    trial = next(trial for trial in trials if trial.number == number)
    point = max(item.percent for item in trial.measurements)
    message = f"After {point:g} % of its steps its validation loss was not among the best."
    draft.actions.append(Patch.of(body, {"metadata": {"annotations": {STOP_ANNOTATION: message}}}))
    name = describe_trial(trial).capitalize()
    draft.events.append(Event(RunReason.PRUNED, f"{name} is asked to stop. {message}"))


def _propose(
    observed: ObservedSearch, trials: list[Trial], settings: SearchSettings
) -> tuple[TrialProposal, ...]:
    """Proposals for all free places, as far as the budget allows."""
    proposals: list[TrialProposal] = []
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    if len(failed) >= FIRST_FAILURES and len(failed) == len(trials) - len(observed.unfinished):
        return ()
    known = list(trials)
    while len(observed.unfinished) + len(proposals) < settings.parallelism:
        free = settings.parallelism - len(observed.unfinished) - len(proposals)
        share, enough = _share_of_budget((*observed.unfinished, *proposals), known, settings, free)
        parameters = propose(settings, known) if enough else None
        if parameters is None:
            break
        number = max((trial.number for trial in known), default=0) + 1
        proposals.append(TrialProposal(number=number, parameters=parameters, gpu_seconds=share))
        known.append(Trial(number=number, parameters=parameters))
    return tuple(proposals)


def _share_of_budget(
    unfinished: tuple[TrialProposal, ...], trials: list[Trial], settings: SearchSettings, free: int
) -> tuple[float | None, bool]:
    """GPU time that the next trial may take, and whether it is enough to begin.

    Trials that run keep what they were given, so the budget holds whatever they do. The rest is divided among the free
    places, but no trial gets less than an average one took.
    """
    if settings.gpu_seconds is None:
        return None, True
    given = sum(proposal.gpu_seconds or 0.0 for proposal in unfinished)
    left = settings.gpu_seconds - given - sum(trial.gpu_seconds for trial in trials)
    completed = [trial.gpu_seconds for trial in trials if trial.state is TrialState.COMPLETED]
    average = sum(completed) / len(completed) if completed else 0.0
    return min(left, max(left / free, average)), left >= max(LEAST_GPU_SECONDS, average)


def _describe_failure(trials: list[Trial]) -> str:
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    text = f"None of {len(trials)} trials trained to its end."
    if not failed:
        return f"{text} Raise search.budget, or search fewer values."
    return f"{text} Trial {failed[0].number} failed first: {failed[0].message}"
