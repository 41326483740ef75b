"""Conversion of ShareGPT and Alpaca rows; checks name the original members."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith_contract.sources import DataFormat
from tunesmith_data.rows.reading import DataFile, InvalidRow, RowSource
from tunesmith_data.rows.schema.canonical import canonical_row
from tunesmith_data.rows.schema.formats import ANY, EVALUATION, Purpose, detect_format
from tunesmith_data.rows.schema.row_checks import check_row

HUMAN, GPT = {"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}
USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
SYSTEM = {"role": "system", "content": "be kind"}
NO = {"role": "assistant", "content": "no"}
CALL = {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
}
PAIRS = Purpose("pairs", (DataFormat.PREFERENCE, DataFormat.SHAREGPT, DataFormat.ALPACA))
JUDGED = Purpose("judged", (DataFormat.UNPAIRED_PREFERENCE, *PAIRS.formats))
PROMPTS = Purpose("prompts", (DataFormat.PROMPT, *EVALUATION.formats), prompts_only=True)
FUNCTION = {"name": "f", "parameters": {}}


@pytest.mark.parametrize(
    ("purpose", "row", "expected"),
    [
        (EVALUATION, {"conversations": [HUMAN, GPT], "id": 1}, {"messages": [USER, ASSISTANT]}),
        (
            EVALUATION,
            {"conversations": [HUMAN, GPT], "system": "be kind"},
            {"messages": [SYSTEM, USER, ASSISTANT]},
        ),
        (EVALUATION, {"conversations": [USER, ASSISTANT]}, {"messages": [USER, ASSISTANT]}),
        (
            EVALUATION,
            {
                "conversations": [HUMAN, CALL, {"from": "observation", "value": "2"}, GPT],
                "tools": json.dumps([FUNCTION]),
            },
            {
                "messages": [USER, CALLED, {"role": "tool", "content": "2"}, ASSISTANT],
                "tools": [{"type": "function", "function": FUNCTION}],
            },
        ),
        (PROMPTS, {"conversations": [HUMAN, GPT]}, {"prompt": [USER], "answer": "hello"}),
        (
            PAIRS,
            {"conversations": [HUMAN], "chosen": GPT, "rejected": NO},
            {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [NO]},
        ),
        (
            JUDGED,
            {"conversations": [HUMAN, GPT], "kto_tag": False},
            {"prompt": [USER], "completion": [ASSISTANT], "label": False},
        ),
        (EVALUATION, {"instruction": "hi", "input": "", "output": "hello"}, {"messages": [USER, ASSISTANT]}),
        (
            EVALUATION,
            {
                "instruction": "a",
                "input": "b",
                "output": "hello",
                "history": [["hi", "no"]],
                "system": "be kind",
            },
            {"messages": [SYSTEM, USER, NO, {"role": "user", "content": "a\nb"}, ASSISTANT]},
        ),
        (PROMPTS, {"instruction": "hi", "output": "hello"}, {"prompt": [USER], "answer": "hello"}),
        (
            PAIRS,
            {"instruction": "hi", "chosen": "hello", "rejected": "no"},
            {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [NO]},
        ),
        (
            JUDGED,
            {"instruction": "hi", "output": "hello", "kto_tag": True},
            {"prompt": [USER], "completion": [ASSISTANT], "label": True},
        ),
    ],
)
def test_rows_of_others_become_canonical_ones(purpose: Purpose, row: Any, expected: Any) -> None:
    data_format = detect_format(row, purpose)
    assert data_format is (DataFormat.SHAREGPT if "conversations" in row else DataFormat.ALPACA)
    assert check_row(row, data_format, purpose) == []
    assert canonical_row(row, data_format, purpose) == expected


SHAREGPT_CASES: list[tuple[Purpose, Any, str, str]] = [
    (ANY, {"conversations": []}, "missing_messages_list", "conversations"),
    (ANY, {"conversations": [HUMAN]}, "example_missing_assistant_message", "conversations"),
    (ANY, {"conversations": ["hi", GPT]}, "data_type", "conversations[0]"),
    (ANY, {"conversations": [{"value": "hi"}, GPT]}, "message_missing_key", "conversations[0]"),
    (
        ANY,
        {"conversations": [HUMAN | {"weight": 0}, GPT]},
        "message_unrecognized_key",
        "conversations[0].weight",
    ),
    (ANY, {"conversations": [HUMAN | {"from": "bot"}, GPT]}, "unrecognized_role", "conversations[0].from"),
    (ANY, {"conversations": [HUMAN | {"from": ["x"]}, GPT]}, "unrecognized_role", "conversations[0].from"),
    (ANY, {"conversations": [HUMAN, GPT | {"value": 3}]}, "missing_content", "conversations[1].value"),
    (
        ANY,
        {"conversations": [HUMAN, GPT | {"value": ""}], "system": "x"},
        "missing_content",
        "conversations[1].value",
    ),
    (
        ANY,
        {"conversations": [USER, ASSISTANT | {"content": ""}]},
        "missing_content",
        "conversations[1].content",
    ),
    (
        ANY,
        {"conversations": [USER, ASSISTANT | {"role": "bot"}, GPT]},
        "unrecognized_role",
        "conversations[1].role",
    ),
    (ANY, {"conversations": [HUMAN, CALL | {"value": "{"}, GPT]}, "data_type", "conversations[1].value"),
    (ANY, {"conversations": [HUMAN, CALL | {"value": "[1]"}, GPT]}, "data_type", "conversations[1].value"),
    (ANY, {"conversations": [HUMAN, GPT], "tools": "none"}, "data_type", "tools"),
    (ANY, {"conversations": [HUMAN, GPT], "system": 3}, "missing_system", "system"),
    (ANY, {"conversations": [SYSTEM, HUMAN, GPT], "system": "x"}, "mixed_forms", "system"),
    (PAIRS, {"conversations": [HUMAN], "chosen": GPT}, "missing_rejected", "rejected"),
    (
        PAIRS,
        {"conversations": [HUMAN, GPT], "chosen": GPT, "rejected": NO},
        "prompt_ends_with_answer",
        "conversations[1].value",
    ),
    (PAIRS, {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT}, "same_answers", "rejected"),
    (
        PAIRS,
        {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT | {"value": 1}},
        "missing_content",
        "rejected.value",
    ),
    (JUDGED, {"conversations": [HUMAN, GPT], "kto_tag": "yes"}, "missing_label", "kto_tag"),
]
ALPACA_CASES: list[tuple[Purpose, Any, str, str]] = [
    (ANY, {"instruction": 3, "output": "b"}, "missing_instruction", "instruction"),
    (ANY, {"instruction": "a", "input": ["b"], "output": "b"}, "missing_input", "input"),
    (ANY, {"instruction": "a", "output": None}, "missing_output", "output"),
    (ANY, {"instruction": "a", "output": " "}, "missing_content", "output"),
    (ANY, {"instruction": "a", "output": "b", "history": ["q"]}, "data_type", "history"),
    (ANY, {"instruction": "a", "output": "b", "history": [["q", ""]]}, "missing_content", "history[0][1]"),
    (PAIRS, {"instruction": "a", "chosen": "b", "rejected": ""}, "missing_rejected", "rejected"),
]


@pytest.mark.parametrize(
    ("data_format", "purpose", "row", "check", "member"),
    [
        *[(DataFormat.SHAREGPT, *case) for case in SHAREGPT_CASES],
        *[(DataFormat.ALPACA, *case) for case in ALPACA_CASES],
    ],
)
def test_a_check_names_the_member_that_was_written(
    data_format: DataFormat, purpose: Purpose, row: Any, check: str, member: str
) -> None:
    (finding,) = check_row(row, data_format, purpose)
    assert (finding.check, finding.member) == (check, member)
    assert finding.found and finding.advice


@pytest.mark.parametrize("data_format", [DataFormat.SHAREGPT, DataFormat.ALPACA])
@pytest.mark.parametrize("purpose", [ANY, EVALUATION, PAIRS, JUDGED, PROMPTS])
@pytest.mark.parametrize("value", [None, 1, "a", [], {}, [None], [{}], [[]], {"a": []}, True])
def test_any_value_in_any_member_is_taken_or_named(
    data_format: DataFormat, purpose: Purpose, value: Any
) -> None:
    base = {"conversations": [HUMAN, GPT], "instruction": "a", "output": "b"}
    for member in (*base, "system", "tools", "chosen", "rejected", "kto_tag", "input", "history"):
        row = base | {member: value}
        if not check_row(row, data_format, purpose):
            assert canonical_row(row, data_format, purpose)


def test_pairs_and_judged_answers_do_not_mix_in_one_source(tmp_path: Path) -> None:
    rows = [
        {"instruction": "hi", "output": "hello", "kto_tag": True},
        {"instruction": "hi", "chosen": "hello", "rejected": "no"},
    ]
    (tmp_path / "r").write_text("\n".join(map(json.dumps, rows)))
    _, second = RowSource([DataFile(tmp_path / "r", "r")], DataFormat.AUTO, JUDGED)
    assert isinstance(second, InvalidRow)
    assert str(second.findings[0]).startswith(
        "r:2: mixed_forms: found a pair of answers among rows with one answer"
    )
