"""Confidence bounds of the mean of bounded values, for any distribution and any number of values."""

import numpy as np
from numpy.typing import NDArray

from .exponential_sums import probability_at_most_zero

Floats = NDArray[np.float64]


def mean_p_value(values: Floats, least: float, scale: float = 1.0) -> float:
    """P-value of the hypothesis that the mean of the distribution is at most zero.

    Gaffke's bound (2005): one value at the lower end of the range is added to the sample, and all are weighted by
    independent exponential variables; the p-value is the probability that the weighted sum is at most zero. For values
    that are one of two it is the exact test of Clopper and Pearson. Learned-Miller and Thomas (2019) conjecture that it
    is valid for all bounded distributions and all sample sizes; no counterexample is known. Phan, Thomas and
    Learned-Miller (2021) compare it with bounds that are proven.

    Args:
        values: shape (n,), independent.
        least: lower end of the range of the values, below zero.
        scale: number of times that each value counts, to foresee the p-value of a larger sample like this one.
    """
    distinct, counts = np.unique(values, return_counts=True)
    weights = np.append(distinct, least)
    return probability_at_most_zero(weights, np.append(counts * scale, 1.0))
