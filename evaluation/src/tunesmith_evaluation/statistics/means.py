"""Mean of one side's scores with its interval, and standard errors."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunesmith_contract.report import Interval
from tunesmith_contract.shared_rules.verdict import one_sided_level

from .bounded_means import mean_p_value
from .groups import Groups
from .limits import lower_limit

Floats = NDArray[np.float64]


def bounded_mean(
    scores: Floats, groups: Groups, confidence: float, *, binary: bool, upper: float = 1.0
) -> Interval:
    """Mean of scores from 0 to an upper bound, with its interval.

    The interval is Wilson's (1927) for independent scores of 0 and 1, otherwise Gaffke's.
    Without scores the interval is the whole range.

    Args:
        scores: shape (items,).
        groups: groups of the items.
        confidence: confidence level, between 0 and 1.
        binary: all scores are 0 or 1.
        upper: the largest possible score.
    """
    if not len(scores):
        return Interval(0.0, 0.0, upper)
    mean = float(scores.mean())
    if binary and groups.are_single:
        low, high = stats.binomtest(round(scores.sum()), len(scores)).proportion_ci(
            confidence, method="wilson"
        )
    else:
        level = one_sided_level(confidence)
        low, high = _gaffke_limit(scores, groups, level), upper - _gaffke_limit(upper - scores, groups, level)
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def standard_error(values: Floats, groups: Groups) -> float:
    """Standard error of the mean of values, clustered by groups (Miller 2024, arXiv 2411.00640).

    Of independent items it is the usual one, with n - 1 in the variance.

    Args:
        values: shape (items,).
        groups: groups of the items.
    """
    number = len(groups)
    if number < 2:
        return 0.0
    excess = groups.sum(values - values.mean())
    return float(np.sqrt(number / (number - 1) * np.sum(excess**2)) / len(values))


def _gaffke_limit(scores: Floats, groups: Groups, level: float) -> float:
    """Lower limit of the mean of scores of at least 0."""
    sums, largest = groups.sum(scores), float(groups.sizes.max())

    def p_value(mean: float) -> float:
        return mean_p_value(sums - mean * groups.sizes, -mean * largest)

    return lower_limit(p_value, float(scores.mean()), standard_error(scores, groups), 0, level)
