"""Rows read, checked, split and stored, without loss and with stable sides."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from rows.stored_rows import store_rows

from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import DataError
from tunesmith_data.rows.reading import read_source
from tunesmith_data.rows.schema.canonical import canonical_row
from tunesmith_data.rows.table.parquet import read_rows

USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "hello"}
GOOD = {"messages": [USER, ASSISTANT]}
CALL = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}

CHAT_CASES: list[tuple[str, Any]] = [
    ("data_type", [1]),
    ("data_type", {"messages": ["hi", ASSISTANT]}),
    ("data_type", {"messages": [USER, ASSISTANT], "tools": "none"}),
    (
        "data_type",
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]},
    ),
    ("missing_messages_list", {"text": "hi"}),
    ("missing_messages_list", {"messages": []}),
    ("message_missing_key", {"messages": [{"content": "hi"}, ASSISTANT]}),
    ("message_missing_key", {"messages": [USER, {"role": "assistant"}]}),
    ("message_unrecognized_key", {"messages": [USER, ASSISTANT | {"mood": "good"}]}),
    ("unrecognized_role", {"messages": [{"role": "bot", "content": "hi"}, ASSISTANT]}),
    ("missing_content", {"messages": [USER, {"role": "assistant", "content": None}]}),
    ("missing_content", {"messages": [USER, {"role": "assistant", "content": " "}]}),
    ("missing_content", {"messages": [USER | {"content": [{"type": "text", "text": "hi"}]}, ASSISTANT]}),
    ("example_missing_assistant_message", {"messages": [USER]}),
]


@pytest.mark.parametrize(("check", "row"), CHAT_CASES)
def test_each_check_names_file_line_and_what_to_write(tmp_path: Path, check: str, row: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps(row)}\n")
    source = read_source(path, DataFormat.AUTO)
    (finding,) = source.findings
    assert (finding.place.file, finding.place.line, finding.check) == ("rows.jsonl", 3, check)
    assert finding.found
    assert finding.advice
    assert [(invalid.line, invalid.row) for invalid in source.invalid] == [(3, row)]
    assert len(source.rows) == 1


@pytest.mark.parametrize(
    ("check", "row"),
    [
        ("missing_prompt", {"completion": "x"}),
        ("missing_prompt", {"prompt": 3, "completion": "x"}),
        ("missing_completion", {"prompt": "x"}),
        ("missing_completion", {"prompt": "x", "completion": ""}),
    ],
)
def test_checks_of_prompt_completion(tmp_path: Path, check: str, row: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (finding,) = read_source(path, DataFormat.PROMPT_COMPLETION).findings
    assert finding.check == check


@pytest.mark.parametrize(
    ("check", "text", "line"),
    [
        ("invalid_json", b'{"messages": [}', 2),
        ("invalid_json", b'{"messages": NaN}', 2),
        ("nested_too_deeply", b"[" * 100_000, 2),
        ("invalid_encoding", b'{"messages": "\xff"}', 2),
        ("invalid_encoding", b'{"messages": "\\ud800"}', 2),
    ],
)
def test_bad_bytes_are_findings(tmp_path: Path, check: str, text: bytes, line: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\r\n" + text)
    (finding,) = read_source(path, DataFormat.AUTO).findings
    assert (finding.check, finding.place.line) == (check, line)


@pytest.mark.parametrize(
    ("data", "check"),
    [
        (b"\n \n", "empty_file"),
        (b"[]", "empty_file"),
        (b"\x1f\x8bgarbage", "damaged_file"),
        (b'{"words": "x"}', "unknown_format"),
        (b"3", "data_type"),
    ],
)
def test_files_without_rows_of_a_known_format(tmp_path: Path, data: bytes, check: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=check):
        read_source(path, DataFormat.AUTO)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        (json.dumps(GOOD) + ",", "leave out the comma after the row"),
        (json.dumps(GOOD) + json.dumps(GOOD), "each object on a line of its own"),
        (json.dumps(GOOD) + "\r" + json.dumps(GOOD), "a line feed, not with a carriage return"),
        ("{'prompt': 'a', 'completion': 'b'}", "double quotes around keys and texts"),
        ('{"prompt": None, "completion": "b"}', "null, true and false"),
        ('{"prompt": "a", "completion": "b",}', "leave out the comma before it"),
        ('{"prompt": "a", "completion": ["b",]}', "leave out the comma before it"),
        ('{"prompt": "a\tb", "completion": "b"}', "as \\n and \\t"),
        ('{"prompt": "a\\d", "completion": "b"}', "a backslash as \\\\"),
        ('{"prompt": "a", "completion": "b', "may have been cut off"),
        ('{"prompt": "a", "completion":', "may have been cut off"),
        ('{"prompt": "a" "completion": "b"}', "write one JSON object per line"),
    ],
)
def test_what_people_write_by_mistake_is_told_with_what_to_write(
    tmp_path: Path, line: str, advice: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f"{json.dumps(GOOD)}\n{line}\n".encode())
    (finding,) = read_source(path, DataFormat.AUTO).findings
    assert (finding.place.line, finding.check) == (2, "invalid_json")
    assert advice in finding.advice


def test_array_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    bad = {"messages": [USER]}
    text = f"[{json.dumps(GOOD)},\n\n{json.dumps(bad)} , {json.dumps(GOOD, indent=1)}\n]"
    path = tmp_path / "rows.json.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.encode()))
    source = read_source(path, DataFormat.AUTO)
    assert [row.line for row in source.rows] == [1, 3]
    assert [finding.place.line for finding in source.findings] == [3]


def test_tool_calls_survive_parquet_with_arguments_as_objects(tmp_path: Path) -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    answer = {"role": "tool", "name": "f", "content": "2", "tool_call_id": "1"}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "integer"}}}}]
    row = canonical_row({"messages": [USER, called, answer, ASSISTANT], "tools": tools}, DataFormat.CHAT)
    rows = [row, canonical_row(GOOD | {"id": 7}, DataFormat.CHAT)]
    store_rows(tmp_path / "x.parquet", rows)
    assert read_rows(tmp_path / "x.parquet") == rows
    assert rows[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    assert rows[1] == GOOD
