"""Training of a job with a search: trials instead of attempts, and the best one's result as that of the job."""

from dataclasses import dataclass, replace
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.decide.fit.estimate import count_steps
from tunesmith.decide.plan import Create, Event
from tunesmith.decide.run.attempts import refuse
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.stage import StageState, Step
from tunesmith.decide.search.advance import SOON_SECONDS, SearchStep, advance_search, describe_trial
from tunesmith.decide.search.observed import ObservedSearch
from tunesmith.decide.search.settings import search_settings
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, build_result_config_map
from tunesmith.manifests.run_snapshots import Inputs, build_run_config_map
from tunesmith.manifests.trial_job import build_trial_job
from tunesmith.manifests.trial_records import TrialProposal, TrialRecord
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Failure, RunReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.search import SearchSettings, Trial
from tunesmith_contract.shared_rules.trials import measuring_interval
from tunesmith_contract.stages import Stage

from .run_config import resolve_run


@dataclass(frozen=True, slots=True)
class Searched:
    """Next step of the train stage of a job with a search, and its trials.

    Attributes:
        step: SUCCEEDED with the record of the best trial's training, once no trial is left.
    """

    step: Step
    settings: SearchSettings
    trials: tuple[Trial, ...]


def run_search(
    job: FineTuneJob,
    observed: ObservedSearch,
    children: Children,
    inputs: Inputs,
    report: RunReport,
    run: TrainConfig | None,
    now: datetime,
) -> Searched:
    """Advance the trials; once none is left, take over the best one's configuration, then its result.

    Args:
        children: the job's own, with the records of its preparation.
        report: report of the preparation.
        run: the configuration that was taken over; None until then.
    """
    assert job.spec.search is not None
    records = children.records_of(Stage.TRAIN)
    if records:
        settings = search_settings(job.spec.search)
        ended = tuple(observed.records[number].trial for number in sorted(observed.records))
        state = StageState.FAILED if records[-1].final else StageState.SUCCEEDED
        return Searched(Step(state, children, attempt=1), settings, ended)

    def every_steps(proposal: TrialProposal) -> int | None:
        return _measured_every(job, inputs, report, proposal)

    found = advance_search(job, observed, every_steps, now)
    return Searched(_to_step(job, observed, children, found, run, now), found.settings, found.trials)


def _to_step(
    job: FineTuneJob,
    observed: ObservedSearch,
    children: Children,
    found: SearchStep,
    run: TrainConfig | None,
    now: datetime,
) -> Step:
    """Step of the train stage that a step of the search means."""
    step = Step(found.state, children, found.actions, found.events, requeue_after=found.requeue_after)
    if found.state is StageState.FAILED:
        reason = FineTuneJobReason.NO_TRIAL_SUCCEEDED
        failure = Failure(category=FailureCategory.USER_ERROR, reason=reason, message=found.failure[:2048])
        refused = refuse(job, Stage.TRAIN, children, failure, now, reason)
        actions, events = (*found.actions, *refused.actions), (*found.events, *refused.events)
        return replace(refused, actions=actions, events=events)
    if found.best is None:
        return step
    number = found.best.trial.number
    if number not in observed.records:
        # Its record is made in this pass; what follows from it comes in the next.
        return replace(step, state=StageState.RUNNING, requeue_after=SOON_SECONDS)
    chosen = observed.runs.get(number)
    if run is None and chosen is not None:
        actions = (*found.actions, Create(build_run_config_map(job, chosen)))
        return replace(step, state=StageState.RUNNING, actions=actions, requeue_after=SOON_SECONDS)
    return _take_over(job, step, found.best, now)


def _take_over(job: FineTuneJob, step: Step, best: TrialRecord, now: datetime) -> Step:
    """Record the training of the best trial as that of the job; its GPU time is in the records of the trials."""
    record = AttemptRecord(
        stage=Stage.TRAIN,
        attempt=1,
        outcome=AttemptOutcome.SUCCEEDED,
        reason=FineTuneJobReason.SEARCHED,
        report=best.report,
        ended_at=now,
        ran_seconds=0.0,
    )
    loss = f"{best.trial.loss:.4g}"
    message = f"The best is {describe_trial(best.trial)} with a validation loss of {loss}."
    return replace(
        step,
        children=step.children.with_record(record),
        actions=(*step.actions, Create(build_result_config_map(job, record))),
        events=(*step.events, Event(FineTuneJobReason.SEARCHED, message)),
        attempt=1,
    )


def _measured_every(
    job: FineTuneJob, inputs: Inputs, report: RunReport, proposal: TrialProposal
) -> int | None:
    """Interval at which a trial is measured; None leaves it as it is written."""
    assert job.spec.search is not None
    assert report.dataset is not None
    pruner = search_settings(job.spec.search).pruner
    if pruner is None:
        return None
    spec = FineTuneJobSpec.model_validate(build_trial_job(job, proposal)["spec"])
    run = resolve_run(spec, inputs, report)
    if isinstance(run, Failure):
        return None
    return measuring_interval(spec.checkpoints.every_steps, count_steps(report.dataset, run), pruner)
