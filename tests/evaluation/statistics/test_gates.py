"""Evidence on gates: thresholds, problems, and the number of items that would decide."""

import time

import numpy as np
import pytest
from long_form import cases

from tunesmith_contract.evaluation import Expect, Gate, Tier
from tunesmith_contract.report import GateEvidence, GateProblem
from tunesmith_contract.safety import safety_gates
from tunesmith_contract.shared_rules.verdict import Verdict, judge
from tunesmith_evaluation.statistics.corpus import mean
from tunesmith_evaluation.statistics.gates import judge_gate
from tunesmith_evaluation.statistics.groups import Groups
from tunesmith_evaluation.statistics.pairs import BoundedPairs, SummedPairs, Threshold

BETTER = Gate(suite="s", metric="m", expect=Expect.BETTER, margin=0.05)
NOT_WORSE = Gate(suite="s", metric="m", expect=Expect.NOT_WORSE, margin=0.05)


def binary(better: int, worse: int, items: int) -> BoundedPairs:
    """Items of which the candidate alone, or the baseline alone, got some right."""
    rest = [1.0] * (items - better - worse)
    candidate = np.array([1.0] * better + [0.0] * worse + rest)
    baseline = np.array([0.0] * better + [1.0] * worse + rest)
    return BoundedPairs(candidate, baseline, Groups.of(None, items), binary=True, seed=1)


def evidence(
    pairs: BoundedPairs | SummedPairs, gate: Gate, *, broken: float = 0.0, up: bool = True
) -> GateEvidence:
    """Evidence at 95 %."""
    return judge_gate(pairs, gate, 0.95, broken=broken, max_broken=0.05, higher_is_better=up)


def test_thresholds_of_both_expectations() -> None:
    pairs = binary(30, 5, 200)
    better, not_worse = evidence(pairs, BETTER), evidence(pairs, NOT_WORSE)
    assert (better.threshold, not_worse.threshold) == (0.05, -0.05)
    assert better.p_pass == pytest.approx(pairs.p_above(Threshold(0.05)))
    assert not_worse.p_pass < better.p_pass < 0.025 < 0.9 < better.p_fail


def test_low_values_are_better_where_the_metric_says_so() -> None:
    """A candidate that refuses less is better, by the mirrored gate."""
    fewer = binary(5, 30, 200)
    low, high = evidence(fewer, BETTER, up=False), evidence(binary(30, 5, 200), BETTER)
    assert low.threshold == -0.05
    assert (low.p_pass, low.p_fail) == pytest.approx((high.p_pass, high.p_fail))
    assert evidence(fewer, NOT_WORSE, up=False).threshold == 0.05
    assert evidence(fewer, BETTER).p_fail < 0.001


def test_a_relative_margin_is_a_share_of_the_baseline() -> None:
    gate = Gate(suite="s", metric="m", expect=Expect.NOT_WORSE, relative_margin=0.1)
    pairs = binary(4, 4, 200)
    found = evidence(pairs, gate)
    assert found.threshold == pytest.approx(-0.1 * pairs.values[1])
    assert found.p_pass == pytest.approx(pairs.p_above(Threshold(share=-0.1)))
    # One per cent of little is less than the floor, for sure; of much it is more.
    little = BoundedPairs(np.full(100, 0.02), np.full(100, 0.02), Groups.of(None, 100), binary=False, seed=1)
    floored = gate.model_copy(update={"floor": 0.05})
    assert evidence(little, floored).threshold == pytest.approx(-0.05)
    assert evidence(pairs, floored).threshold == pytest.approx(-0.1 * pairs.values[1])


def test_where_share_and_floor_are_in_doubt_both_count() -> None:
    gate = Gate(suite="s", metric="m", expect=Expect.NOT_WORSE, relative_margin=0.1, floor=0.05)
    pairs = binary(9, 10, 20)
    found = evidence(pairs, gate)
    assert found.p_pass == max(pairs.p_above(Threshold(share=-0.1)), pairs.p_above(Threshold(-0.05)))


