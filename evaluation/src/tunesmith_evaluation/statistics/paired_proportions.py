"""Exact tests of paired scores of 0 and 1.

All that counts are the items that only the candidate got right (better), those that only the baseline got right
(worse), and the number of all items.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

#: Chance that the rate of worse items lies outside the range over which the exact test searches (Berger and Boos
#: 1994). It is added to the p-value.
_OUTSIDE = 1e-5
#: Probability of the numbers of worse items that are left out of a sum. It is added too.
_LEFT_OUT = 1e-9
_COARSE, _FINE = 33, 9
#: Items up to which nothing is left out: finding what may be would take longer than its sum.
_FEW_ITEMS = 500


def conditional_p_value(better: int, worse: int) -> float:
    """One-sided p-value of McNemar's exact test: the candidate is not better.

    Args:
        better: items that only the candidate got right.
        worse: items that only the baseline got right.
    """
    return float(stats.binom.sf(better - 1, better + worse, 0.5))


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p-value of McNemar's exact test.

    Args:
        better: items that only the candidate got right.
        worse: items that only the baseline got right.
    """
    return min(1.0, 2 * min(conditional_p_value(better, worse), conditional_p_value(worse, better)))


def unconditional_p_value(better: int, worse: int, items: int, threshold: float) -> float:
    """One-sided p-value of the exact unconditional test that the true difference is at most the threshold.

    Outcomes are ordered by Tango's score statistic (1998). The p-value is the largest probability of an outcome at
    least as far out, over all rates of worse items that a confidence interval of almost 1 leaves (Berger and Boos
    1994); on the edge of the hypothesis the probability is largest, as the statistic rises with better items and
    falls with worse ones (Barnard 1947). Valid for any number of items, up to the rounding of the search.

    Args:
        better: items that only the candidate got right.
        worse: items that only the baseline got right.
        items: number of all items.
        threshold: difference of the proportions, above -1 and below 1.
    """
    limit = float(score_statistic(np.asarray(better), np.asarray(worse), items, threshold)) - 1e-9
    lowest, highest = max(0.0, -threshold), (1 - threshold) / 2
    rates = _search_range(worse, items)
    rates = (min(max(rates[0], lowest), highest), min(max(rates[1], lowest), highest))
    counts = _likely_counts(items, rates)
    least = _least_better(counts, items, threshold, limit)
    # Steps of equal size on the arcsine scale are steps of equal share of the standard error.
    first, last = np.arcsin(np.sqrt(np.asarray(rates)))
    angles = np.linspace(first, last, _COARSE)
    coarse = _tail(np.sin(angles) ** 2, counts, least, items, threshold)
    best = int(np.argmax(coarse))
    around = np.linspace(angles[max(best - 1, 0)], angles[min(best + 1, _COARSE - 1)], _FINE)
    fine = _tail(np.sin(around) ** 2, counts, least, items, threshold)
    return float(min(1.0, max(coarse.max(), fine.max()) + _OUTSIDE + _LEFT_OUT))


def score_statistic(better: Counts | Floats, worse: Counts | Floats, items: int, threshold: float) -> Floats:
    """Tango's score statistic (1998) of a difference of paired proportions, for arrays of outcomes.

    The rate of worse items is estimated by restricted maximum likelihood, under the threshold.

    Args:
        better: items that only the candidate got right.
        worse: items that only the baseline got right, of the same shape.
        items: number of all items.
        threshold: the hypothesised difference.
    """
    a = 2 * items
    b = -better - worse + (2 * items - better + worse) * threshold
    c = -worse * threshold * (1 - threshold)
    rate = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    variance = items * np.maximum(2 * rate + threshold * (1 - threshold), 0)
    distance = better - worse - items * threshold
    far = np.where(distance == 0, 0.0, np.copysign(np.inf, distance))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 1e-12, distance / np.sqrt(variance), far)


def _search_range(worse: int, items: int) -> tuple[float, float]:
    """Clopper-Pearson interval of the rate of worse items."""
    low = special.betaincinv(worse, items - worse + 1, _OUTSIDE / 2) if worse else 0.0
    high = special.betainccinv(worse + 1, items - worse, _OUTSIDE / 2) if worse < items else 1.0
    return float(low), float(high)


def _likely_counts(items: int, rates: tuple[float, float]) -> Counts:
    """Numbers of worse items whose probability is not negligible for any rate between the two; all of few items."""
    if items <= _FEW_ITEMS:
        return np.arange(items + 1)
    low = int(stats.binom.ppf(_LEFT_OUT / 2, items, rates[0]))
    return np.arange(low, int(stats.binom.isf(_LEFT_OUT / 2, items, rates[1])) + 1)


def _least_better(counts: Counts, items: int, threshold: float, limit: float) -> Counts:
    """Least number of better items whose statistic reaches the limit, for each number of worse items.

    One more than there can be where none does.
    """
    low, high = np.zeros_like(counts), items - counts + 1
    while (low < high).any():
        middle = np.minimum((low + high) // 2, items - counts)
        reached = score_statistic(middle, counts, items, threshold) >= limit
        active = low < high
        # Where the middle was clipped it has been asked before, or is the last there is.
        high = np.where(active & reached, middle, high)
        low = np.where(active & ~reached, middle + 1, low)
    return low


def _tail(rates: Floats, counts: Counts, least: Counts, items: int, threshold: float) -> Floats:
    """Probability of the outcomes at least as far out, for each rate of worse items."""
    rates = rates[:, np.newaxis]
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = np.clip(np.where(rates < 1, (rates + threshold) / (1 - rates), 0), 0, 1)
    upper = np.where(least <= 0, 1.0, special.bdtrc(least - 1.0, np.maximum(items - counts, 0), chance))
    upper = np.where(least > items - counts, 0.0, upper)
    ways = special.gammaln(items + 1) - special.gammaln(counts + 1) - special.gammaln(items - counts + 1)
    chances = np.exp(ways + special.xlogy(counts, rates) + special.xlog1py(items - counts, -rates))
    return np.asarray((chances * upper).sum(axis=1))
