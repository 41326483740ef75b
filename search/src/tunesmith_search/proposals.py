"""Proposal of the parameters of the next trial."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from tunesmith_contract.search import ParameterName, ParameterValue, Sampler, SearchSettings, Trial

from .space import distributions, is_finite, to_parameters, untried_combinations
from .study import build_study

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

#: Draws before a combination that was tried already is replaced by one that was not.
DRAWS = 16

#: Trials with random parameters before TPE learns from their losses; Optuna's own default.
STARTUP_TRIALS = 10


def propose(settings: SearchSettings, trials: Sequence[Trial]) -> dict[ParameterName, ParameterValue] | None:
    """Parameters of the trial that follows these; None if there is to be none.

    The same trials lead to the same proposal. Trials that still run count as well: TPE assumes that they end badly
    ("constant liar"), so trials side by side differ. Parameters that were tried are not proposed again.

    Args:
        trials: all trials so far, whatever their state.

    Returns:
        None after ``settings.trials`` trials, or when all combinations were tried. A budget of GPU time is the
        caller's to watch.
    """
    if len(trials) >= settings.trials:
        return None
    tried = [trial.parameters for trial in trials]
    for draw in range(DRAWS):
        study = build_study(settings, trials, _sampler(settings, len(trials) + 1, draw))
        parameters = to_parameters(settings, study.ask(distributions(settings)).params)
        if parameters not in tried:
            return parameters
    return next(untried_combinations(settings, tried), None) if is_finite(settings) else parameters


def _sampler(settings: SearchSettings, number: int, draw: int) -> BaseSampler:
    """Sampler with a seed of its own for each trial: a seed shared by all would draw the same numbers each time."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = int.from_bytes(sha256(f"{settings.seed}/{number}/{draw}".encode()).digest()[:4], "big")
    if settings.sampler is Sampler.RANDOM:
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True)