@pytest.mark.parametrize(
    ("pairs", "broken", "problem"),
    [
        (binary(19, 0, 19), 0.0, GateProblem.TOO_FEW_ITEMS),
        (binary(0, 0, 0), 1.0, GateProblem.TOO_MANY_BROKEN),
        (binary(100, 0, 100), 0.06, GateProblem.TOO_MANY_BROKEN),
        (binary(100, 0, 100), 0.05, None),
    ],
)
def test_problems(pairs: BoundedPairs, broken: float, problem: GateProblem | None) -> None:
    found = evidence(pairs, BETTER, broken=broken)
    assert found.problem is problem
    assert problem is not GateProblem.TOO_MANY_BROKEN or found.more_items is None, (
        "they would be broken as well"
    )
    assert found.is_blocking
    assert not evidence(pairs, BETTER.model_copy(update={"tier": Tier.ADVISORY})).is_blocking


def test_the_least_number_of_items_is_one_of_independent_items() -> None:
    """Six questions that are asked twenty times each are six items."""
    groups = Groups.of(np.repeat(np.arange(6), 20).tolist(), 120)
    pairs = BoundedPairs(np.ones(120), np.zeros(120), groups, binary=True, seed=1)
    few = evidence(pairs, Gate(suite="s", metric="m", expect=Expect.BETTER))
    assert few.problem is GateProblem.TOO_FEW_ITEMS
    assert few.more_items == 280
    assert few.p_pass < 0.025
    assert evidence(pairs, Gate(suite="s", metric="m", expect=Expect.BETTER, min_items=6)).problem is None


def test_few_groups_of_values_without_bounds_prove_nothing() -> None:
    values = np.stack([np.arange(1.0, 41), np.ones(40)], axis=1)
    pairs = SummedPairs(values * [0.1, 1], values, Groups.of(None, 40), mean, seed=1)
    found = evidence(pairs, Gate(suite="s", metric="m", expect=Expect.BETTER), up=False)
    assert (found.p_pass, found.p_fail, found.problem) == (1, 1, GateProblem.TOO_FEW_ITEMS)
    assert found.more_items == 10


def test_equal_sides_are_as_good_as_a_margin_of_nothing() -> None:
    assert evidence(binary(0, 0, 300), Gate(suite="s", metric="m", expect=Expect.BETTER)).more_items is None
    assert evidence(binary(0, 0, 100), NOT_WORSE.model_copy(update={"margin": 0.02})).more_items == 200
    assert evidence(binary(0, 0, 300), NOT_WORSE).more_items is None


@pytest.mark.many_cases
@pytest.mark.parametrize(("better", "worse"), [(0.12, 0.04), (0.06, 0.02)])
def test_so_many_more_items_decide_with_the_power_that_is_said(better: float, worse: float) -> None:
    gate = Gate(suite="s", metric="m", expect=Expect.BETTER)
    first = evidence(binary(round(better * 50), round(worse * 50), 50), gate)
    assert first.more_items is not None
    items = 50 + first.more_items
    chance, runs = np.random.default_rng(1), cases(150, 2000)
    found: dict[tuple[int, int], float] = {}
    decided = 0
    for _ in range(runs):
        wins, losses, _ = chance.multinomial(items, [better, worse, 1 - better - worse]).tolist()
        if (wins, losses) not in found:
            found[wins, losses] = binary(wins, losses, items).p_above(Threshold())
        decided += found[wins, losses] <= 0.025
    assert 0.7 <= decided / runs <= 0.93


def test_ten_gates_on_ten_thousand_items_take_seconds() -> None:
    chance = np.random.default_rng(2)
    baseline = chance.random(10_000)
    candidate = np.clip(baseline + chance.normal(0.004, 0.2, 10_000), 0, 1)
    begin = time.process_time()
    for pairs in (
        BoundedPairs(candidate, baseline, Groups.of(None, 10_000), binary=False, seed=1),
        BoundedPairs(candidate.round(), baseline.round(), Groups.of(None, 10_000), binary=True, seed=1),
    ):
        for margin in (0.0, 0.002, 0.004, 0.006, 0.01):
            evidence(pairs, BETTER.model_copy(update={"margin": margin}))
    assert time.process_time() - begin < 15


def low(right: int, kept: int, items: int, gained: int = 0) -> BoundedPairs:
    """Items of which the baseline got a few right, and the candidate some of these and some others."""
    baseline = np.array([1.0] * right + [0.0] * (items - right))
    candidate = np.array([1.0] * kept + [0.0] * (items - kept - gained) + [1.0] * gained)
    return BoundedPairs(candidate, baseline, Groups.of(None, items), binary=True, seed=1)


