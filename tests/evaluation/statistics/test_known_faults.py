"""False verdicts that intervals with two-sided coverage alone let through."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tunesmith_contract.evaluation import Expect, Gate
from tunesmith_contract.report import GateEvidence
from tunesmith_contract.shared_rules.verdict import Verdict, judge
from tunesmith_evaluation.statistics.corpus import macro_f1, macro_f1_swings, macro_f1_terms
from tunesmith_evaluation.statistics.gates import judge_gate
from tunesmith_evaluation.statistics.groups import Groups
from tunesmith_evaluation.statistics.pairs import BoundedPairs, SummedPairs, Threshold

Labels = NDArray[np.int64]


def judged(
    differences: Sequence[float], expect: Expect, margin: float, *, binary: bool, min_items: int = 1
) -> GateEvidence:
    """Evidence on a gate, from differences of the items."""
    values = np.array(differences)
    baseline = np.where(values < 0, 1.0, 0.0)
    pairs = BoundedPairs(baseline + values, baseline, Groups.of(None, len(values)), binary, 1)
    gate = Gate(suite="s", metric="m", expect=expect, margin=margin, min_items=min_items)
    return judge_gate(pairs, gate, 0.95, broken=0, max_broken=0.05)


def verdict(evidence: GateEvidence, confidence: float = 0.95) -> Verdict:
    """Verdict of one gate without a least number of items."""
    gate = Gate(suite="s", metric="m", expect=Expect.BETTER, min_items=1)
    return judge([gate], [evidence], confidence).verdict


def test_four_of_four_better_is_no_pass() -> None:
    found = judged([1] * 4, Expect.BETTER, 0, binary=True)
    assert found.p_pass == pytest.approx(1 / 16, rel=1e-3)
    assert verdict(found) is Verdict.INCONCLUSIVE
    assert verdict(judged([1] * 6, Expect.BETTER, 0, binary=True)) is Verdict.PASS


def test_four_better_of_twenty_is_no_pass() -> None:
    found = judged([1] * 4 + [0] * 16, Expect.BETTER, 0, binary=True)
    assert found.p_pass >= stats.binomtest(4, 4, 0.5).pvalue / 2
    assert verdict(found) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("expect", "margin"), [(Expect.BETTER, 0.0), (Expect.NOT_WORSE, 0.02)])
@pytest.mark.parametrize("items", [20, 50, 200])
def test_a_little_better_on_most_and_broken_on_a_few_is_no_pass(
    expect: Expect, margin: float, items: int
) -> None:
    """Exact chance of a Pass for a candidate whose true difference is the threshold itself."""
    threshold = margin if expect is Expect.BETTER else -margin
    for gain in (0.03, 0.1, 0.3):
        breaks = (gain - threshold) / (1 + gain)
        passed = 0.0
        for broken in range(items):
            differences = [-1.0] * broken + [gain] * (items - broken)
            if judged(differences, expect, margin, binary=False).p_pass > 0.025:
                break
            passed += float(stats.binom.pmf(broken, items, breaks))
        assert passed <= 0.025


def test_many_gates_do_not_fail_by_chance() -> None:
    gates = [Gate(suite="s", metric="m", expect=Expect.NOT_WORSE, margin=0.02)] * 16
    chance = np.random.default_rng(5)
    failed = 0
    for _ in range(400):
        # Each candidate is as bad as allowed: its p-values are uniform.
        p_fail = chance.uniform(size=16)
        evidence = [GateEvidence(100, -0.02, p_pass=1 - p, p_fail=p) for p in p_fail.tolist()]
        failed += judge(gates, evidence, 0.95).verdict is Verdict.FAIL
    assert failed / 400 <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 400)


def test_groups_that_are_all_alike_prove_no_more_than_the_range_of_macro_f1_allows() -> None:
    """Sixty groups without a single difference: a margin of 0.02 can't pass, as it can't for exact scores."""
    expected = np.tile([0, 1], 60)
    terms = macro_f1_terms(expected, expected, 2)
    groups = Groups.of(np.repeat(np.arange(60), 2).tolist(), 120)
    pairs = SummedPairs(terms, terms, groups, macro_f1, seed=1, upper=1.0, swings=macro_f1_swings)
    assert pairs.p_above(Threshold(offset=-0.02)) > 0.25
    assert pairs.p_above(Threshold(offset=-0.2)) < 0.001
    interval = pairs.baseline_interval(0.95)
    assert interval.high == interval.value == 1
    assert 0.9 < interval.low < 0.96


def _classified(candidate: Labels, baseline: Labels, expected: Labels) -> SummedPairs:
    """Answers to items of three classes, compared by macro-F1."""
    return SummedPairs(
        macro_f1_terms(candidate, expected, 3),
        macro_f1_terms(baseline, expected, 3),
        Groups.of(None, len(expected)),
        macro_f1,
        seed=1,
        upper=1.0,
        swings=macro_f1_swings,
    )


@pytest.mark.parametrize(
    ("items", "share", "recall"), [(100, 0.02, 0.71), (200, 0.05, 0.72), (60, 0.1, 0.69)]
)
def test_a_rare_class_that_the_candidate_lost_is_no_pass(items: int, share: float, recall: float) -> None:
    """The items seen often show no loss, and the true difference is about -0.05."""
    chance = np.random.default_rng(3)
    passed = 0
    for _ in range(200):
        expected = chance.choice(3, items, p=[(1 - share) / 2, (1 - share) / 2, share])
        luck = chance.random(items)
        baseline = np.where(luck < 0.95, expected, (expected + 1) % 2)
        candidate = np.where((expected == 2) & (luck > recall), 0, baseline)
        passed += _classified(candidate, baseline, expected).p_above(Threshold(offset=-0.05)) <= 0.025
    assert passed <= 200 * 0.025


def test_swings_of_macro_f1_are_those_of_changed_answers() -> None:
    expected = np.array([0, 0, 0, 0, 1, 1, 2, 0, 1])
    predicted = np.array([0, 0, 0, 1, 1, 0, 2, 0, 1])
    terms = macro_f1_terms(predicted, expected, 4)
    lost, gained = macro_f1_swings(terms)

    def value(changed: list[int], added: list[int] | None = None, guessed: list[int] | None = None) -> float:
        wanted = np.concatenate([expected, added or []]).astype(int)
        given = np.concatenate([changed, guessed or []]).astype(int)
        return float(macro_f1(macro_f1_terms(given, wanted, 4).sum(axis=0)))

    now = value(predicted.tolist())
    # The only item of class 2 becomes class 1; an item of class 0 becomes class 2, the rarest.
    assert lost[2] == pytest.approx(value([0, 0, 0, 1, 1, 0, 1, 0, 1]) - now)
    assert lost[0] == pytest.approx(value([2, 0, 0, 1, 1, 0, 2, 0, 1]) - now)
    assert gained[0] == pytest.approx(value([0, 0, 0, 0, 1, 0, 2, 0, 1]) - now)
    assert gained[2] == 0
    # Class 3 is not among the items; its first one becomes class 2.
    assert lost[3] == pytest.approx(value(predicted.tolist(), [3], [2]) - now)
    assert gained[3] == pytest.approx(value(predicted.tolist(), [3], [3]) - now)


def test_equal_classes_keep_their_power() -> None:
    """Three classes of a hundred items: as good as the baseline is seen within a margin of 0.05."""
    chance = np.random.default_rng(4)
    passed = 0
    for _ in range(40):
        expected = np.repeat([0, 1, 2], 100)
        luck = chance.random(300)
        other = (expected + 1) % 3
        # Each is wrong on a tenth of the items, and alone on a hundredth.
        baseline = np.where(luck < 0.1, other, expected)
        candidate = np.where((luck > 0.01) & (luck < 0.11), other, expected)
        passed += _classified(candidate, baseline, expected).p_above(Threshold(offset=-0.05)) <= 0.025
    assert passed >= 32
