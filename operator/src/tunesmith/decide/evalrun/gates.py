"""Verdict on the report of an evaluation, by the rule that the console command shares."""

from collections.abc import Sequence

from tunesmith.api.evalrun import GateStatus
from tunesmith.decide.run.summary import decimal
from tunesmith_contract.evaluation import Expect, Gate
from tunesmith_contract.report import EvaluationReport
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.shared_rules.verdict import ComparisonVerdict, GateVerdict, Verdict, judge

_WORST_FIRST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)


def judge_evaluation(config: EvaluateConfig, report: EvaluationReport) -> ComparisonVerdict:
    """Verdict on a report.

    A report whose evidence does not fit the gates, such as one of an earlier release, proves nothing: all gates count
    as not measured.
    """
    fits = len(report.gates) == len(config.gates)
    return judge(config.gates, report.gates if fits else [None] * len(config.gates), config.confidence)


def gate_status(gate: Gate, result: GateVerdict) -> GateStatus:
    """Result of a gate as status shows it: raw p-values, the corrected one, and a sentence."""
    found = result.evidence
    return GateStatus(
        suite=gate.suite,
        metric=gate.metric,
        expect=gate.expect,
        tier=gate.tier,
        verdict=result.verdict,
        threshold=decimal(found.threshold),
        p_pass=decimal(found.p_pass),
        p_fail=decimal(found.p_fail),
        p_fail_corrected=decimal(result.corrected_p_fail),
        more_items=found.more_items if result.verdict is Verdict.INCONCLUSIVE else None,
        message=describe_gate(gate, result),
    )


def describe_gate(gate: Gate, result: GateVerdict) -> str:
    """Result of a gate in a sentence without its point."""
    return f"{gate.suite}/{gate.metric} {gate.expect}{_margin(gate)}: {result.verdict} ({result.reason})"


def worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Fail before Inconclusive before Pass; None of none."""
    return min(verdicts, key=_WORST_FIRST.index, default=None)


def _margin(gate: Gate) -> str:
    word = "by" if gate.expect is Expect.BETTER else "within"
    if gate.relative_margin is not None:
        floor = f", at least {gate.floor:g}" if gate.floor else ""
        return f" {word} {gate.relative_margin * 100:g} %{floor}"
    return f" {word} {gate.margin:g}" if gate.margin else ""
