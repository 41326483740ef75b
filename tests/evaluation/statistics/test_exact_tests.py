"""Exact tests of paired scores of 0 and 1: size by enumeration, and published values."""

from functools import cache

import numpy as np
import pytest
from long_form import cases
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from tunesmith_evaluation.statistics.groups import Groups
from tunesmith_evaluation.statistics.paired_proportions import (
    conditional_p_value,
    mcnemar,
    score_statistic,
    unconditional_p_value,
)
from tunesmith_evaluation.statistics.pairs import BoundedPairs, Threshold


@cache
def outcomes(items: int, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All outcomes (better, worse, equal) with the p-value that the gate reads."""
    rows, values = [], []
    for better in range(items + 1):
        for worse in range(items - better + 1):
            scores = np.array([1.0] * better + [0.0] * (items - better))
            others = np.array([0.0] * better + [1.0] * worse + [0.0] * (items - better - worse))
            pairs = BoundedPairs(scores, others, Groups.of(None, items), binary=True, seed=1)
            rows.append((better, worse, items - better - worse))
            values.append(pairs.p_above(Threshold(threshold)))
    return np.array(rows), np.array(values)


@pytest.mark.many_cases
@pytest.mark.parametrize("threshold", [0.0, -0.02, -0.1, 0.1])
def test_no_true_difference_at_the_threshold_passes_too_often(threshold: float) -> None:
    """Exact chance of a false Pass, over a grid of the rate at which only the baseline is right."""
    sizes = (4, 5, 8, 12, 20) if cases(0, 1) == 0 else (4, 5, 6, 7, 8, 10, 12, 16, 20, 30, 45, 60)
    for items in sizes:
        rows, values = outcomes(items, threshold)
        worse = np.linspace(max(0, -threshold), (1 - threshold) / 2, 301)
        rates = np.stack([worse + threshold, worse, 1 - 2 * worse - threshold], axis=1).clip(0, 1)
        for level in (0.1, 0.05, 0.025, 0.005):
            passing = rows[values <= level]
            if len(passing):
                chances = stats.multinomial.pmf(passing[:, np.newaxis], items, rates[np.newaxis]).sum(axis=0)
                assert chances.max() <= level + 1e-4, (items, level)


@pytest.mark.parametrize(
    ("better", "worse", "items", "threshold"),
    [(4, 0, 20, 0.0), (7, 2, 30, -0.05), (0, 0, 25, -0.05), (2, 1, 30, -0.1), (9, 1, 25, 0.1)],
)
def test_the_search_finds_the_largest_probability(
    better: int, worse: int, items: int, threshold: float
) -> None:
    """Beside a sum over all outcomes, for the rates that Berger and Boos leave."""
    wins, losses = np.meshgrid(np.arange(items + 1), np.arange(items + 1), indexing="ij")
    statistic = score_statistic(wins, losses, items, threshold)
    observed = score_statistic(np.array(better), np.array(worse), items, threshold)
    far = (wins + losses <= items) & (statistic >= observed - 1e-9)
    rows = np.stack([wins[far], losses[far], items - wins[far] - losses[far]], axis=-1)
    lowest = max(0, -threshold, stats.beta.ppf(5e-6, worse, items - worse + 1) if worse else 0)
    highest = min((1 - threshold) / 2, stats.beta.isf(5e-6, worse + 1, items - worse))
    rates = np.linspace(lowest, highest, 2001)
    chances = np.stack([rates + threshold, rates, 1 - 2 * rates - threshold], axis=1).clip(0, 1)
    largest = stats.multinomial.pmf(rows[:, np.newaxis], items, chances[np.newaxis]).sum(axis=0).max()
    assert unconditional_p_value(better, worse, items, threshold) == pytest.approx(largest + 1e-5, abs=5e-5)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 10), (10, 1), (7, 7), (30, 41), (200, 150)])
def test_mcnemar_is_that_of_statsmodels(better: int, worse: int) -> None:
    table = [[5, better], [worse, 9]]
    assert mcnemar(better, worse) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    if better > worse:
        one_sided = stats.binomtest(better, better + worse, alternative="greater").pvalue
        assert conditional_p_value(better, worse) == pytest.approx(one_sided)


def test_the_score_statistic_is_tangos() -> None:
    """Tango 1998, table of crossover data: b=1, c=7, n=21 has the limits -0.517 and -0.026."""
    for limit in (-0.5174, -0.0261):
        assert abs(score_statistic(np.array(1), np.array(7), 21, limit)) == pytest.approx(1.96, abs=2e-2)


def test_many_items_take_the_same_test() -> None:
    few = unconditional_p_value(30, 10, 400, -0.01)
    normal = stats.norm.sf(float(score_statistic(np.array(30), np.array(10), 400, -0.01)))
    assert few == pytest.approx(normal, rel=0.5)
    many = unconditional_p_value(520, 480, 10_000, 0.0)
    assert many == pytest.approx(stats.binom.sf(519, 1000, 0.5), rel=0.1)
