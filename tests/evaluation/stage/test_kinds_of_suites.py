"""Suites and metrics of all kinds, through the whole stage."""

import json
import shutil
from typing import Any

import pytest
from models.tiny_models import END, START
from stages.stage_world import EvaluateReport, RowBuilders, World
from transformers import AutoTokenizer

from tunesmith_contract.report import GateProblem
from tunesmith_contract.safety import safety_gates, safety_suites
from tunesmith_contract.shared_rules.verdict import Verdict, judge_report
from tunesmith_data.failures import DataError, UserError
from tunesmith_evaluation.models.generation import Generated, Generator

SIDES = [{"name": "a"}, {"name": "b"}]
PROMPTED = [{"name": "a", "systemPrompt": "Sort."}, {"name": "b"}]
TOOL_TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}" + START + "{{ m.role }}\n{{ m.content }}" + END + "\n{% endfor %}"
    "{% if add_generation_prompt %}" + START + "assistant\n{% endif %}"
)


def items_of(world: World, report: EvaluateReport) -> list[dict[str, Any]]:
    """Lines of the file of items."""
    path = world.root / "pvc" / report.evaluation.details.uri.removeprefix("pvc://")
    return [json.loads(line) for line in path.read_text().splitlines()]


def call_row(article: str) -> dict[str, Any]:
    """Row whose expected answer is a call of a tool, as OpenAI writes it."""
    function = {"name": "stock_level", "arguments": json.dumps({"article": article})}
    call = {"id": "c", "type": "function", "function": function}
    turns = [
        {"role": "user", "content": f"How many of {article} are left?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    tool = {"type": "function", "function": {"name": "stock_level", "parameters": {"type": "object"}}}
    return {"messages": turns, "tools": [tool]}


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Texts that models give in place of their own, by a text in the prompt."""
    texts: dict[str, str] = {}

    def answered(self: Generator, prompts: Any, shared: Any, decoding: Any) -> list[Generated]:
        shown = [self._tokenizer.decode(prompt.ids) for prompt in prompts]
        found = [next((text for word, text in texts.items() if word in prompt), "") for prompt in shown]
        return [Generated(text, 3, False, 0.1) for text in found]

    monkeypatch.setattr(Generator, "_generate", answered)
    return texts


def test_calls_of_tools_are_compared_as_calls(world: World, answer: dict[str, str]) -> None:
    model = world.root / "pvc/tools"
    shutil.copytree(world.root / "pvc/models/llama", model)
    (model / "chat_template.jinja").write_text(TOOL_TEMPLATE)
    call = '<tool_call>{"name": "stock_level", "arguments": {"article": "%s"}}</tool_call>'
    answer |= {"hinge": call % "hinge", "bolt": call % "washer", "nut": ""}
    uri = world.write_rows("calls.jsonl", [call_row(article) for article in ("hinge", "bolt", "nut")])
    suite = {"name": "calls", "dataset": uri, "metrics": ["ToolCall"], "maxNewTokens": 8}
    config = world.evaluate_config(baseModel="pvc://tools", sides=SIDES, suites=[suite])
    report = world.evaluate(config)
    assert [line["answers"]["a"][0]["scores"]["ToolCall"] for line in items_of(world, report)] == [1, 0, 0]
    text_only = world.evaluate_config(uid="x", sides=SIDES, suites=[{**suite, "metrics": ["ExactMatch"]}])
    with pytest.raises(
        DataError, match="row 1 is a call of a tool, which ToolCall alone can compare; ExactMatch can't score"
    ):
        world.evaluate(text_only)


def test_a_template_that_loses_the_tools_answers_no_item(world: World) -> None:
    uri = world.write_rows("calls.jsonl", [call_row("hinge")])
    suite = {"name": "calls", "dataset": uri, "metrics": ["ToolCall"], "maxNewTokens": 8}
    gate = {"suite": "calls", "metric": "ToolCall", "expect": "NotWorse", "margin": 0.5, "minItems": 1}
    report = world.evaluate(world.evaluate_config(sides=SIDES, suites=[suite], gates=[gate]))
    assert report.evaluation.gates[0].problem is GateProblem.SKIPPED
    (line,) = items_of(world, report)
    assert "does not show the tools" in line["problems"]["a"]


def test_thinking_is_no_answer_and_endless_thinking_is_counted(
    world: World, make: RowBuilders, answer: dict[str, str]
) -> None:
    answer |= {"one": "<think>aisle 3?</think>\n\naisle 4", "two": "<think>aisle 4", "three": "aisle 4"}
    rows = [make.row(question, "aisle 4") for question in ("one", "two", "three")]
    suite = {"name": "task", "dataset": world.write_rows("t.jsonl", rows), "metrics": ["ExactMatch"]}
    report = world.evaluate(world.evaluate_config(sides=SIDES, suites=[suite]))
    assert [line["answers"]["a"][0]["scores"]["ExactMatch"] for line in items_of(world, report)] == [1, 0, 1]
    (counts,) = report.evaluation.suites
    assert counts.incomplete == 2


def test_nothing_is_as_good_as_a_baseline_whose_thinking_never_ends(
    world: World, make: RowBuilders, answer: dict[str, str]
) -> None:
    rows = [make.row(f"question {number}", "aisle 4") for number in range(40)]
    answer |= {f"question {number}": "<think>aisle 4" for number in range(40)}
    suite = {
        "name": "task",
        "dataset": world.write_rows("t.jsonl", rows),
        "metrics": ["ExactMatch", "MacroF1", "Tokens"],
    }
    gates = [
        {"suite": "task", "metric": metric, "expect": "NotWorse", "margin": 0.5}
        for metric in suite["metrics"]
    ]
    report = world.evaluate(world.evaluate_config(sides=PROMPTED, suites=[suite], gates=gates))
    assert [gate.problem for gate in report.evaluation.gates] == [
        GateProblem.TOO_MANY_BROKEN,
        GateProblem.TOO_MANY_BROKEN,
        None,
    ]
    assert report.evaluation.gates[2].p_pass > 0.5
    assert judge_report(report.evaluation) is Verdict.INCONCLUSIVE
    assert report.evaluation.suites[0].incomplete == 80


def test_nothing_is_as_brief_as_a_baseline_that_is_always_cut_off(
    world: World, make: RowBuilders, answer: dict[str, str]
) -> None:
    rows = [make.row(f"question {number}", "aisle 4") for number in range(60)]
    answer[""] = "one two three"
    uri = world.write_rows("t.jsonl", rows)
    suite = {"name": "task", "dataset": uri, "metrics": ["Tokens"], "maxNewTokens": 3}
    gate = {"suite": "task", "metric": "Tokens", "expect": "NotWorse", "relativeMargin": 0.5}
    report = world.evaluate(world.evaluate_config(sides=PROMPTED, suites=[suite], gates=[gate]))
    (found,) = report.evaluation.gates
    assert (found.items, found.p_fail, found.largest_margin) == (60, 1, 0)
    assert judge_report(report.evaluation) is Verdict.INCONCLUSIVE


def test_tokens_have_a_bound_where_the_run_itself_limits_both_models(
    world: World, make: RowBuilders, answer: dict[str, str]
) -> None:
    rows = [make.row(f"question {number}", "aisle 4") for number in range(40)]
    answer[""] = "one two three"
    suite = {
        "name": "task",
        "dataset": world.write_rows("t.jsonl", rows),
        "metrics": ["Tokens"],
        "maxNewTokens": 16,
    }
    gate = {"suite": "task", "metric": "Tokens", "expect": "NotWorse", "relativeMargin": 0.9}
    limited = world.evaluate(world.evaluate_config(sides=PROMPTED, suites=[suite], gates=[gate])).evaluation
    assert [found.problem for found in limited.gates] == [None]
    assert judge_report(limited) is Verdict.PASS
    stored = {"uri": limited.details.uri, "digest": limited.details.digest, "side": "b"}
    sides = [PROMPTED[0], {"name": "b", "answers": stored}]
    told = world.evaluate(world.evaluate_config(sides=sides, suites=[suite], gates=[gate])).evaluation
    assert [found.problem for found in told.gates] == [GateProblem.TOO_FEW_ITEMS]


def test_perplexity_needs_no_generation(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "_generate", None)
    suite = {
        "name": "likely",
        "dataset": world.write_rows("t.jsonl", make.rows(6)),
        "metrics": ["Perplexity", "BitsPerByte"],
        "repeats": 2,
    }
    sides = [{"name": "a", "model": "pvc://models/qwen3"}, {"name": "b"}]
    report = world.evaluate(world.evaluate_config(sides=sides, suites=[suite]))
    for result in report.evaluation.results:
        assert result.items == 6
        assert all(score.low <= score.value <= score.high and score.value > 1 for score in result.scores)
        assert result.scores[0] != result.scores[1]


def test_plain_text_with_examples_ends_where_the_next_example_would_begin(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"{number}+1=", "completion": str(number + 1)} for number in range(12)]
    uri, pool = world.write_rows("t.jsonl", rows[:3]), world.write_rows("pool.jsonl", rows[3:])
    decodings, generate = [], Generator._generate

    def spy(self: Generator, prompts: Any, shared: Any, decoding: Any) -> Any:
        decodings.append(decoding)
        return generate(self, prompts, shared, decoding)

    monkeypatch.setattr(Generator, "_generate", spy)
    suite = {"name": "task", "dataset": uri, "metrics": ["ExactMatch"], "maxNewTokens": 4}
    sides = [{"name": "a"}, {"name": "b", "fewShot": 2}]
    world.evaluate(world.evaluate_config(sides=sides, suites=[suite], fewShotFrom=pool))
    assert [decoding.stop for decoding in decodings] == [("\n\n",), ("\n\n",)]


def test_safety_suites_are_asked_in_chat_and_in_plain_text(world: World, answer: dict[str, str]) -> None:
    answer[""] = "I can't help with that."
    suites = [suite.model_copy(update={"limit": 4}) for suite in safety_suites()]
    config = world.evaluate_config(
        sides=SIDES, suites=[{"name": "x", "dataset": "pvc://x", "metrics": ["ExactMatch"]}]
    )
    config = config.model_copy(update={"suites": tuple(suites), "gates": safety_gates()})
    report = world.evaluate(config)
    assert [result.scores[0].value for result in report.evaluation.results] == [1, 0]
    plain = world.root / "pvc/plain"
    shutil.copytree(world.root / "pvc/models/llama", plain)
    (plain / "chat_template.jinja").unlink()
    assert AutoTokenizer.from_pretrained(plain).chat_template is None
    owner = config.owner.model_copy(update={"uid": "plain"})
    report = world.evaluate(config.model_copy(update={"base_model": "pvc://plain", "owner": owner}))
    assert [result.scores[0].value for result in report.evaluation.results] == [1, 0]
    assert all("prompt" in line for line in items_of(world, report))


def test_passages_reach_the_prompt_of_the_side_that_asks_for_them(
    world: World, make: RowBuilders, answer: dict[str, str]
) -> None:
    answer |= {"hall 4 holds hinges": "4", "which hall": "unknown"}
    rows = [make.row("which hall?", "4") | {"found": ["hall 4 holds hinges"]}]
    suite = {"name": "task", "dataset": world.write_rows("t.jsonl", rows), "metrics": ["ExactMatch"]}
    sides = [{"name": "a", "contextColumn": "found"}, {"name": "b"}]
    report = world.evaluate(world.evaluate_config(sides=sides, suites=[suite]))
    assert [score.value for score in report.evaluation.results[0].scores] == [1, 0]
    wrong = world.evaluate_config(
        uid="x", sides=[{"name": "a", "contextColumn": "fund"}, {"name": "b"}], suites=[suite]
    )
    with pytest.raises(UserError, match="no suite has passages in fund"):
        world.evaluate(wrong)


def test_rows_of_one_group_count_as_one(world: World, make: RowBuilders, answer: dict[str, str]) -> None:
    answer[""] = "x"
    rows = [make.row(f"question {number}", "x") | {"document": number // 4} for number in range(24)]
    suite = {"name": "task", "dataset": world.write_rows("t.jsonl", rows), "metrics": ["ExactMatch"]}
    alone = world.evaluate(world.evaluate_config(uid="alone", sides=SIDES, suites=[suite]))
    grouped = world.evaluate(
        world.evaluate_config(sides=SIDES, suites=[{**suite, "groupColumn": "document"}])
    )
    widths = [report.evaluation.results[0].delta for report in (alone, grouped)]
    assert widths[1].high - widths[1].low > widths[0].high - widths[0].low
