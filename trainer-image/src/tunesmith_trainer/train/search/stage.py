"""Search in one pod: trials until the budget is spent, then the best trial's artifact as that of the run."""

import os
from collections.abc import Sequence

from tunesmith_contract.layout import SEARCH_FILE, SEARCH_PAGE
from tunesmith_contract.report import Outcome, RunReport, SearchReport
from tunesmith_contract.run_config import Parallelism, TrainConfig
from tunesmith_contract.search import SearchSettings, Trial, TrialState, to_line
from tunesmith_contract.shared_rules.trials import configure_trial
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_search.page import render_html, render_json
from tunesmith_search.proposals import propose
from tunesmith_search.results import best_trial
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints
from tunesmith_trainer.checkpoints.writer_lease import WriterLease, new_holder
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.distributed.control_group import broadcast_from_first, wait_for_all
from tunesmith_trainer.train.distributed.parallel import gang, is_first_rank, world_size
from tunesmith_trainer.train.finish import finish_training, needs_new_process
from tunesmith_trainer.train.loaded_base import LoadedBase, load_base
from tunesmith_trainer.train.starting_point import StartingPoint, find_starting_point

from .journal import JournalEntry, TrialJournal
from .trial_run import TrialPlace, TrialRunner

#: Processes that may end without progress in the same trial before it counts as failed.
MAX_STARTS = 3
#: Failures after which no further trial starts, if nothing else came of the search: the next ones would fail as well.
FIRST_FAILURES = 5
_MESSAGE_CHARACTERS = 2048


def search(
    config: TrainConfig, storage: Storage, workspace: Workspace, preemption: Preemption
) -> RunReport | None:
    """Run the trials that are missing, and publish the best one's artifact as the run's.

    Returns:
        The report. None on all ranks but the first; and on that too if a new process has to finish the stage.

    Raises:
        Preempted: a pod received SIGTERM; the running trial's state is committed as a checkpoint.
        StageError: the search can't run in one pod, or no trial succeeded.
    """
    require_searchable(config)
    journal = open_journal(workspace)
    if journal.ended and world_size() == 1:
        start = find_starting_point(config, storage, verify=True)
        return finish_search(config, start, journal, TrialPlace(storage, workspace, preemption))
    with gang(config, preemption):
        if broadcast_from_first(journal.ended):
            return None
        start = find_starting_point(config, storage, verify=is_first_rank())
        wait_for_all()
        base = load_base(config, start, workspace)
        require_validation(base)
        run_trials(config, base, journal, TrialPlace(storage, workspace, preemption))
    if not is_first_rank():
        return None
    journal.end()
    if needs_new_process(config):
        return None
    return finish_search(config, start, journal, TrialPlace(storage, workspace, preemption))


def require_searchable(config: TrainConfig) -> None:
    """Check that trials can share a loaded base model.

    Raises:
        UserError: they would train it, or it is divided over the devices.
    """
    if config.adapter is None:
        message = (
            "trials that train all weights can't share a base model: write search.mode Jobs, or an adapter"
        )
        raise UserError("SharedSearch", message)
    if config.parallelism is not Parallelism.DDP:
        message = (
            f"trials of a model that {config.parallelism} divides over the devices can't share it: "
            "write search.mode Jobs, or parallelism DDP"
        )
        raise UserError("SharedSearch", message)


def require_validation(base: LoadedBase) -> None:
    """Check that there are rows to compare trials by.

    Raises:
        UserError: there are none.
    """
    if not base.rows.validation:
        message = "trials are compared by their validation loss: hold out rows with dataset.validation"
        raise UserError("NoValidationRows", message)


def open_journal(workspace: Workspace) -> TrialJournal:
    """The journal of the run's search, with the lease to write it on the first worker."""
    lease = WriterLease(workspace.checkpoints, new_holder(os.environ))
    if is_first_rank():
        lease.take()
        BucketCheckpoints(workspace).take_lease()
    return TrialJournal(workspace, lease)


def run_trials(config: TrainConfig, base: LoadedBase, journal: TrialJournal, place: TrialPlace) -> None:
    """Run trials one after the other until there is no next one; all workers call it.

    Raises:
        Preempted: a pod received SIGTERM.
        StageError: no trial could succeed.
    """
    assert config.search is not None
    runner = TrialRunner(config, base, journal, place)
    while (entry := _next_together(config.search, journal)) is not None:
        runner.run(entry)


