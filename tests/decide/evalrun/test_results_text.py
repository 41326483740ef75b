"""Results of an evaluation as kubectl shows them."""

import re
from typing import Any

from tunesmith.decide.evalrun.results_text import headline_change, results_table
from tunesmith_contract.evaluation import MAX_GATES, MAX_RESULTS, Gate
from tunesmith_contract.report import Interval, MetricResult
from tunesmith_contract.shared_rules.verdict import NOT_MEASURED, GateVerdict, Verdict

_SCORES = (Interval(0.82, 0.8, 0.84), Interval(0.7, 0.6, 0.8))
RESULTS = [
    MetricResult(
        "tickets",
        "ExactMatch",
        1200,
        _SCORES,
        Interval(0.12, 0.09, 0.15),
        0.001,
    ),
    MetricResult("tickets", "TokenF1", 1200, _SCORES, Interval(0.004, -0.001, 0.009), 0.2),
    MetricResult(
        "general",
        "Perplexity",
        80,
        (Interval(12.5, 12, 13), Interval(13.7, 13, 15)),
        Interval(-1.2, -2.5, -0.1),
        0.03,
    ),
]


def make_gate(suite: str, metric: str, expect: str, **members: Any) -> Gate:
    return Gate.model_validate({"suite": suite, "metric": metric, "expect": expect, **members})


def judged(verdict: Verdict) -> GateVerdict:
    return GateVerdict(verdict, NOT_MEASURED, 1.0, "")


GATES = [
    make_gate("general", "Perplexity", "NotWorse", relativeMargin="0.05"),
    make_gate("tickets", "ExactMatch", "Better", margin="0.05"),
    make_gate("missing", "Judge", "NotWorse", margin="0.1", tier="Advisory"),
]


def test_the_headline_is_the_first_improvement_asked_for() -> None:
    assert headline_change(GATES, RESULTS) == "+0.12 ±0.03 ExactMatch"
    assert headline_change(GATES[:1], RESULTS) == "-1.2 ±1.3 Perplexity"
    assert headline_change(GATES, []) == ""


def test_the_table_shows_gates_first_then_other_metrics() -> None:
    verdicts = [*zip(GATES, map(judged, (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)), strict=True)]
    first, *lines = results_table(RESULTS, verdicts).split("\n")
    assert first == ""
    assert [re.split(r" {2,}", line.strip()) for line in lines] == [
        ["SUITE", "METRIC", "ITEMS", "CANDIDATE", "BASELINE", "CHANGE", "GATE", "VERDICT"],
        [
            "general",
            "Perplexity",
            "80",
            "12.5",
            "13.7",
            "-1.2 ±1.3",
            "worse by less than 5 % of the baseline's score",
            "Pass",
        ],
        ["tickets", "ExactMatch", "1,200", "0.82", "0.70", "+0.12 ±0.03", "better by more than 0.05", "Fail"],
        ["missing", "Judge", "-", "-", "-", "-", "worse by less than 0.1", "Inconclusive (advisory)"],
        ["tickets", "TokenF1", "1,200", "0.820", "0.700", "+0.004 ±0.005", "-", "-"],
    ]
    assert (
        len({line.index(cell) for line, cell in zip(lines[:3], ("CHANGE", "-1.2", "+0.12"), strict=True)})
        == 1
    )


def test_no_results_are_no_table() -> None:
    assert results_table([], [(GATES[0], judged(Verdict.INCONCLUSIVE))]) == ""


def test_the_longest_table_fits_into_status() -> None:
    results = [RESULTS[0]._replace(suite=f"{number:0>32}", metric="m" * 40) for number in range(MAX_RESULTS)]
    gate = make_gate(
        "s" * 32, "m" * 40, "NotWorse", relativeMargin="0.123456", floor="0.123456", tier="Advisory"
    )
    table = results_table(results, [(gate, judged(Verdict.INCONCLUSIVE))] * MAX_GATES)
    assert len(table) <= 8192
