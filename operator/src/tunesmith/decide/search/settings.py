"""Settings of a search, as the package that proposes trials reads them."""

from tunesmith.api.search import Search
from tunesmith_contract.search import (
    MAX_TRIALS,
    Parameter,
    Pruner,
    SearchMode,
    SearchSettings,
    SuccessiveHalving,
)

HOUR = 3600.0


def search_settings(search: Search) -> SearchSettings:
    """The settings of a spec."""
    halving = search.successive_halving
    pruner = SuccessiveHalving.model_validate(halving.to_dict() if halving else {})
    hours = search.budget.gpu_hours
    return SearchSettings(
        sampler=search.sampler,
        pruner=pruner if search.pruner is Pruner.SUCCESSIVE_HALVING else None,
        parameters=tuple(Parameter.model_validate(item.to_dict()) for item in search.parameters),
        trials=search.budget.trials or MAX_TRIALS,
        gpu_seconds=None if hours is None else float(hours) * HOUR,
        parallelism=search.parallelism,
        seed=search.seed,
    )


def runs_trial_jobs(search: Search | None) -> bool:
    """True where each trial is a FineTuneJob."""
    return search is not None and search.mode is SearchMode.JOBS
