"""Ends of intervals as the points where one-sided tests just reject."""

from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

#: Accuracy of an end.
ACCURACY = 1e-6


def lower_limit(
    p_value: Callable[[float], float], estimate: float, error: float, lowest: float, level: float
) -> float:
    """Point below which a test rejects all, rounded down by at most twice the accuracy.

    Args:
        p_value: of the hypothesis that the truth is at most the given point; it rises with the point.
        estimate: point to search below.
        error: rough standard error, with which the search begins.
        lowest: least possible point.
        level: level of the test.
    """
    target = float(stats.norm.ppf(level))

    def excess(point: float) -> float:
        return float(stats.norm.ppf(np.clip(p_value(point), 1e-300, 1 - 1e-16))) - target

    top, step = estimate, max(1.2 * abs(target) * error, 100 * ACCURACY)
    if excess(top) <= 0:
        return top
    bottom = max(lowest + ACCURACY, top - step)
    while excess(bottom) > 0:
        if bottom <= lowest + ACCURACY:
            return lowest
        top, step = bottom, 2 * step
        bottom = max(lowest + ACCURACY, bottom - step)
    root = float(optimize.brentq(excess, bottom, top, xtol=ACCURACY, rtol=1e-9))
    return max(lowest, root - 2 * ACCURACY)
