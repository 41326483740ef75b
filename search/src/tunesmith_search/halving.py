"""Comparison of a running trial with the others, at the points of successive halving."""

from collections.abc import Sequence

from tunesmith_contract.search import Measurement, SearchSettings, SuccessiveHalving, Trial


def falls_behind(settings: SearchSettings, trials: Sequence[Trial], number: int) -> bool:
    """True if a running trial shall be ended because others are better.

    The verdict is that of the last point of comparison that the trial has reached, against all trials that have
    reached it by now. The first one to reach a point goes on.

    Args:
        trials: all trials so far, with their measurements; this one among them.
        number: number of the trial.

    Raises:
        ValueError: there is no trial of this number.
    """
    trial = next((trial for trial in trials if trial.number == number), None)
    if trial is None:
        raise ValueError(f"there is no trial {number}")
    halving = settings.pruner
    if halving is None:
        return False
    own = _at_rungs(trial, halving)
    if not own:
        return False
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=halving.start_percent, reduction_factor=halving.reduction_factor
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    verdict = False
    # This one last: each of its points is compared with those of all others. Parameters don't matter here.
    others = sorted((other for other in trials if other.number != number), key=lambda other: other.number)
    for current in (*others, trial):
        asked = study.ask()
        for rung, loss in _at_rungs(current, halving).items():
            asked.report(loss, rung)
            verdict = asked.should_prune()
    return verdict


def _at_rungs(trial: Trial, halving: SuccessiveHalving) -> dict[int, float]:
    """Loss at each point of comparison that the trial has reached: that of the first measurement from there on."""
    losses: dict[int, float] = {}
    for rung in halving.rungs:
        reached: Measurement | None = next(
            (item for item in trial.measurements if item.percent >= rung), None
        )
        if reached is None:
            break
        losses[rung] = reached.loss
    return losses
