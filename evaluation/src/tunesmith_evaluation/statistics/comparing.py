"""Difference of two sides, with its interval, its p-value, and the gain by pairing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunesmith_contract.report import Interval
from tunesmith_contract.shared_rules.verdict import one_sided_level

from .limits import ACCURACY, lower_limit
from .pairs import Pairs, Threshold

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate and baseline over the same items.

    Attributes:
        items: items with scores of both.
        groups: independent groups of these items.
        candidate: value of the candidate.
        baseline: value of the baseline.
        delta: candidate minus baseline, with its interval.
        standard_error: of the difference, clustered by groups.
        p_value: two-sided, of no difference. It is above 1 - confidence exactly where the interval holds 0.
    """

    items: int
    groups: int
    candidate: float
    baseline: float
    delta: Interval
    standard_error: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Number of items on which the candidate won, lost, or was as good."""

    wins: int
    losses: int
    ties: int


@dataclass(frozen=True, slots=True)
class Pairing:
    """Paired and unpaired standard error of a difference of means, for information.

    Attributes:
        paired_error: over the differences of the items.
        unpaired_error: as if the sides had answered different items.
        unpaired_p_value: two-sided, of Welch's test.
        factor: number of times as many items that an unpaired comparison needs; 1 / (1 - correlation) where both sides
            vary as much (Miller 2024, arXiv 2411.00640). Infinite where all differences are equal.
    """

    paired_error: float
    unpaired_error: float
    unpaired_p_value: float
    factor: float


def compare(pairs: Pairs, confidence: float) -> Comparison:
    """Difference with interval and p-value.

    Each end of the interval is one-sided valid at (1 - confidence) / 2: it is where the one-sided test just rejects.
    """
    level = one_sided_level(confidence)
    candidate, baseline = pairs.values
    estimate = candidate - baseline
    lowest, highest = pairs.bounds
    error = pairs.standard_error
    zero = pairs.p_above(Threshold()), pairs.p_below(Threshold())
    low = _lower_end(lambda offset: pairs.p_above(Threshold(offset)), zero[0], estimate, error, lowest, level)
    high = -_lower_end(
        lambda offset: pairs.p_below(Threshold(-offset)), zero[1], -estimate, error, -highest, level
    )
    return Comparison(
        items=pairs.items,
        groups=len(pairs.groups),
        candidate=candidate,
        baseline=baseline,
        delta=Interval(estimate, low, high),
        standard_error=error,
        p_value=min(1.0, 2 * min(zero)),
    )


def count_outcomes(candidate: Floats, baseline: Floats, *, higher_is_better: bool = True) -> Outcomes:
    """Items that the candidate won, lost and tied.

    Args:
        candidate: values, shape (items,).
        baseline: values of the same items.
        higher_is_better: False if low values win.
    """
    above, below = int((candidate > baseline).sum()), int((candidate < baseline).sum())
    wins, losses = (above, below) if higher_is_better else (below, above)
    return Outcomes(wins, losses, len(candidate) - above - below)


def measure_pairing(candidate: Floats, baseline: Floats) -> Pairing:
    """Gain by pairing.

    Args:
        candidate: values, shape (items,), at least two.
        baseline: values of the same items.
    """
    items = len(candidate)
    paired = float(np.var(candidate - baseline, ddof=1))
    spreads = float(np.std(candidate, ddof=1)), float(np.std(baseline, ddof=1))
    unpaired = spreads[0] ** 2 + spreads[1] ** 2
    means = float(candidate.mean()), float(baseline.mean())
    if unpaired == 0:
        return Pairing(0.0, 0.0, float(means[0] == means[1]), 1.0)
    welch = stats.ttest_ind_from_stats(
        means[0], spreads[0], items, means[1], spreads[1], items, equal_var=False
    )
    return Pairing(
        paired_error=float(np.sqrt(paired / items)),
        unpaired_error=float(np.sqrt(unpaired / items)),
        unpaired_p_value=float(welch.pvalue),
        factor=unpaired / paired if paired else float(np.inf),
    )


def _lower_end(
    p_value: Callable[[float], float],
    at_zero: float,
    estimate: float,
    error: float,
    lowest: float,
    level: float,
) -> float:
    """Lower end of the interval; the p-value may jump at 0, where the permutation test has to agree.

    Args:
        p_value: of the hypothesis that the true difference is at most the given one.
        at_zero: its value at 0.
        estimate: the observed difference.
        error: its rough standard error.
        lowest: least possible difference.
        level: level of the test.
    """
    if at_zero <= level or estimate < -ACCURACY:
        return lower_limit(p_value, estimate, error, lowest, level)
    # Where only the permutation test does not reject 0, the interval begins there.
    return 0.0 if p_value(-ACCURACY) <= level else lower_limit(p_value, -ACCURACY, error, lowest, level)
