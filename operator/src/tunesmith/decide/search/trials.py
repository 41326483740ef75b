"""Trials of a search, from their records and their FineTuneJobs."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import FineTuneJobPhase, RunReason
from tunesmith.api.search import TrialStatus
from tunesmith.decide.plan import owned_by
from tunesmith.decide.refusal import without_invalid
from tunesmith.manifests.result_config_map import AttemptOutcome
from tunesmith.manifests.trial_job import trial_name
from tunesmith.manifests.trial_records import TrialProposal, TrialRecord
from tunesmith_contract.search import Measurement, SearchSettings, SuccessiveHalving, Trial, TrialState
from tunesmith_contract.stages import Stage

from .observed import EndedTrialJob, ObservedSearch

_MESSAGE_CHARACTERS = 512
#: How long the records of an ended FineTuneJob are waited for; after that somebody has deleted them.
RECORDS_WAIT_SECONDS = 60.0
#: Causes for which a trial was ended, and has not failed.
_ENDED_EARLY = frozenset({RunReason.PRUNED, RunReason.BUDGET_EXHAUSTED})


def parse_own_jobs(job: FineTuneJob, observed: ObservedSearch) -> dict[int, FineTuneJob]:
    """FineTuneJobs of trials that belong to the job, by number."""
    uid = job.metadata.uid
    return {
        number: FineTuneJob.parse(without_invalid(body))
        for number, body in observed.jobs.items()
        if owned_by(body, uid)
    }


def running_trial(
    proposal: TrialProposal,
    child: FineTuneJob | None,
    pruner: SuccessiveHalving | None,
    before: TrialStatus | None,
) -> Trial:
    """A trial that has not ended, with the losses that were measured.

    Args:
        child: its FineTuneJob; None before it is created.
        before: the trial in status, which holds losses that the FineTuneJob no longer shows.
    """
    measured = _measurements(child) if child else ()
    return Trial(
        number=proposal.number,
        parameters=proposal.parameters,
        measurements=_compared(measured, pruner, before),
        loss=measured[-1].loss if measured else None,
    )


def find_end(
    job: FineTuneJob,
    observed: ObservedSearch,
    proposal: TrialProposal,
    child: FineTuneJob | None,
    settings: SearchSettings,
    now: datetime,
) -> TrialRecord | None:
    """End of a trial; None while it goes on.

    Args:
        child: its FineTuneJob, if it is there.
    """
    number, taken = proposal.number, proposal.number in observed.jobs
    if child is None:
        if not taken:
            return None
        name = trial_name(job, number)
        message = f'FineTuneJob "{name}" exists already and is not this job\'s: the trial was not made.'
        failed = Trial(
            number=number, parameters=proposal.parameters, state=TrialState.FAILED, message=message
        )
        return TrialRecord(trial=failed, ended_at=now)
    ended = observed.ended_jobs.get(number, EndedTrialJob())
    if not is_over(child) or _records_are_on_their_way(child, ended, now):
        return None
    before = status_by_number(job).get(number)
    trial = running_trial(proposal, child, settings.pruner, before)
    spent = {"gpu_seconds": sum(record.gpu_seconds for record in ended.records)}
    if child.status.phase is FineTuneJobPhase.FAILED:
        return TrialRecord(trial=trial.model_copy(update=_failure(child) | spent), ended_at=now)
    return _success(trial.model_copy(update=spent), ended, now)


def is_over(child: FineTuneJob) -> bool:
    """True for a FineTuneJob that has ended."""
    return child.status.phase in {FineTuneJobPhase.SUCCEEDED, FineTuneJobPhase.FAILED}


def _records_are_on_their_way(child: FineTuneJob, ended: EndedTrialJob, now: datetime) -> bool:
    """True where the last record is not seen yet: the watch of FineTuneJobs may be ahead of that of ConfigMaps."""
    complete = any(
        record.final or (record.stage is Stage.TRAIN and record.outcome is AttemptOutcome.SUCCEEDED)
        for record in ended.records
    )
    since = child.status.completion_time
    return not complete and since is not None and (now - since).total_seconds() < RECORDS_WAIT_SECONDS


def status_by_number(job: FineTuneJob) -> Mapping[int, TrialStatus]:
    """Trials in the status of the job, by number."""
    search = job.status.search
    return {trial.number: trial for trial in search.trials} if search else {}


def _failure(child: FineTuneJob) -> dict[str, object]:
    failure = child.status.failure
    reason = (failure.reason if failure else None) or ""
    state = TrialState.PRUNED if reason in _ENDED_EARLY else TrialState.FAILED
    message = (failure.message if failure else None) or "It failed."
    told = message if state is TrialState.PRUNED else f"{reason}: {message}"
    return {"state": state, "message": told[:_MESSAGE_CHARACTERS]}


def _success(trial: Trial, ended: EndedTrialJob, now: datetime) -> TrialRecord:
    reports = (
        record.report
        for record in ended.records
        if record.stage is Stage.TRAIN and record.outcome is AttemptOutcome.SUCCEEDED
    )
    report = next(reports, None)
    training = report.training if report else None
    if training is None or training.eval_loss is None:
        cause = "Its records are gone." if training is None else "No validation loss was measured."
        failed = trial.model_copy(update={"state": TrialState.FAILED, "message": cause})
        return TrialRecord(trial=failed, ended_at=now)
    completed = trial.model_copy(update={"state": TrialState.COMPLETED, "loss": training.eval_loss})
    return TrialRecord(trial=completed, ended_at=now, report=report)


def _measurements(child: FineTuneJob) -> tuple[Measurement, ...]:
    """Validation losses at checkpoints and of the latest update, in the order of their steps."""
    progress = child.status.progress
    total = progress.total_steps if progress else None
    if not total:
        return ()
    losses = {item.step: item.eval_loss for item in child.status.checkpoints}
    if progress and progress.step is not None and progress.eval_loss is not None:
        losses.setdefault(progress.step, progress.eval_loss)
    return tuple(
        Measurement(percent=min(100.0, 100 * step / total), loss=float(loss))
        for step, loss in sorted(losses.items())
        if loss is not None
    )


def _compared(
    measured: Iterable[Measurement], pruner: SuccessiveHalving | None, before: TrialStatus | None
) -> tuple[Measurement, ...]:
    """Losses at the points of comparison; those in status stay as they are."""
    if pruner is None:
        return ()
    known = {item.percent: float(item.loss) for item in before.compared} if before else {}
    measured = tuple(measured)
    for rung in pruner.rungs:
        reached = next((item.loss for item in measured if item.percent >= rung), None)
        if reached is not None:
            known.setdefault(rung, reached)
    return tuple(Measurement(percent=percent, loss=known[percent]) for percent in sorted(known))
