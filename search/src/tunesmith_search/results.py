"""Outcome of a search: its best trial, and how much each parameter matters."""

from collections.abc import Iterable, Sequence

from tunesmith_contract.search import ParameterName, SearchSettings, Trial, TrialState

from .study import build_study, has_loss

#: Fewer completed trials say nothing about importance.
LEAST_TRIALS = 8


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """Completed trial with the lowest loss, the earlier one of two that are equal; None if no trial has completed."""
    completed = [trial for trial in trials if trial.state is TrialState.COMPLETED and has_loss(trial)]
    return min(completed, key=lambda trial: (trial.loss, trial.number), default=None)


def importances(settings: SearchSettings, trials: Sequence[Trial]) -> dict[ParameterName, float]:
    """Share of each parameter in the differences between good trials and the others, largest first; they sum to 1.

    PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), over the completed trials; empty for fewer than eight.
    """
    completed = [trial for trial in trials if trial.state is TrialState.COMPLETED and has_loss(trial)]
    if len(completed) < LEAST_TRIALS:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.samplers import RandomSampler

    study = build_study(settings, completed, RandomSampler(seed=settings.seed))
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {ParameterName(name): share for name, share in shares.items()}
