"""Gates judge by the whole interval."""

import random
from statistics import NormalDist, fmean, stdev

import pytest
from long_form import cases

from tunesmith.api.evaluation_suites import Gate
from tunesmith.api.reasons import Verdict
from tunesmith.decide.evalrun.gates import judge_gate, judge_gates, worst
from tunesmith_contract.evaluation import Expect
from tunesmith_contract.report import Interval


@pytest.mark.parametrize(
    ("expect", "low", "high", "verdict"),
    [
        (Expect.BETTER, 0.11, 0.3, Verdict.PASS),
        (Expect.BETTER, 0.1, 0.3, Verdict.INCONCLUSIVE),
        (Expect.BETTER, -0.1, 0.09, Verdict.FAIL),
        (Expect.BETTER, -0.1, 0.1, Verdict.INCONCLUSIVE),
        (Expect.NOT_WORSE, -0.09, 0.3, Verdict.PASS),
        (Expect.NOT_WORSE, -0.1, 0.3, Verdict.INCONCLUSIVE),
        (Expect.NOT_WORSE, -0.3, -0.11, Verdict.FAIL),
    ],
)
def test_the_margin_itself_is_never_enough(expect: Expect, low: float, high: float, verdict: Verdict) -> None:
    assert judge_gate(expect, 0.1, Interval((low + high) / 2, low, high)) is verdict


def test_one_failure_fails_all_and_a_doubt_is_no_pass() -> None:
    assert worst([Verdict.PASS, Verdict.PASS]) is Verdict.PASS
    assert worst([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.PASS]) is Verdict.FAIL


def test_what_was_not_measured_cannot_pass() -> None:
    gate = Gate.model_validate({"suite": "task", "metric": "ExactMatch", "expect": "Better", "margin": "0.1"})
    assert judge_gates([gate], []) == {gate: Verdict.INCONCLUSIVE}


@pytest.mark.many_cases
@pytest.mark.parametrize("expect", Expect)
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_luck_passes_a_gate_no_more_often_than_the_confidence_allows(
    expect: Expect, confidence: float
) -> None:
    """Candidates whose true difference is the margin itself, 300 paired binary items."""
    margin, evaluations = 0.1, cases(600, 10_000)
    truth = margin if expect is Expect.BETTER else -margin
    generator = random.Random(7)
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    passed = failed = 0
    for _ in range(evaluations):
        items = [_paired_item(generator, truth) for _ in range(300)]
        mean, half = fmean(items), quantile * stdev(items) / len(items) ** 0.5
        verdict = judge_gate(expect, margin, Interval(mean, mean - half, mean + half))
        passed += verdict is Verdict.PASS
        failed += verdict is Verdict.FAIL
    assert passed / evaluations <= 1 - confidence
    assert failed / evaluations <= 1 - confidence


def _paired_item(generator: random.Random, truth: float) -> int:
    """Candidate minus baseline on one item: 1 or -1 where they disagree, which is on 40 of 100."""
    draw = generator.random()
    wins = (0.4 + truth) / 2
    return 1 if draw < wins else -1 if draw < 0.4 else 0
