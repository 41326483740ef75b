"""Verdicts on reports, as status and events tell them."""

import pytest

from tunesmith.decide.evalrun.gates import describe_gate, gate_status, judge_evaluation, worst
from tunesmith_contract.evaluation import Expect, Gate, Side, Suite, Tier
from tunesmith_contract.report import Artifact, EvaluationReport, GateEvidence, GateProblem
from tunesmith_contract.run_config import EvaluateConfig, Owner
from tunesmith_contract.shared_rules.verdict import Verdict

DIGEST = "sha256:" + "a" * 64
BETTER = Gate(suite="task", metric="ExactMatch", expect=Expect.BETTER, margin=0.05)
NOT_WORSE = Gate(
    suite="safety", metric="SafeAnswer", expect=Expect.NOT_WORSE, relative_margin=0.02, floor=0.01
)


def config(*gates: Gate) -> EvaluateConfig:
    """Configuration of a comparison with these gates."""
    return EvaluateConfig(
        owner=Owner(kind="EvalRun", namespace="team", name="quality", uid="1"),
        sides=(Side(name="candidate"), Side(name="baseline")),
        suites=(Suite(name="task", dataset="pvc://d/f", metrics=("ExactMatch",)),),
        gates=gates,
        output="pvc://o/p",
    )


def report(*evidence: GateEvidence) -> EvaluationReport:
    """Report with this evidence."""
    return EvaluationReport(
        sides=("candidate", "baseline"),
        results=(),
        gates=evidence,
        policy_digest=DIGEST,
        details=Artifact(uri="pvc://o/p", digest=DIGEST, size_bytes=1),
    )


def test_the_console_and_the_operator_judge_by_the_same_numbers() -> None:
    passing = GateEvidence(200, 0.05, p_pass=0.001, p_fail=1)
    assert judge_evaluation(config(BETTER), report(passing)).verdict is Verdict.PASS
    failing = GateEvidence(200, 0.05, p_pass=1, p_fail=0.001)
    assert judge_evaluation(config(BETTER, NOT_WORSE), report(failing, passing)).verdict is Verdict.FAIL


@pytest.mark.parametrize("evidence", [(), (GateEvidence(200, 0.05, p_pass=0.001, p_fail=1),) * 2])
def test_a_report_that_does_not_fit_the_gates_proves_nothing(evidence: tuple[GateEvidence, ...]) -> None:
    judged = judge_evaluation(config(BETTER), report(*evidence))
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert judged.gates[0].evidence.problem is GateProblem.MISSING


def test_status_shows_raw_and_corrected_values_and_a_sentence() -> None:
    found = GateEvidence(120, -0.018, p_pass=0.9, p_fail=0.02, more_items=130)
    doubt = GateEvidence(120, 0.05, p_pass=0.2, p_fail=0.8, more_items=450)
    first, second = judge_evaluation(config(NOT_WORSE, BETTER), report(found, doubt)).gates
    status = gate_status(NOT_WORSE, first)
    assert (status.p_pass, status.p_fail, status.p_fail_corrected) == ("0.9", "0.02", "0.04")
    assert (status.verdict, status.more_items, status.tier) == (Verdict.INCONCLUSIVE, 130, Tier.BLOCKING)
    assert status.message == (
        "safety/SafeAnswer NotWorse within 2 %, at least 0.01: Inconclusive (it fails by itself with p 0.02, 0.04 "
        "after correction for the number of gates, which is above 0.025; about 130 more would decide)"
    )
    assert describe_gate(BETTER, second) == (
        "task/ExactMatch Better by 0.05: Inconclusive (too few items; about 450 more would decide)"
    )


def test_a_decided_gate_needs_no_more_items() -> None:
    passing = GateEvidence(200, 0.05, p_pass=0.001, p_fail=1, more_items=None)
    (judged,) = judge_evaluation(config(BETTER), report(passing)).gates
    assert gate_status(BETTER, judged).more_items is None
    assert describe_gate(BETTER, judged) == "task/ExactMatch Better by 0.05: Pass (p 0.001)"


def test_the_worst_of_a_metrics_gates_is_shown() -> None:
    assert worst([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.PASS]) is Verdict.FAIL
    assert worst([]) is None
