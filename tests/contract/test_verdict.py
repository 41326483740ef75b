"""Verdicts of gates and comparisons, from p-values alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_contract.evaluation import Expect, Gate, Metric, Tier
from tunesmith_contract.report import GateEvidence, GateProblem
from tunesmith_contract.shared_rules.verdict import Verdict, holm, judge, one_sided_level

GATE = Gate(suite="task", metric=str(Metric.EXACT_MATCH), expect=Expect.BETTER)
PASSING = GateEvidence(100, 0, p_pass=0.01, p_fail=0.99)
FAILING = GateEvidence(100, 0, p_pass=0.99, p_fail=0.001)
OPEN = GateEvidence(100, 0, p_pass=0.3, p_fail=0.7, more_items=1234)
EQUAL = GateEvidence(100, 0, p_pass=0.5, p_fail=0.5)


def verdict(*evidence: GateEvidence | None, confidence: float = 0.95) -> Verdict:
    """Verdict on Blocking gates with this evidence."""
    return judge([GATE] * len(evidence), evidence, confidence).verdict


def test_a_pass_needs_all_blocking_gates() -> None:
    assert verdict(PASSING, PASSING) is Verdict.PASS
    assert verdict(PASSING, OPEN) is Verdict.INCONCLUSIVE
    assert verdict(PASSING, FAILING, OPEN) is Verdict.FAIL


def test_the_level_is_one_end_of_the_two_sided_interval() -> None:
    assert one_sided_level(0.95) == pytest.approx(0.025)
    assert verdict(GateEvidence(100, 0, p_pass=0.0249, p_fail=1)) is Verdict.PASS
    assert verdict(GateEvidence(100, 0, p_pass=0.0251, p_fail=1)) is Verdict.INCONCLUSIVE
    assert verdict(GateEvidence(100, 0, p_pass=0.0251, p_fail=1), confidence=0.9) is Verdict.PASS


@pytest.mark.parametrize("problem", GateProblem)
def test_what_was_not_measured_well_never_passes(problem: GateProblem) -> None:
    found = GateEvidence(100, 0, p_pass=1e-9, p_fail=1, problem=problem)
    assert verdict(found) is Verdict.INCONCLUSIVE
    assert verdict(PASSING, None) is Verdict.INCONCLUSIVE


def test_broken_items_decide_nothing_but_few_items_may_fail() -> None:
    broken = GateEvidence(100, 0, p_pass=1, p_fail=1e-9, problem=GateProblem.TOO_MANY_BROKEN)
    assert verdict(broken) is Verdict.INCONCLUSIVE
    assert verdict(GateEvidence(8, 0, p_pass=1, p_fail=0.004)) is Verdict.FAIL


def test_few_items_never_pass_and_are_told() -> None:
    result = judge(
        [GATE.model_copy(update={"min_items": 30})],
        [GateEvidence(29, 0, p_pass=1e-9, p_fail=1, more_items=1)],
        0.95,
    )
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.gates[0].reason == "29 items, at least 30 are needed; about 1 more would decide"
    grouped = GateEvidence(400, 0, 1, 1, more_items=900, problem=GateProblem.TOO_FEW_ITEMS)
    (told,) = judge([GATE], [grouped], 0.95).gates
    assert told.reason == "400 items in too few independent groups; about 900 more would decide"


def test_one_of_many_gates_fails_only_beyond_the_correction() -> None:
    found = GateEvidence(100, 0, p_pass=0.99, p_fail=0.02, more_items=50)
    assert verdict(found) is Verdict.FAIL
    result = judge([GATE] * 4, [found, OPEN, OPEN, OPEN], 0.95)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.gates[0].corrected_p_fail == pytest.approx(0.08)
    assert result.gates[0].reason == (
        "it fails by itself with p 0.02, 0.08 after correction for the number of gates, which is above 0.025; "
        "about 50 more would decide"
    )


def test_a_pass_is_not_corrected() -> None:
    assert verdict(*[GateEvidence(100, 0, p_pass=0.024, p_fail=1)] * 16) is Verdict.PASS


def test_advisory_gates_are_judged_and_decide_nothing() -> None:
    advisory = GATE.model_copy(update={"tier": Tier.ADVISORY})
    result = judge([GATE, advisory], [PASSING, FAILING], 0.95)
    assert result.verdict is Verdict.PASS
    assert result.gates[1].verdict is Verdict.FAIL
    assert result.gates[1].corrected_p_fail == FAILING.p_fail
    assert judge([advisory], [PASSING], 0.95).verdict is Verdict.INCONCLUSIVE
    assert judge([], [], 0.95).verdict is Verdict.INCONCLUSIVE


def test_inconclusive_tells_few_items_from_a_difference_as_good_as_the_margin() -> None:
    few, equal = judge([GATE] * 2, [OPEN, EQUAL], 0.95).gates
    assert few.reason == "too few items; about 1,234 more would decide"
    assert equal.reason == "the difference is as good as the margin; more items would not decide"


def test_gates_and_evidence_belong_together() -> None:
    with pytest.raises(ValueError, match="1 gates, but evidence on 0"):
        judge([GATE], [], 0.95)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(raw <= value <= 1 for raw, value in zip(p_values, corrected, strict=True))
    assert sorted(corrected) == [value for _, value in sorted(zip(p_values, corrected, strict=True))]
