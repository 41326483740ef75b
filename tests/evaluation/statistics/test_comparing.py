"""Comparisons: intervals and p-values that agree, groups, missing scores, statistics of a corpus."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from tunesmith_evaluation.statistics.comparing import compare, count_outcomes, measure_pairing
from tunesmith_evaluation.statistics.corpus import macro_f1, macro_f1_terms, mean, perplexity
from tunesmith_evaluation.statistics.groups import Groups
from tunesmith_evaluation.statistics.pairs import BoundedPairs, SummedPairs, Threshold
from tunesmith_evaluation.statistics.swaps import swap_p_values

Floats = NDArray[np.float64]


def bounded(candidate: list[float], baseline: list[float], *, binary: bool = False) -> BoundedPairs:
    """Independent items."""
    return BoundedPairs(
        np.array(candidate, float), np.array(baseline, float), Groups.of(None, len(candidate)), binary, seed=1
    )


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=25), st.booleans())
def test_intervals_and_p_values_agree_and_mirror(pairs: list[tuple[bool, bool]], binary: bool) -> None:
    left, right = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    found = compare(bounded(left, right, binary=binary), 0.9)
    value, low, high = found.delta
    assert -1 <= low <= value <= high <= 1
    assert (low > 0 or high < 0) == (found.p_value <= 0.1 + 1e-12)
    mirrored = compare(bounded(right, left, binary=binary), 0.9)
    assert (-mirrored.delta.high, -mirrored.delta.low) == pytest.approx((low, high), abs=1e-5)
    assert mirrored.p_value == pytest.approx(found.p_value, abs=1e-3)


def test_the_limits_are_where_the_test_just_rejects() -> None:
    pairs = bounded([0.9, 0.8, 0.3, 0.7, 0.6] * 8, [0.5, 0.7, 0.4, 0.6, 0.2] * 8)
    _, low, high = compare(pairs, 0.95).delta
    assert pairs.p_above(Threshold(low - 1e-4)) < 0.025 < pairs.p_above(Threshold(low + 1e-4))
    assert pairs.p_below(Threshold(high + 1e-4)) < 0.025 < pairs.p_below(Threshold(high - 1e-4))


def test_agreement_is_no_proof_of_equality() -> None:
    small, large = (compare(bounded([1.0] * n, [1.0] * n, binary=True), 0.95).delta for n in (20, 400))
    assert small.high > 0.1 > 0.02 > large.high > 0


def test_small_and_steady_differences_are_seen() -> None:
    baseline = np.random.default_rng(3).uniform(0.2, 0.8, 80)
    found = compare(bounded((baseline + 0.1).tolist(), baseline.tolist()), 0.95)
    assert found.delta.low > 0
    assert found.p_value < 0.001


def test_items_of_a_group_count_as_one() -> None:
    candidate, baseline = np.tile([0.8, 0.2, 0.9], 20), np.tile([0.4, 0.3, 0.5], 20)
    labels = [index // 12 for index in range(60)]
    alone = compare(BoundedPairs(candidate, baseline, Groups.of(None, 60), False, 1), 0.95)
    grouped = compare(BoundedPairs(candidate, baseline, Groups.of(labels, 60), False, 1), 0.95)
    assert alone.delta.low > 0 > grouped.delta.low
    assert (grouped.items, grouped.groups) == (60, 5)


def test_a_missing_score_counts_against_what_is_to_be_shown() -> None:
    complete = bounded([1.0] * 40, [0.0] * 30 + [1.0] * 10, binary=True)
    holes = bounded([1.0] * 39 + [np.nan], [0.0] * 30 + [1.0] * 10, binary=True)
    zero = bounded([1.0] * 39 + [0.0], [0.0] * 30 + [1.0] * 10, binary=True)
    assert holes.items == 39
    assert holes.p_above(Threshold(0.5)) == zero.p_above(Threshold(0.5)) > complete.p_above(Threshold(0.5))
    assert holes.p_below(Threshold(0.9)) == complete.p_below(Threshold(0.9))


def test_swaps_are_counted_exactly_for_few_groups() -> None:
    differences = np.array([0.5, -0.1, 0.3, 0.4, 0.2, -0.05])
    totals = [float(np.dot(signs, np.abs(differences))) for signs in product((1, -1), repeat=6)]
    expected = np.mean(np.array(totals) >= differences.sum() - 1e-12)
    above, _ = swap_p_values(differences[:, None], np.zeros((6, 1)), lambda sums: sums[..., 0], seed=1)
    assert above == pytest.approx(float(expected))


@pytest.mark.parametrize("digits", [1, 12])
def test_swaps_of_many_groups_are_those_of_scipy(digits: int) -> None:
    """Few distinct differences and many take different ways to the same numbers."""
    differences = np.random.default_rng(2).normal(0.05, 0.3, 200).round(digits)
    above, below = swap_p_values(differences[:, None], np.zeros((200, 1)), lambda sums: sums[..., 0], seed=4)
    for alternative, found in (("greater", above), ("less", below)):
        expected = stats.permutation_test(
            (differences,),
            lambda sample, axis: np.mean(sample, axis=axis),
            permutation_type="samples",
            n_resamples=9999,
            vectorized=True,
            alternative=alternative,
            rng=np.random.default_rng(1),
        ).pvalue
        assert found == pytest.approx(expected, abs=0.02)


def _summed(candidate: Floats, baseline: Floats, statistic=mean) -> SummedPairs:  # type: ignore[no-untyped-def]
    return SummedPairs(candidate, baseline, Groups.of(None, len(candidate)), statistic, seed=1)


def test_values_without_bounds_have_about_students_interval() -> None:
    chance = np.random.default_rng(8)
    baseline = chance.gamma(4, 0.5, 2000)
    candidate = baseline * 0.9 + chance.normal(0, 0.3, 2000)
    ones = np.ones(2000)
    found = compare(_summed(np.stack([candidate, ones], 1), np.stack([baseline, ones], 1)), 0.95)
    differences = candidate - baseline
    low, high = stats.t.interval(0.95, 1999, differences.mean(), stats.sem(differences))
    assert found.standard_error == pytest.approx(float(stats.sem(differences)))
    assert low - 0.01 < found.delta.low < low
    assert high < found.delta.high < high + 0.01


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_values_with_long_tails_pass_seldom_enough(spread: float) -> None:
    chance, passed, failed = np.random.default_rng(12), 0, 0
    truth = float(np.exp(0.5 + spread**2 / 2) - np.exp(0.5))
    for _ in range(150):
        baseline = np.exp(chance.normal(0, 1, 60))
        candidate = baseline * np.exp(chance.normal(0, spread, 60))
        ones = np.ones(60)
        pairs = _summed(np.stack([candidate, ones], 1), np.stack([baseline, ones], 1))
        passed += pairs.p_below(Threshold(truth)) <= 0.025
        failed += pairs.p_above(Threshold(truth)) <= 0.025
    assert max(passed, failed) <= stats.binom.isf(1e-3, 150, 0.025)


def test_statistics_of_a_corpus() -> None:
    chance = np.random.default_rng(4)
    expected, predicted = chance.integers(0, 3, 300), chance.integers(0, 4, 300)
    terms = macro_f1_terms(predicted, expected, 4)
    f1 = []
    for label in range(4):
        right = ((predicted == label) & (expected == label)).sum()
        f1.append(2 * right / ((predicted == label).sum() + (expected == label).sum()))
    assert macro_f1(terms.sum(axis=0)) == pytest.approx(np.mean(f1))
    assert perplexity(np.array([np.log(7.0) * 12, 12])) == pytest.approx(7)
    better = np.where(chance.random(300) < 0.5, expected, predicted)
    found = compare(_summed(macro_f1_terms(better, expected, 4), terms, macro_f1), 0.95)
    assert found.delta.low > 0
    assert found.p_value < 0.01


def test_pairing_saves_items_by_the_correlation() -> None:
    """An unpaired comparison needs 1 / (1 - correlation) times as many items (Miller 2024)."""
    chance = np.random.default_rng(6)
    common = chance.normal(0, 1, 20_000)
    candidate, baseline = (common * 0.8**0.5 + chance.normal(0, 0.2**0.5, 20_000) for _ in range(2))
    found = measure_pairing(candidate, baseline)
    assert found.factor == pytest.approx(5, rel=0.05)
    assert (found.unpaired_error / found.paired_error) ** 2 == pytest.approx(found.factor)
    assert np.isinf(measure_pairing(common, common).factor)
    welch = stats.ttest_ind(candidate, baseline, equal_var=False).pvalue
    assert found.unpaired_p_value == pytest.approx(welch)
    constant = measure_pairing(np.ones(3), np.zeros(3))
    assert (constant.factor, constant.unpaired_p_value) == (1, 0)


def test_outcomes_follow_the_direction_of_the_metric() -> None:
    values = np.array([1.0, 2, 3, 3]), np.array([2.0, 1, 1, 3])
    assert (count_outcomes(*values).wins, count_outcomes(*values).losses) == (2, 1)
    lower = count_outcomes(*values, higher_is_better=False)
    assert (lower.wins, lower.losses, lower.ties) == (1, 2, 1)
