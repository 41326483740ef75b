"""Report document that the stage leaves: what it says agrees with answers, scores and evidence."""

from pathlib import Path

import pytest
import yaml
from stages.stage_world import EvaluateReport, RowBuilders, World

from tunesmith_contract.base import sha256_digest
from tunesmith_contract.evaluation import ModelUse
from tunesmith_contract.shared_rules.advice import advise
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_evaluation.__main__ import main
from tunesmith_evaluation.items.items_file import StoredAnswers, read_items_file
from tunesmith_evaluation.report.document import EvaluationDocument, SideKind
from tunesmith_evaluation.report.files import read_report

SUITE = {
    "name": "task",
    "metrics": ["CHRF", "Accuracy", "Tokens", "BitsPerByte"],
    "maxNewTokens": 6,
    "limit": 60,
}
GATES = [
    {"suite": "task", "metric": "CHRF", "expect": "Better", "tier": "Advisory"},
    {"suite": "task", "metric": "BitsPerByte", "expect": "NotWorse", "relativeMargin": 0.9},
]


@pytest.fixture
def evaluated(world: World, make: RowBuilders) -> tuple[World, EvaluateReport]:
    """A model with a system prompt, compared with itself without one, on 70 rows in two languages."""
    rows = [row | {"language": "de" if number % 2 else "fr"} for number, row in enumerate(make.rows(70))]
    config = world.evaluate_config(
        sides=[{"name": "asked", "systemPrompt": "Sort."}, {"name": "bare"}],
        suites=[SUITE | {"dataset": world.write_rows("test.jsonl", rows), "sliceColumns": ["language"]}],
        gates=GATES,
    )
    return world, world.evaluate(config)


def folder_of(world: World, report: EvaluateReport) -> Path:
    return (world.root / "pvc" / report.evaluation.details.uri.removeprefix("pvc://")).parent


def document_of(world: World, report: EvaluateReport) -> EvaluationDocument:
    return read_report(folder_of(world, report) / "report.json")


def test_the_report_lies_beside_the_items_with_its_digest(evaluated: tuple[World, EvaluateReport]) -> None:
    world, report = evaluated
    folder = folder_of(world, report)
    written = (folder / "report.json").read_bytes()
    assert sha256_digest(written) == report.evaluation.report_digest
    assert report.evaluation.report_bytes == len(written)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"report.json", "report.html", "report.md", "junit.xml", "items.jsonl"}


def test_the_report_says_what_was_measured(evaluated: tuple[World, EvaluateReport]) -> None:
    world, report = evaluated
    document, evaluation = document_of(world, report), report.evaluation
    assert document.policy.digest == evaluation.policy_digest
    assert document.details == evaluation.details
    assert [(side.name, side.kind, side.system_prompt) for side in document.sides] == [
        ("asked", SideKind.BASE, "Sort."),
        ("bare", SideKind.BASE, None),
    ]
    for side in document.sides:
        assert side.latency_p50 is not None and side.latency_p95 is not None
        assert 0 < side.latency_p50 <= side.latency_p95
    assert document.sides[0].prompt_tokens > document.sides[1].prompt_tokens > 0
    suite = document.suites[0]
    assert (suite.items, suite.selected, suite.used, suite.leaked) == (70, 60, 60, 0)
    assert [side.answered for side in suite.sides] == [60, 60]
    assert [result.delta for result in document.results] == [
        result.delta if result.items else None for result in evaluation.results
    ]
    assert {part.value: part.items for part in document.slices if part.metric == "CHRF"}.keys() == {
        "de",
        "fr",
    }
    tokens = document.metric("task", "Tokens")
    assert tokens
    assert (tokens.unit, tokens.higher_is_better) == ("tokens", False)
    accuracy = document.metric("task", "Accuracy")
    assert accuracy
    assert [matrix.side for matrix in accuracy.confusion] == ["asked", "bare"]
    assert all(sum(map(sum, matrix.counts)) == 30 for matrix in accuracy.confusion)
    assert document.decoding["task"]["maxNewTokens"] == 6
    assert document.run.started < document.run.ended


