"""Parts of the document from a real comparison, and the worst of many items."""

import numpy as np
import pytest
from reports.evaluation_documents import make_document, make_worst

from tunesmith_contract.evaluation import Expect, Gate, Tier
from tunesmith_contract.shared_rules.verdict import Verdict, judge
from tunesmith_evaluation.comparison.compare_metrics import ComparisonRules, compare_metrics
from tunesmith_evaluation.comparison.metric_scores import MetricScores
from tunesmith_evaluation.report.document import MAX_WORST_ITEMS
from tunesmith_evaluation.report.parts import (
    WorstItems,
    describe_gates,
    describe_metric,
    describe_slices,
    describe_verdict,
)
from tunesmith_evaluation.report.sentences import expectation, more_items
from tunesmith_evaluation.statistics.kinds import ScoreKind

GATES = (
    Gate(suite="task", metric="ExactMatch", expect=Expect.BETTER, margin=0.05),
    Gate(
        suite="task",
        metric="ExactMatch",
        expect=Expect.NOT_WORSE,
        relative_margin=0.02,
        floor=0.01,
        tier=Tier.ADVISORY,
    ),
    Gate(suite="lost", metric="ExactMatch", expect=Expect.NOT_WORSE, margin=0.02),
)


@pytest.fixture(scope="module")
def scores() -> MetricScores:
    """200 items, of which the candidate wins 60 and loses 4; those in French are the ones it loses."""
    candidate, baseline = np.ones(200), np.ones(200)
    baseline[:60] = 0
    candidate[60:64] = 0
    language = ["de"] * 60 + ["fr"] * 4 + ["en"] * 136
    return MetricScores(
        "task",
        "ExactMatch",
        ScoreKind.BINARY,
        np.stack([candidate, baseline]),
        columns={"language": language},
    )


def test_results_gates_and_verdict_are_those_of_the_comparison(scores: MetricScores) -> None:
    rules = ComparisonRules(0.95, 42, GATES, {"task": 0.05, "lost": 0.05})
    compared, evidence = compare_metrics([scores], rules)
    judged = judge(GATES, evidence, 0.95)
    result = describe_metric(compared[0], ("candidate", "baseline"), 0.95)
    assert (result.wins, result.losses, result.ties, result.items, result.groups) == (60, 4, 136, 200, 0)
    assert result.delta == pytest.approx(compared[0].comparison.delta, abs=1e-5)
    assert result.scores[0].score.value == pytest.approx(0.98)
    gates = describe_gates(GATES, judged)
    assert [gate.verdict for gate in gates] == [Verdict.PASS, Verdict.PASS, Verdict.INCONCLUSIVE]
    assert [gate.threshold for gate in gates] == [0.05, pytest.approx(-0.02 * 0.7), None]
    assert [expectation(gate) for gate in gates] == [
        "better by more than 0.05",
        "worse by less than 2 % of the baseline's score (at least 0.01)",
        "worse by less than 0.02",
    ]
    assert [gate.message for gate in gates] == ["", "", "It was not measured."]
    verdict = describe_verdict(GATES, judged)
    assert (verdict.verdict, verdict.reason) == (Verdict.INCONCLUSIVE, "Inconclusive")
    assert verdict.message == "The items do not decide: lost/ExactMatch NotWorse: it was not measured."
    slices = {(part.column, part.value): part for part in describe_slices(compared)}
    assert slices["language", "fr"].delta.value == -1
    assert slices["language", "de"].items == 60


def test_a_failing_gate_is_named_by_the_verdict(scores: MetricScores) -> None:
    gate = Gate(suite="task", metric="ExactMatch", expect=Expect.BETTER, margin=0.5)
    _, evidence = compare_metrics([scores], ComparisonRules(0.95, 42, [gate], {"task": 0.05}))
    verdict = describe_verdict([gate], judge([gate], evidence, 0.95))
    assert (verdict.verdict, verdict.reason) == (Verdict.FAIL, "NotPassed")
    assert "task/ExactMatch Better" in verdict.message.lower().replace(
        "exactmatch better", "ExactMatch Better"
    )


def test_a_suite_without_items_has_no_difference() -> None:
    empty = MetricScores("task", "ExactMatch", ScoreKind.BINARY, np.empty((2, 0)))
    compared, _ = compare_metrics([empty], ComparisonRules(0.95, 42, (), {"task": 0.05}))
    result = describe_metric(compared[0], ("candidate", "baseline"), 0.95)
    assert (result.delta, result.p_value, result.items) == (None, None, 0)
    assert make_document(results=(result,))


def test_the_worst_of_many_items_are_kept_in_their_order() -> None:
    worst, described = WorstItems(), 0
    losses = [(number * 7919) % 1000 / 1000 for number in range(10_000)]
    for number, loss in enumerate(losses):

        def describe(number: int = number) -> object:
            nonlocal described
            described += 1
            return make_worst(number, "q", "e", "a", "b")

        worst.add(loss, describe)  # type: ignore[arg-type]
    worst.add(float("nan"), lambda: pytest.fail("a score that is missing is no loss"))
    expected = sorted(range(10_000), key=lambda number: (-losses[number], number))[:MAX_WORST_ITEMS]
    assert [item.line for item in worst] == expected
    assert worst.total == sum(loss > 0 for loss in losses)
    assert described < 3000


def test_the_number_of_missing_items_is_said_once() -> None:
    gate = make_document().gates[1]
    assert more_items(gate) == "about 420 more items would decide"
    assert (
        more_items(gate.model_copy(update={"message": "Too few items; about 420 more would decide."})) == ""
    )
    assert more_items(gate.model_copy(update={"verdict": Verdict.PASS})) == ""