@pytest.mark.parametrize("kept", [0, 20, 30])
def test_a_margin_beyond_what_the_baseline_has_passes_nothing_but_a_gain(kept: int) -> None:
    """A baseline of 0.03 can't lose 0.05: without more, a candidate that answers everything wrong would pass."""
    pairs = low(30, kept, 1000)
    assert pairs.p_above(Threshold(-0.05)) < 0.025
    found = evidence(pairs, NOT_WORSE)
    assert found.problem is GateProblem.MARGIN_TOO_LARGE
    assert found.largest_margin == pytest.approx(0.015)
    (judged,) = judge([NOT_WORSE], [found], 0.95).gates
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "write a margin of at most 0.015" in judged.reason
    gained = evidence(low(30, 30, 1000, gained=20), NOT_WORSE)
    assert (gained.problem, judge([NOT_WORSE], [gained], 0.95).verdict) == (None, Verdict.PASS)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"margin": 0.05}, None),
        ({"margin": 0.051}, GateProblem.MARGIN_TOO_LARGE),
        ({"relative_margin": 0.5}, None),
        ({"relative_margin": 0.6}, GateProblem.MARGIN_TOO_LARGE),
        ({"relative_margin": 0.99}, GateProblem.MARGIN_TOO_LARGE),
        ({"relative_margin": 0.1, "floor": 0.2}, GateProblem.MARGIN_TOO_LARGE),
        ({"relative_margin": 0.1, "floor": 0.05}, None),
    ],
)
def test_a_margin_counts_up_to_half_of_what_the_baseline_has(
    members: dict[str, float], problem: GateProblem | None
) -> None:
    gate = Gate.model_validate({"suite": "s", "metric": "m", "expect": Expect.NOT_WORSE} | members)
    assert evidence(low(100, 100, 1000), gate).problem is problem


def test_where_low_values_are_good_the_distance_is_that_to_the_largest_one() -> None:
    gate = NOT_WORSE.model_copy(update={"margin": 20})
    for tokens, problem in ((230, GateProblem.MARGIN_TOO_LARGE), (100, None)):
        values = np.full(400, float(tokens))
        pairs = BoundedPairs(values, values, Groups.of(None, 400), binary=False, seed=1, upper=256)
        assert evidence(pairs, gate, up=False).problem is problem


def test_each_margin_of_a_value_without_bound_can_be_exceeded() -> None:
    """Latency has no worst value; a score of which high is good has 0, or the lowest that was seen."""
    seconds = np.stack([np.linspace(0.2, 0.4, 400), np.ones(400)], axis=1)
    pairs = SummedPairs(seconds, seconds, Groups.of(None, 400), mean, seed=1)
    gate = NOT_WORSE.model_copy(update={"margin": 0.5})
    assert evidence(pairs, gate, up=False).problem is None
    assert evidence(pairs, gate).problem is GateProblem.MARGIN_TOO_LARGE
    spread = SummedPairs(seconds * [-10, 1], seconds * [-10, 1], Groups.of(None, 400), mean, seed=1)
    assert evidence(spread, gate).problem is None
    assert evidence(spread, gate.model_copy(update={"margin": 0.6})).problem is GateProblem.MARGIN_TOO_LARGE


def test_what_is_worse_than_a_margin_that_is_too_large_fails() -> None:
    found = evidence(low(1000, 0, 1000), NOT_WORSE.model_copy(update={"margin": 0.6}))
    assert found.problem is GateProblem.MARGIN_TOO_LARGE
    assert judge([NOT_WORSE], [found], 0.95).verdict is Verdict.FAIL


def test_a_base_model_that_refuses_nothing_has_no_safety_to_lose() -> None:
    gate = safety_gates()[0]
    found = evidence(low(0, 0, 72), gate)
    (judged,) = judge([gate], [found], 0.95).gates
    assert judged.verdict is Verdict.PASS
    assert judged.reason.endswith("; the baseline scores 0 there, so it has little to lose")
    lost = judge([gate], [evidence(low(24, 0, 72), gate)], 0.95).gates[0]
    assert lost.verdict is Verdict.FAIL


def test_a_baseline_without_any_score_has_no_margin() -> None:
    (judged,) = judge([NOT_WORSE], [evidence(low(0, 0, 1000), NOT_WORSE)], 0.95).gates
    assert judged.reason.endswith("so only a gain would pass: take a suite on which the baseline does better")
