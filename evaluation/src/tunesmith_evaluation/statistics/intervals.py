"""Confidence intervals and hypothesis tests for scores in [0, 1], valid for small and uniform samples.

- Scores of 0 or 1: Wilson's score interval of one side's mean; Tango's score interval (1998) of the
  difference over the same items, and McNemar's exact test.
- Scores within [0, 1]: Student's t after adding one item at each end of the range, for one side and for the
  paired differences; a permutation test of their signs.

The added items do for means what those of Agresti and Coull (one side) and of Bonett and Price (pairs) do for
proportions. Without them neither the t interval nor a bootstrap has its nominal coverage for few items of equal
score. The tests simulate the coverage of all four.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from tunesmith_contract.report import Interval

_RESAMPLES = 9999


def mean_interval(scores: Sequence[float], confidence: float, *, binary: bool) -> Interval:
    """Mean of one side's scores with its confidence interval.

    Args:
        scores: one score per item, in [0, 1].
        confidence: confidence level, between 0 and 1.
        binary: all scores are 0 or 1.
    """
    if binary:
        test = stats.binomtest(round(sum(scores)), len(scores))
        low, high = test.proportion_ci(confidence, method="wilson")
        return _interval(float(np.mean(scores)), low, high, (0, 1))
    return _widened_t(np.asarray(scores), confidence, (0, 1))


def difference_interval(
    candidate: Sequence[float], baseline: Sequence[float], confidence: float, *, binary: bool
) -> Interval:
    """Mean difference of candidate and baseline over the same items, with its confidence interval.

    Args:
        candidate: scores in the order of the items.
        baseline: scores of the same items.
        confidence: confidence level, between 0 and 1.
        binary: all scores are 0 or 1.
    """
    differences = _differences(candidate, baseline)
    if binary:
        return tango_interval(*_discordant(differences), len(differences), confidence)
    return _widened_t(differences, confidence, (-1, 1))


def difference_p_value(
    candidate: Sequence[float], baseline: Sequence[float], *, binary: bool, seed: int
) -> float:
    """Two-sided p-value of the hypothesis of no difference.

    Args:
        candidate: scores in the order of the items.
        baseline: scores of the same items.
        binary: all scores are 0 or 1.
        seed: seed of the permutations, where they are sampled.
    """
    differences = _differences(candidate, baseline)
    return mcnemar(*_discordant(differences)) if binary else _sign_permutation(differences, seed)


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p-value of McNemar's exact test.

    Args:
        better: items that only the candidate got right.
        worse: items that only the baseline got right.
    """
    if better + worse == 0:
        return 1.0
    return float(stats.binomtest(better, better + worse, 0.5).pvalue)


def tango_interval(better: int, worse: int, items: int, confidence: float) -> Interval:
    """Tango's score interval (1998) of the difference of paired proportions.

    Args:
        better: items that only the candidate got right.
        worse: items that only the baseline got right.
        items: number of all items.
        confidence: confidence level, between 0 and 1.
    """
    estimate = (better - worse) / items
    limit = float(stats.norm.ppf((1 + confidence) / 2))

    def excess(difference: float) -> float:
        return _tango_statistic(better, worse, items, difference) ** 2 - limit**2

    edge = 1 - 1e-12
    low = optimize.brentq(excess, -edge, estimate) if estimate > -edge and excess(-edge) > 0 else -1.0
    high = optimize.brentq(excess, estimate, edge) if estimate < edge and excess(edge) > 0 else 1.0
    return _interval(estimate, low, high, (-1, 1))


def _differences(candidate: Sequence[float], baseline: Sequence[float]) -> NDArray[np.float64]:
    differences: NDArray[np.float64] = np.asarray(candidate, np.float64) - np.asarray(baseline, np.float64)
    return differences


def _discordant(differences: NDArray[np.float64]) -> tuple[int, int]:
    """Number of items that only the candidate got right, and number that only the baseline did."""
    return int((differences > 0).sum()), int((differences < 0).sum())


def _tango_statistic(better: int, worse: int, items: int, difference: float) -> float:
    """Score statistic of a difference, with the restricted maximum likelihood estimate of the nuisance parameter."""
    a = 2 * items
    b = -better - worse + (2 * items - better + worse) * difference
    c = -worse * difference * (1 - difference)
    worse_probability = (math.sqrt(max(b * b - 4 * a * c, 0)) - b) / (2 * a)
    variance = items * (2 * worse_probability + difference * (1 - difference))
    distance = better - worse - items * difference
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _widened_t(values: NDArray[np.float64], confidence: float, bounds: tuple[float, float]) -> Interval:
    """Student's interval of a mean after adding one value at each end of the range."""
    widened = np.append(values, bounds)
    low, high = stats.t.interval(confidence, len(widened) - 1, widened.mean(), stats.sem(widened))
    return _interval(float(values.mean()), low, high, bounds)


def _sign_permutation(differences: NDArray[np.float64], seed: int) -> float:
    """Two-sided p-value of the sign permutation test of the mean difference."""
    changed = differences[differences != 0]
    # scipy needs at least two differences, and one alone is no evidence.
    if len(changed) <= 1:
        return 1.0
    result = stats.permutation_test(
        (changed,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _interval(value: float, low: float, high: float, bounds: tuple[float, float]) -> Interval:
    """Interval clipped to bounds and extended to include the point estimate."""
    return Interval(value, max(bounds[0], min(low, value)), min(bounds[1], max(high, value)))