def _next_together(settings: SearchSettings, journal: TrialJournal) -> JournalEntry | None:
    """The next trial by the first worker's journal, on all workers."""
    found: JournalEntry | None = broadcast_from_first(
        next_trial(settings, journal) if is_first_rank() else None
    )
    return found


def next_trial(settings: SearchSettings, journal: TrialJournal) -> JournalEntry | None:
    """The trial to run next: the one that was interrupted, else a new one; None if there is to be none."""
    interrupted = journal.running()
    if interrupted is not None:
        if interrupted.starts < MAX_STARTS:
            return interrupted.model_copy(update={"starts": interrupted.starts + 1})
        message = f"WorkerDied: the process ended {interrupted.starts} times without progress"
        changes = {"state": TrialState.FAILED, "loss": None, "message": message}
        journal.write(interrupted.model_copy(update={"trial": interrupted.trial.model_copy(update=changes)}))
    trials = journal.trials
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    if len(failed) == len(trials) >= FIRST_FAILURES:
        return None
    parameters = propose(settings, trials) if _affords_another(settings, trials) else None
    if parameters is None:
        return None
    return JournalEntry(trial=Trial(number=len(trials) + 1, parameters=parameters))


def _affords_another(settings: SearchSettings, trials: Sequence[Trial]) -> bool:
    """True if the GPU time that is left is enough for a trial as long as the others were."""
    if settings.gpu_seconds is None:
        return True
    left = settings.gpu_seconds - sum(trial.gpu_seconds for trial in trials)
    completed = [trial.gpu_seconds for trial in trials if trial.state is TrialState.COMPLETED]
    return left > 0 and (not completed or left >= sum(completed) / len(completed))


def finish_search(
    config: TrainConfig, start: StartingPoint, journal: TrialJournal, place: TrialPlace
) -> RunReport:
    """Finish the stage with the best trial's model, and commit its report with all trials.

    Raises:
        Preempted: SIGTERM has arrived before.
        StageError: no trial succeeded, or the best model can't be measured, published or exported.
    """
    assert config.search is not None
    workspace, trials = place.workspace, journal.trials
    write_page(config, trials, workspace)
    best = best_trial(trials)
    if best is None:
        raise UserError("NoTrialSucceeded", _describe_failures(trials))
    best_config = configure_trial(config, best.parameters)
    best_workspace = Workspace(place.storage, best_config, best.number)
    training = finish_training(best_config, start, best_workspace, place.preemption)
    changes = {
        "search": describe_search(config.search, trials, best, workspace),
        "gpu_seconds": sum(trial.gpu_seconds for trial in trials),
    }
    report = RunReport(stage="train", outcome=Outcome.SUCCEEDED, training=training.model_copy(update=changes))
    workspace.commit(report)
    return report


def write_page(config: TrainConfig, trials: Sequence[Trial], workspace: Workspace) -> None:
    """Write table and plot of the search, for people and programs, into a folder that stays."""
    assert config.search is not None
    title = f'Search of FineTuneJob "{config.owner.namespace}/{config.owner.name}"'
    page, table = render_html(title, config.search, trials), render_json(config.search, trials)
    workspace.write(workspace.search_uri.join(SEARCH_FILE), table.encode())
    workspace.write(workspace.search_uri.join(SEARCH_PAGE), page.encode())


def describe_search(
    settings: SearchSettings, trials: Sequence[Trial], best: Trial, workspace: Workspace
) -> SearchReport:
    """Member of the report: numbers of trials by state, and each trial as a line, the best first."""
    completed = [trial for trial in trials if trial.state is TrialState.COMPLETED]
    others = [trial for trial in trials if trial.state is not TrialState.COMPLETED]
    ordered = [*sorted(completed, key=lambda trial: (trial.loss or 0.0, trial.number)), *others]
    return SearchReport(
        best=best.number,
        completed=len(completed),
        pruned=sum(trial.state is TrialState.PRUNED for trial in trials),
        failed=sum(trial.state is TrialState.FAILED for trial in trials),
        trials=tuple(to_line(settings, trial) for trial in ordered),
        folder=str(workspace.search_uri),
    )


def _describe_failures(trials: Sequence[Trial]) -> str:
    """What the trials failed of, each cause once."""
    if not trials:
        return "the search has run no trial: raise search.budget"
    causes = dict.fromkeys(trial.message for trial in trials)
    return f"none of {len(trials)} trials completed: {'; '.join(causes)}"[:_MESSAGE_CHARACTERS]
