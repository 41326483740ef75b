"""Results of an evaluation as text: the change for ``kubectl get``, the table for ``kubectl describe``."""

from collections.abc import Iterable, Sequence

from tunesmith_contract.evaluation import Gate, Tier
from tunesmith_contract.report import MetricResult
from tunesmith_contract.shared_rules.result_text import (
    GatedMetric,
    choose_headline,
    decimals_for,
    describe_change,
    describe_expectation,
    describe_margin,
)
from tunesmith_contract.shared_rules.verdict import GateVerdict

_HEAD = ("SUITE", "METRIC", "ITEMS", "CANDIDATE", "BASELINE", "CHANGE", "GATE", "VERDICT")
_NOT_MEASURED = ("-", "-", "-", "-")
#: kubectl describe writes a text of several lines as it is: each line is indented like a member of status.
_INDENT = "    "


def headline_change(gates: Iterable[Gate], results: Sequence[MetricResult]) -> str:
    """Change that people read first, such as ``+0.12 ±0.03 ExactMatch``; empty if nothing was measured."""
    by_metric = {(result.suite, result.metric): result for result in results}
    gated = [GatedMetric(gate.suite, gate.metric, gate.expect, gate.tier) for gate in gates]
    chosen = choose_headline(gated, by_metric)
    return f"{describe_change(by_metric[chosen].delta)} {chosen[1]}" if chosen else ""


def results_table(results: Sequence[MetricResult], verdicts: Sequence[tuple[Gate, GateVerdict]]) -> str:
    """Table of all gates, then of the metrics without one; it begins with a line feed. Empty if there are no results.

    Args:
        results: the results.
        verdicts: each gate with its verdict.
    """
    if not results:
        return ""
    by_metric = {(result.suite, result.metric): result for result in results}
    rows = [_HEAD]
    for gate, judged in verdicts:
        advisory = " (advisory)" if gate.tier is Tier.ADVISORY else ""
        numbers = _numbers(by_metric.get((gate.suite, gate.metric)))
        rows.append((gate.suite, gate.metric, *numbers, _expectation(gate), f"{judged.verdict}{advisory}"))
    gated = {(gate.suite, gate.metric) for gate, _ in verdicts}
    rows += [(*key, *_numbers(result), "-", "-") for key, result in by_metric.items() if key not in gated]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"\n{_INDENT}{line.rstrip()}" for line in lines)


def _numbers(result: MetricResult | None) -> tuple[str, str, str, str]:
    """Items, both scores and their difference."""
    if result is None:
        return _NOT_MEASURED
    candidate, baseline = result.scores[:2]
    decimals = decimals_for((result.delta.high - result.delta.low) / 2)
    return (
        f"{result.items:,}",
        f"{candidate.value:,.{decimals}f}",
        f"{baseline.value:,.{decimals}f}",
        describe_change(result.delta),
    )


def _expectation(gate: Gate) -> str:
    margin = describe_margin(gate.margin, gate.relative_margin, gate.floor)
    return describe_expectation(gate.expect, margin)
