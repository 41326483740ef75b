"""Optuna's study of a search, built anew from its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith_contract.search import SearchSettings, Trial, TrialState

from .space import distributions, to_values

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


def build_study(
    settings: SearchSettings,
    trials: Sequence[Trial],
    sampler: BaseSampler,
    pruner: BasePruner | None = None,
) -> Study:
    """Study in memory with these trials, whose loss is minimized.

    Failed trials are left out of what the sampler learns: they have no loss.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler, pruner=pruner or optuna.pruners.NopPruner())
    for trial in sorted(trials, key=lambda trial: trial.number):
        study.add_trial(_freeze(settings, trial))
    return study


def has_loss(trial: Trial) -> bool:
    """True for a trial whose loss is a number."""
    return trial.loss is not None and math.isfinite(trial.loss)


def _freeze(settings: SearchSettings, trial: Trial) -> FrozenTrial:
    from optuna.trial import TrialState as OptunaState
    from optuna.trial import create_trial

    measured = {max(1, round(item.percent)): item.loss for item in trial.measurements}
    states = {
        TrialState.RUNNING: OptunaState.RUNNING,
        TrialState.COMPLETED: OptunaState.COMPLETE,
        TrialState.PRUNED: OptunaState.PRUNED,
        TrialState.FAILED: OptunaState.FAIL,
    }
    completed = trial.state is TrialState.COMPLETED
    return create_trial(
        state=OptunaState.FAIL if completed and not has_loss(trial) else states[trial.state],
        value=trial.loss if completed and has_loss(trial) else None,
        params=to_values(settings, trial.parameters),
        distributions=distributions(settings),
        intermediate_values=measured,
    )
