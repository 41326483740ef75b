"""Numbers and phrases that all renderings of a report share."""

from collections.abc import Iterator, Sequence

from tunesmith_contract.base import short_digest
from tunesmith_contract.evaluation import Tier
from tunesmith_contract.report import Interval
from tunesmith_contract.shared_rules.result_text import (
    GatedMetric,
    choose_headline,
    decimals_for,
    describe_change,
    describe_expectation,
    signed,
)
from tunesmith_contract.shared_rules.verdict import Verdict

from .document import EvaluationDocument, GateReport, MetricReport, SideKind, SideReport, SuiteReport

_MINUS = str.maketrans("-", "−")  # noqa: RUF001


def headline(document: EvaluationDocument) -> MetricReport | None:
    """Result whose change people read first; None if no difference was measured."""
    gates = [GatedMetric(gate.suite, gate.metric, gate.expect, gate.tier) for gate in document.gates]
    measured = [(result.suite, result.metric) for result in document.results if result.delta is not None]
    chosen = choose_headline(gates, measured)
    return document.metric(*chosen) if chosen else None


def change(result: MetricReport) -> str:
    """Difference with its uncertainty, ``+0.12 ±0.03``; a dash if there is none."""
    if result.delta is None:
        return "–"  # noqa: RUF001
    unit = f" {result.unit}" if result.unit else ""
    return describe_change(result.delta).translate(_MINUS) + unit


def bounds(interval: Interval) -> str:
    """Ends of an interval of a difference: ``+0.09 to +0.15``."""
    decimals = decimals_for(max(interval.high - interval.low, 0.0) / 2)
    return f"{signed(interval.low, decimals)} to {signed(interval.high, decimals)}".translate(_MINUS)


def score(interval: Interval) -> str:
    """Mean with the ends of its interval: ``0.84 (0.80 to 0.88)``."""
    decimals = decimals_for(max(interval.high - interval.low, 0.0) / 2)
    value, low, high = (f"{number:,.{decimals}f}".translate(_MINUS) for number in interval)
    return f"{value} ({low} to {high})"


def p_value(value: float | None) -> str:
    """Probability with three decimals: ``0.012``, ``<0.001``; a dash for None."""
    if value is None:
        return "–"  # noqa: RUF001
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def gate_p_values(gate: GateReport) -> str:
    """p-values of a gate to pass and to fail, the latter corrected: ``0.012 / 0.988``; a dash if there are none."""
    fail = gate.p_fail if gate.p_fail_corrected is None else gate.p_fail_corrected
    return p_value(None) if gate.p_pass is None else f"{p_value(gate.p_pass)} / {p_value(fail)}"


def expectation(gate: GateReport) -> str:
    """Condition of a gate in words: ``better by more than 0.02``."""
    return describe_expectation(gate.expect, gate.margin)


def more_items(gate: GateReport) -> str:
    """Number of further items that would decide an Inconclusive gate; empty if it is not known, or in its message."""
    if gate.verdict is not Verdict.INCONCLUSIVE or not gate.more_items:
        return ""
    if f"{gate.more_items:,} more" in gate.message:
        return ""
    return f"about {gate.more_items:,} more items would decide"


def outcomes(result: MetricReport) -> str:
    """``34 better, 12 worse, 154 equal``."""
    return f"{result.wins:,} better, {result.losses:,} worse, {result.ties:,} equal"


def gates_passed(gates: Sequence[GateReport]) -> str:
    """``3 of 4``, of the blocking gates; advisory ones are no part of the verdict."""
    blocking = [gate for gate in gates if gate.tier is Tier.BLOCKING]
    return f"{sum(gate.verdict == 'Pass' for gate in blocking)} of {len(blocking)}"


def left_out(suite: SuiteReport) -> Iterator[tuple[str, int]]:
    """Reasons for which items were left out or answers are incomplete, with their numbers, where there are any."""
    rows = (("repeated in the data, left out", suite.repeated), ("in training data, left out", suite.leaked))
    yield from ((name, count) for name, count in rows if count)
    for side in suite.sides:
        counted = (
            ("too long for the model", side.too_long),
            ("refused by the chat template", side.refused_by_template),
            ("without an answer", side.unanswered),
            ("not asked, beyond the budget", side.beyond_budget),
            ("cut off at the maximum length", side.truncated),
            ("never finished thinking", side.incomplete_thinking),
            ("empty answers", side.empty),
        )
        yield from ((f"{name} ({side.side})", count) for name, count in counted if count)


def identity(side: SideReport) -> str:
    """Short name of the model or endpoint of a side: the digest's start, else revision and URI."""
    if side.digest:
        return short_digest(side.digest)
    revision = side.revision if side.kind is SideKind.ENDPOINT else short_digest(side.revision)
    return f"{side.uri} {revision}".strip()
