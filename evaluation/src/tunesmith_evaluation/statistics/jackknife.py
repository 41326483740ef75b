"""Tests of statistics of whole corpora and of means without bounds, by the jackknife."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tunesmith_contract.report import Interval
from tunesmith_contract.shared_rules.verdict import one_sided_level

from .bounded_means import mean_p_value
from .limits import lower_limit

Floats = NDArray[np.float64]


def pseudo_values(sums: Floats, statistic: Callable[[Floats], Floats]) -> Floats:
    """Pseudo-values of the jackknife (Tukey 1958), shape (groups,): what each group adds to a statistic.

    Their mean is the statistic without its bias of order 1 / groups; of a mean over groups of equal size they are the
    groups' means.

    Args:
        sums: sums of each group, shape (groups, k).
        statistic: value of sums of shape (..., k).
    """
    groups = len(sums)
    if not groups:
        return np.empty(0)
    total = sums.sum(axis=0)
    if groups < 2:
        return np.full(groups, float(statistic(total)))
    return np.asarray(groups * statistic(total) - (groups - 1) * statistic(total - sums))


def pseudo_p_value(values: Floats, least: float = 0.0) -> float:
    """About the p-value of the hypothesis that the true mean of pseudo-values is at most zero.

    Gaffke's bound needs the least possible value, and there is none. The observed values stand in for it: one is added
    that lies as far below the least one as all values are apart. That is conservative for skewed values too, but no
    guarantee: what happens so rarely that no item shows it can't be known without a bound.

    Args:
        values: shape (groups,).
        least: least value of the statistic, if it has one: groups that are all alike prove no more than it allows.
    """
    if len(values) < 2:
        return 1.0
    observed, spread = float(values.min()), float(np.ptp(values))
    return mean_p_value(values, min(observed - spread, -abs(float(values.mean())), least))


def jackknife_interval(
    values: Floats,
    value: float,
    confidence: float,
    upper: float | None = None,
    reach: tuple[float, float] = (0.0, 0.0),
) -> Interval:
    """Value of a statistic with its interval, from its pseudo-values.

    Args:
        values: shape (groups,).
        value: value of the statistic.
        confidence: confidence level, between 0 and 1.
        upper: largest value of the statistic, whose least one is 0; None if it has no bound.
        reach: least and largest pseudo-value that another group could have, where they lie beyond these bounds.
    """
    level, error = one_sided_level(confidence), standard_error_of(values)
    if upper is None:
        low = lower_limit(lambda point: pseudo_p_value(values - point), value, error, -FAR, level)
        high = -lower_limit(lambda point: pseudo_p_value(-values - point), -value, error, -FAR, level)
        return Interval(value, low, high)
    least, largest = min(0.0, reach[0]), max(upper, reach[1])
    low = lower_limit(lambda point: pseudo_p_value(values - point, least - point), value, error, 0.0, level)
    high = -lower_limit(
        lambda point: pseudo_p_value(-values - point, -largest - point), -value, error, -upper, level
    )
    return Interval(value, min(low, value), max(high, value))


def reach_of(
    sums: Floats, value: float, swings: Callable[[Floats], tuple[Floats, Floats]] | None
) -> tuple[float, float]:
    """Least and largest pseudo-value that another group could have; 0 and 0 where it is not known.

    Args:
        sums: sums of each group, shape (groups, k).
        value: value of the statistic.
        swings: how far one more group can move it, down and up.
    """
    if swings is None or not len(sums):
        return 0.0, 0.0
    lost, gained = swings(sums)
    return value + len(sums) * float(lost.min()), value + len(sums) * float(gained.max())


#: Values beyond which no end of an interval is looked for.
FAR = 1e9


def standard_error_of(values: Floats) -> float:
    """Standard error of a statistic, from its pseudo-values; 0 for one group."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
