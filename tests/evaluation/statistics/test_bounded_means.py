"""Gaffke's bound: agreement with exact results, and size on distributions with few values by enumeration."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from long_form import cases
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from tunesmith_evaluation.statistics.bounded_means import mean_p_value
from tunesmith_evaluation.statistics.exponential_sums import probability_at_most_zero
from tunesmith_evaluation.statistics.groups import Groups
from tunesmith_evaluation.statistics.limits import lower_limit
from tunesmith_evaluation.statistics.means import bounded_mean, standard_error


@given(st.integers(1, 400), st.floats(0.01, 0.99), st.data())
def test_scores_of_0_and_1_have_the_exact_binomial_bound(
    items: int, mean: float, data: st.DataObject
) -> None:
    right = data.draw(st.integers(0, items))
    scores = np.array([1.0] * right + [0.0] * (items - right))
    exact = stats.binom.sf(right - 1, items, mean)
    assert mean_p_value(scores - mean, -mean) == pytest.approx(exact, rel=1e-5, abs=1e-12)


def test_its_limits_are_clopper_and_pearsons() -> None:
    scores = np.array([1.0] * 17 + [0.0] * 8)
    low = lower_limit(lambda mean: mean_p_value(scores - mean, -mean), 0.68, 0.1, 0, 0.025)
    assert low == pytest.approx(proportion_confint(17, 25, 0.05, method="beta")[0], abs=5e-6)


def test_sums_of_exponentials_have_the_probabilities_of_a_simulation() -> None:
    chance = np.random.default_rng(3)
    for items in (1, 2, 5, 30):
        weights = np.append(chance.uniform(-0.4, 0.6, items), -0.4)
        drawn = chance.exponential(size=(200_000, items + 1)) @ weights
        found = probability_at_most_zero(weights, np.ones(items + 1))
        assert found == pytest.approx(float((drawn <= 0).mean()), abs=0.006)


def test_two_exponentials_have_the_closed_form() -> None:
    for up, down in ((1.0, 1.0), (0.3, 2.0), (5.0, 1e-3)):
        found = probability_at_most_zero(np.array([up, -down]), np.ones(2))
        assert found == pytest.approx(down / (up + down), rel=1e-6)
    assert probability_at_most_zero(np.array([1.0, 0.0]), np.ones(2)) == 0
    assert probability_at_most_zero(np.array([0.0, -1.0]), np.ones(2)) == 1


@pytest.mark.many_cases
def test_no_distribution_with_three_values_is_rejected_too_often() -> None:
    """Exact chance of a false Pass over random values, means and probabilities."""
    chance = np.random.default_rng(9)
    for _ in range(cases(12, 400)):
        items = int(chance.choice([4, 6, 10, 16]))
        values = np.sort(chance.uniform(size=3) ** chance.choice([0.3, 1, 3]))
        mean = float(chance.uniform(values[0], values[-1]))
        rows = np.array([row for row in product(range(items + 1), repeat=3) if sum(row) == items])
        p_values = np.array([mean_p_value(np.repeat(values - mean, row), -mean) for row in rows])
        below = values <= mean
        for level in (0.1, 0.025):
            passing = rows[p_values <= level]
            for _ in range(40 if len(passing) else 0):
                low, high = (np.zeros(3) for _ in range(2))
                low[below] = chance.dirichlet(np.full(below.sum(), 0.5))
                high[~below] = chance.dirichlet(np.full((~below).sum(), 0.5))
                share = (mean - low @ values) / (high @ values - low @ values)
                rates = (1 - share) * low + share * high
                assert stats.multinomial.pmf(passing, items, rates).sum() <= level + 1e-9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_hold_the_mean_and_mirror(scores: list[float], confidence: float) -> None:
    values, groups = np.array(scores), Groups.of(None, len(scores))
    mean, low, high = bounded_mean(values, groups, confidence, binary=False)
    assert 0 <= low <= mean <= high <= 1
    mirrored = bounded_mean(1 - values, groups, confidence, binary=False)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize(("right", "items"), [(0, 10), (7, 10), (98, 100), (250, 400)])
def test_one_side_has_wilsons_interval(right: int, items: int) -> None:
    scores = np.array([1.0] * right + [0.0] * (items - right))
    for confidence in (0.8, 0.95, 0.99):
        _, low, high = bounded_mean(scores, Groups.of(None, items), confidence, binary=True)
        expected = proportion_confint(right, items, 1 - confidence, method="wilson")
        assert (low, high) == pytest.approx(expected, abs=1e-9)


def test_few_groups_say_less_than_many_items() -> None:
    scores = np.tile([0.9, 0.8, 1.0, 0.7], 10)
    alone = bounded_mean(scores, Groups.of(None, 40), 0.95, binary=False)
    tens = Groups.of([index // 10 for index in range(40)], 40)
    grouped = bounded_mean(scores, tens, 0.95, binary=False)
    assert grouped.low < alone.low - 0.2
    assert standard_error(scores, Groups.of(None, 40)) == pytest.approx(float(stats.sem(scores)))
