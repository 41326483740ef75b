"""Items from files: formats, columns, groups, slices, passages, calls, sampling."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith_contract.evaluation import Suite
from tunesmith_data.failures import DataError
from tunesmith_data.rows.data_files import DataFile
from tunesmith_evaluation.items.item import EvaluationItem, items_digest, make_item
from tunesmith_evaluation.items.reading import read_items, sample_items
from tunesmith_evaluation.metrics.json_scorers import JSONFields
from tunesmith_evaluation.metrics.text_scorers import ExactMatch
from tunesmith_evaluation.metrics.tool_call_scorer import ToolCall

TOOL = {"type": "function", "function": {"name": "stock_level", "parameters": {"type": "object"}}}


def chat(question: str, answer: str, system: str = "") -> dict[str, Any]:
    """Chat row."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": [{"role": "system", "content": system}, *turns] if system else turns}


def call_row(article: str) -> dict[str, Any]:
    """Row whose expected answer is a call of a tool, as OpenAI writes it."""
    arguments = json.dumps({"article": article})
    call = {"id": "c", "type": "function", "function": {"name": "stock_level", "arguments": arguments}}
    turns = [
        {"role": "user", "content": f"How many of {article} are left?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    return {"messages": turns, "tools": [TOOL]}


class Files:
    """Files of rows in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(
        self, rows: list[Any], *, metrics: dict[str, Any] | None = None, **more: Any
    ) -> list[EvaluationItem]:
        """Items of rows."""
        contexts = more.pop("contexts", ())
        path = self._folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        suite = Suite.model_validate(
            {"name": "s", "dataset": "pvc://d/rows.jsonl", "metrics": ["ExactMatch"], **more}
        )
        return read_items([DataFile(path, "rows.jsonl")], suite, metrics, contexts).items


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_columns_may_be_nested_members(files: Files) -> None:
    rows = [{"input": {"question": "two and two"}, "target": "4", "prompt": 7}]
    (item,) = files.read(rows, columns={"prompt": "input.question", "completion": "target"})
    assert (item.text, item.expected.text, item.line) == ("two and two", "4", 1)
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (item,) = files.read([{"dialog": turns}], columns={"conversations": "dialog"}, format="ShareGPT")
    assert (item.question.text, item.expected.text) == ("q", "a")
    with pytest.raises(DataError, match=r'input.question: found keys .*by columns it is the "prompt"'):
        files.read(
            [{"input": {}, "target": "4"}], columns={"prompt": "input.question", "completion": "target"}
        )


def test_the_format_can_be_given(files: Files) -> None:
    row = {"instruction": "add", "input": "2 2", "output": "4", "messages": "notes"}
    (item,) = files.read([row], format="Alpaca")
    assert (item.question.text, item.expected.text) == ("add\n2 2", "4")


def test_a_call_is_an_expected_answer_for_the_metric_that_compares_calls(files: Files) -> None:
    rows = [call_row("hinge-00"), call_row("bolt-01")]
    items = files.read(rows, metrics={"calls": ToolCall()})
    assert [item.expected.tool_calls[0].arguments for item in items] == [
        {"article": "hinge-00"},
        {"article": "bolt-01"},
    ]
    assert items[0].expected.text == ""
    assert items[0].tools == (TOOL,)
    for metric in (ExactMatch(), JSONFields()):
        with pytest.raises(
            DataError,
            match=r"rows.jsonl:1: .*row 1 is a call of a tool, which ToolCall alone can compare; m can't",
        ):
            files.read(rows, metrics={"m": metric})


def test_expected_answers_must_fit_the_metric(files: Files) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:2: expected_answer.*"):
        files.read([chat("q", '{"a": 1}'), chat("r", "no")], metrics={"fields": JSONFields()})


def test_nothing_asked_is_no_item(files: Files) -> None:
    row = {"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]}
    with pytest.raises(DataError, match="nothing is asked before it"):
        files.read([row])


def test_groups_slices_and_passages_come_from_columns(files: Files) -> None:
    rows = [
        chat("a", "1") | {"meta": {"document": 7, "language": "de"}, "found": ["first", "second"]},
        chat("b", "2") | {"meta": {"document": 7, "language": "en"}, "found": "alone"},
        chat("c", "3") | {"meta": {"document": 8, "language": "en"}, "found": []},
    ]
    settings: dict[str, Any] = {
        "groupColumn": "meta.document",
        "sliceColumns": ["meta.language"],
        "contexts": ["found"],
    }
    items = files.read(rows, **settings)
    assert [item.group for item in items] == ["7", "7", "8"]
    assert [item.slices["meta.language"] for item in items] == ["de", "en", "en"]
    assert [item.passages["found"] for item in items] == [("first", "second"), ("alone",), ()]
    assert items[0].expected_with("found").passages == ("first", "second")
    assert items[0].expected_with(None).passages == ()
    for column, value in (
        ("meta", {"language": "de"}),
        ("meta", {"document": 7}),
        ("found", 3),
        ("found", None),
    ):
        with pytest.raises(DataError, match=r"rows.jsonl:2: missing_field"):
            files.read([rows[0], rows[1] | {column: value}], **settings)


def test_a_suite_may_lack_passages_as_a_whole(files: Files) -> None:
    assert files.read([chat("a", "1"), chat("b", "2")], contexts=["found"])[0].passages == {"found": ()}


def test_other_passages_are_another_item(files: Files) -> None:
    rows = [chat("a", "1") | {"found": "x"}, chat("a", "1") | {"found": "y"}, chat("a", "1") | {"found": "y"}]
    assert len({item.digest for item in files.read(rows, contexts=["found"])}) == 2


def test_equal_numbers_are_one_group_however_they_are_written(files: Files) -> None:
    values = [2, 2.0, "2", 2.5, "2.0", -0.0, 0, 1e300]
    rows = [chat(f"question {number}", "a") | {"case": value} for number, value in enumerate(values)]
    items = files.read(rows, groupColumn="case")
    assert [item.group for item in items] == ["2", "2", "2", "2.5", "2.0", "0", "0", "1e+300"]


def test_items_of_one_question_share_a_group(files: Files) -> None:
    items = files.read(
        [chat("same", "1"), chat("same", "2", "You are brief."), chat("other", "3"), chat("other", "3")]
    )
    assert [item.expected.text for item in items] == ["1", "2", "3"]
    assert items[0].group == items[1].group is not None
    assert items[2].group is None


def test_a_question_that_is_written_in_another_way_is_the_same(files: Files) -> None:
    """Six questions with a blank more or less are six questions, and not a hundred."""
    written = ["How late is it?", "how late is it", "  How  late is it ?!", "How late is it?"]
    others = ["How late is he?", "How late is it + 1?", "How late is it + 2?", "🙂", "🙃"]
    items = files.read([chat(text, str(number)) for number, text in enumerate([*written, *others])])
    assert len({item.group for item in items[:4]}) == 1
    assert items[0].group is not None
    assert [item.group for item in items[4:]] == [None] * 5


def test_reference_data_of_metrics_comes_along(files: Files) -> None:
    more = {"tests": "assert f(1) == 2", "json_schema": {"type": "object"}, "refuses": True}
    (item,) = files.read([chat("a", "1") | more])
    assert (item.expected.tests, item.expected.json_schema, item.expected.refuses) == (
        "assert f(1) == 2",
        '{"type": "object"}',
        True,
    )
    with pytest.raises(DataError, match="refuses"):
        files.read([chat("a", "1") | {"refuses": "yes"}])


def test_all_bad_rows_are_told_at_once(files: Files) -> None:
    with pytest.raises(DataError, match="3 checks failed"):
        files.read([{"messages": []}, chat("a", "1"), {"messages": 3}, 7])
    with pytest.raises(DataError):
        files.read([])


def test_a_sample_is_chosen_by_content(files: Files) -> None:
    items = files.read([chat(f"question {number}", "a") for number in range(30)])
    chosen = sample_items(items, 10, seed=1)
    assert len(chosen) == 10
    shuffled = items[::-1]
    assert {item.digest for item in sample_items(shuffled, 10, seed=1)} == {item.digest for item in chosen}
    assert sample_items(items, 10, seed=2) != chosen
    assert sample_items(items, None, seed=1) == sample_items(items, 30, seed=1) == items
    assert items_digest(chosen) != items_digest(items)


@pytest.mark.parametrize(
    ("strict", "lenient"),
    [
        ({"tests": "assert double(2) == 4"}, {"tests": "assert True"}),
        ({"json_schema": {"type": "object", "required": ["a"]}}, {"json_schema": {}}),
        ({"refuses": True}, {"refuses": False}),
        ({"document": "one"}, {"document": "two"}),
    ],
)
def test_what_scores_depend_on_beside_the_row_is_in_the_digest_of_the_items(
    files: Files, strict: dict[str, Any], lenient: dict[str, Any]
) -> None:
    def digest(members: dict[str, Any]) -> str:
        column: dict[str, Any] = {"groupColumn": "document"} if "document" in members else {}
        return items_digest(files.read([chat("Double a number.", "def double(n): ...") | members], **column))

    assert digest(strict) == digest(strict)
    assert digest(strict) != digest(lenient)


def test_the_last_turn_of_the_assistant_is_the_expected_answer() -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "<think>hm</think>second"},
        {"role": "user", "content": "thanks"},
    ]
    item = make_item({"messages": turns})
    assert (item.question.text, item.expected.text) == ("b", "second")
    assert len(item.messages) == 3


def test_repeated_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [chat("one", "1"), chat("two", "2"), chat("one", "1"), chat("one", "1")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = Suite.model_validate({"name": "s", "dataset": "pvc://d/rows.jsonl", "metrics": ["ExactMatch"]})
    read = read_items([DataFile(path, "rows.jsonl")], suite)
    assert ([item.line for item in read.items], read.repeated) == ([1, 2], 2)


def test_metrics_that_cannot_compare_a_call_are_named_in_one_sentence(files: Files) -> None:
    scorers = {"ExactMatch": ExactMatch(), "fields": JSONFields(), "calls": ToolCall()}
    with pytest.raises(DataError) as failure:
        files.read([call_row("hinges"), call_row("screws")], metrics=scorers)
    lines = failure.value.message.splitlines()
    assert lines[0] == "2 checks failed:"
    assert len(lines) == 3
    assert lines[1].endswith(
        "found the expected answer of row 1 is a call of a tool, which ToolCall alone can compare; "
        "ExactMatch and fields can't score this row"
    )