def test_gates_and_verdict_are_judged_from_the_evidence(evaluated: tuple[World, EvaluateReport]) -> None:
    world, report = evaluated
    document = document_of(world, report)
    assert [gate.p_pass for gate in document.gates] == [found.p_pass for found in report.evaluation.gates]
    assert document.gates[1].verdict is document.verdict.verdict is Verdict.PASS
    assert document.verdict.message.startswith("All blocking gates hold: task/BitsPerByte NotWorse")


def test_the_worst_items_are_those_of_the_items_file(evaluated: tuple[World, EvaluateReport]) -> None:
    world, report = evaluated
    document, folder = document_of(world, report), folder_of(world, report)
    losses = {}
    for item in read_items_file(folder / "items.jsonl"):
        asked, bare = (item.answers[side][0].scores["CHRF"] for side in ("asked", "bare"))
        if asked < bare:
            losses[item.digest] = bare - asked
    assert losses
    assert document.worst_total == len(losses)
    assert [item.loss for item in document.worst] == pytest.approx(
        sorted(losses.values(), reverse=True), abs=1e-5
    )
    answers = StoredAnswers(folder / "items.jsonl", "asked")
    for worst in document.worst:
        assert worst.loss == pytest.approx(losses[worst.digest], abs=1e-5)
        assert worst.answers[0].text == answers.find("task", worst.digest)[0].text


def test_the_command_evaluates_a_manifest_and_scores_its_answers_again(
    tmp_path: Path, models: Path, make: RowBuilders, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    world.write_rows("test.jsonl", make.rows(30))
    rows = world.storage.dataset_file(world.write_rows("test.jsonl", make.rows(30)))
    (tmp_path / "rows.jsonl").write_bytes(rows.read_bytes())
    spec = {
        "baseModel": {"uri": str(models / "llama")},
        "candidate": {"base": {}},
        # A prompt to which the random model says next to nothing.
        "baseline": {"base": {}, "systemPrompt": "Sort."},
        "suites": [
            {
                "name": "task",
                "dataset": {"uri": "rows.jsonl"},
                "metrics": [{"type": "TokenF1"}, {"type": "Regex", "pattern": "."}],
                "maxNewTokens": 4,
            }
        ],
        "gates": [{"suite": "task", "metric": "Regex", "expect": "Better"}],
        "safety": {"disabled": True, "reason": "a tiny model"},
    }
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(spec))
    # Nobody is better than a model that says nothing.
    assert main(["run", "eval.yaml", "--output", "first"]) == 2
    first = read_report(tmp_path / "first" / "report.json")
    assert first.sides[0].uri == str(models / "llama")
    assert first.details
    assert first.details.uri.startswith(str(tmp_path))
    digest = sha256_digest((tmp_path / "first" / "items.jsonl").read_bytes())
    answers = {"uri": "first/items.jsonl", "digest": digest}
    again = spec | {
        "candidate": {"answers": answers},
        "baseline": {"answers": answers | {"side": "baseline"}},
        "gates": [{"suite": "task", "metric": "TokenF1", "expect": "Better", "margin": "0.9"}],
    }
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(again))
    assert main(["run", "again.yaml", "--output", "second"]) == 1
    second = read_report(tmp_path / "second" / "report.json")
    assert second.results[0].scores == first.results[0].scores
    assert [side.kind for side in second.sides] == [SideKind.ANSWERS, SideKind.ANSWERS]


def test_the_report_gives_the_advice_that_status_gives(world: World, make: RowBuilders) -> None:
    config = world.evaluate_config(
        sides=[{"name": "candidate"}, {"name": "baseline", "systemPrompt": "Sort."}],
        suites=[
            {"name": "task", "metrics": ["CHRF"], "dataset": world.write_rows("test.jsonl", make.rows(6))}
        ],
        gates=GATES[:1],
        advice={"bar": 0.9, "examples": 800},
    )
    report = world.evaluate(config)
    document = document_of(world, report)
    use = ModelUse(bar=0.9, examples=800)
    assert " ".join(document.advice) == advise(config, report.evaluation, use)
    assert "candidate scores" in document.advice[0]
    assert "800 examples are enough" in " ".join(document.advice)
