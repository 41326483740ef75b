"""Status of a search."""

from collections.abc import Sequence

from tunesmith.api.search import BestTrial, ComparedLoss, SearchStatus, TrialStatus
from tunesmith.decide.run.summary import decimal
from tunesmith_contract.search import SearchSettings, Trial, TrialState
from tunesmith_search.results import best_trial


def build_search_status(
    settings: SearchSettings, trials: Sequence[Trial], folder: str | None = None
) -> SearchStatus:
    """Counts, the best trial and all trials.

    Args:
        folder: where a shared pod has left table and plot.
    """
    counts = {state: sum(trial.state is state for trial in trials) for state in TrialState}
    best = best_trial(trials)
    return SearchStatus(
        ended=f"{len(trials) - counts[TrialState.RUNNING]}/{settings.trials}",
        running=counts[TrialState.RUNNING],
        completed=counts[TrialState.COMPLETED],
        pruned=counts[TrialState.PRUNED],
        failed=counts[TrialState.FAILED],
        best=_best(best) if best else None,
        folder=folder,
        trials=tuple(_trial(trial) for trial in trials),
    )


def describe_search(settings: SearchSettings, trials: Sequence[Trial]) -> str:
    """One sentence about the state of a search."""
    ended, best = sum(trial.state is not TrialState.RUNNING for trial in trials), best_trial(trials)
    text = f"{ended} of at most {settings.trials} trials have ended"
    if best is None:
        return f"{text}."
    return f"{text}. The best so far is trial {best.number} with a validation loss of {best.loss:.4g}."


def _best(trial: Trial) -> BestTrial:
    parameters = {name.value: value for name, value in trial.parameters.items()}
    assert trial.loss is not None
    return BestTrial(number=trial.number, loss=decimal(trial.loss), parameters=parameters)


def _trial(trial: Trial) -> TrialStatus:
    compared = (
        ComparedLoss(percent=round(item.percent), loss=decimal(item.loss)) for item in trial.measurements
    )
    running = trial.state is TrialState.RUNNING
    return TrialStatus(
        number=trial.number,
        parameters={name.value: value for name, value in trial.parameters.items()},
        state=trial.state,
        loss=decimal(trial.loss),
        gpu_seconds=None if running else f"{trial.gpu_seconds:.0f}",
        message=trial.message or None,
        compared=tuple(compared),
    )
