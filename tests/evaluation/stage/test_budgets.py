"""Budgets of compared endpoints and judges: refused before the first call, or counted and Inconclusive."""

from collections.abc import Iterator
from typing import Any

import pytest
from servers.scripted_server import Received, ScriptedServer, serve
from servers.scripted_teacher import said, text_of
from stages.stage_world import EvaluateReport, RowBuilders, World

from tunesmith_contract.evaluation import Gate
from tunesmith_contract.report import GateProblem
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.shared_rules.verdict import Verdict, judge
from tunesmith_data.failures import UserError
from tunesmith_evaluation.report.document import EvaluationDocument
from tunesmith_evaluation.report.files import read_report

ITEMS = 24
GATES = [{"suite": "task", "metric": "Judge", "expect": "NotWorse", "margin": 0.4, "minItems": 4}]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A model, and a judge that gives 5 points to each answer."""

    def reply(received: Received) -> Any:
        if received.body["model"] == "judge":
            return said('{"points": 5}', prompt=100, completion=10)
        return said(f"{received.body['model']} {text_of(received)[:40]}", prompt=10, completion=5)

    with serve(reply) as started:
        yield started


class Runs:
    """Evaluations by endpoints of one server."""

    def __init__(self, world: World, server: ScriptedServer, rows: str) -> None:
        self.world, self.server, self.rows = world, server, rows

    def config(self, *, side: Any = None, judge: Any = None, mode: str = "Points") -> EvaluateConfig:
        url = f"{self.server.url}/v1"
        spec = {
            "endpoint": {"url": url, "model": "judge", "budget": judge},
            "mode": mode,
            "rubric": "Is it kind?",
        }
        return self.world.evaluate_config(
            baseModel=None,
            sides=[
                {"name": "candidate", "endpoint": {"url": url, "model": "new", "budget": side}},
                {"name": "baseline", "endpoint": {"url": url, "model": "old"}},
            ],
            suites=[
                {
                    "name": "task",
                    "dataset": self.rows,
                    "metrics": [{"type": "Judge", "judge": spec}, {"type": "CHRF"}],
                }
            ],
            gates=GATES,
        )

    def calls(self, model: str) -> int:
        return sum(received.body["model"] == model for received in self.server.received)

    def run(self, **budgets: Any) -> tuple[EvaluateReport, EvaluationDocument]:
        report = self.world.evaluate(self.config(**budgets))
        uri = report.evaluation.details.uri.removeprefix("pvc://")
        return report, read_report((self.world.root / "pvc" / uri).parent / "report.json")


@pytest.fixture
def runs(world: World, make: RowBuilders, server: ScriptedServer) -> Runs:
    return Runs(world, server, world.write_rows("test.jsonl", make.rows(ITEMS)))


def verdict_of(report: EvaluateReport) -> Verdict:
    return judge([Gate.model_validate(GATES[0])], report.evaluation.gates, 0.95).verdict


def test_a_budget_that_covers_all_changes_nothing(runs: Runs) -> None:
    report, document = runs.run(side={"calls": ITEMS}, judge={"calls": 2 * ITEMS})
    assert verdict_of(report) is Verdict.PASS
    assert document.warnings == ()
    assert (runs.calls("new"), runs.calls("judge")) == (ITEMS, 2 * ITEMS)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({"side": {"calls": ITEMS - 1}}, r"side candidate has to answer 24 requests, .* allows 23 calls"),
        ({"judge": {"calls": 2 * ITEMS - 1}}, r"asked 48 questions \(24 items, 1 answers of each, 2 sides\)"),
        (
            {"judge": {"calls": 2 * ITEMS - 1}, "mode": "Pairs"},
            r"asked 48 questions \(24 items, 2 orders, 1 compared with the baseline\)",
        ),
    ],
)
def test_too_few_calls_are_refused_before_the_first(runs: Runs, budgets: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as failure:
        runs.run(**budgets)
    assert failure.value.reason == "BudgetTooSmall"
    assert runs.server.received == []


def test_what_a_judge_was_not_asked_is_counted_and_nothing_passes(runs: Runs) -> None:
    # A question is reserved with its bytes, some hundreds, and paid with 110 tokens.
    report, document = runs.run(judge={"tokens": 4000})
    asked = runs.calls("judge")
    assert 0 < asked < 2 * ITEMS
    assert report.evaluation.gates[0].problem is GateProblem.BUDGET_EXHAUSTED
    assert verdict_of(report) is Verdict.INCONCLUSIVE
    assert "budget" in document.verdict.message
    warning = document.warnings[0]
    assert f"metric Judge, was used up: {2 * ITEMS - asked} questions were not asked" in warning


def test_items_that_a_side_was_not_asked_are_counted_and_nothing_passes(runs: Runs) -> None:
    report, document = runs.run(side={"tokens": 600})
    asked = runs.calls("new")
    assert 0 < asked < ITEMS
    assert runs.calls("old") == ITEMS
    assert report.evaluation.gates[0].problem is GateProblem.BUDGET_EXHAUSTED
    assert verdict_of(report) is Verdict.INCONCLUSIVE
    assert document.suites[0].sides[0].beyond_budget == ITEMS - asked
    assert f"The budget of side candidate was used up: {ITEMS - asked} items" in document.warnings[0]
    again, _ = runs.run(side={"tokens": 600})
    assert runs.calls("new") == asked
    assert verdict_of(again) is Verdict.INCONCLUSIVE


def test_a_budget_that_covers_nothing_is_the_reason_of_the_verdict(runs: Runs) -> None:
    report, document = runs.run(side={"tokens": 1})
    assert runs.calls("new") == 0
    assert report.evaluation.gates[0].problem is GateProblem.BUDGET_EXHAUSTED
    assert verdict_of(report) is Verdict.INCONCLUSIVE
    assert "budget" in document.verdict.message


def test_a_budget_is_no_part_of_the_policy(runs: Runs) -> None:
    digests = {runs.run(judge=budget)[0].evaluation.policy_digest for budget in (None, {"calls": 48})}
    assert len(digests) == 1
