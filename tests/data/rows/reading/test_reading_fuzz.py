"""Readers on thousands of damaged files: each is read, or rejected with place and reason."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import re
import resource
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from long_form import cases

from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import DataError
from tunesmith_data.rows.reading import DataFile, InvalidRow, RowSource, SourceRow
from tunesmith_data.rows.schema.canonical import canonical_row

FILES_OF_A_BATCH = 500
BATCHES = cases(4, 200)
#: Generous, since the machine may be busy: a file that takes so long is one that a loop never leaves.
SECONDS = 20.0
GROWTH_BYTES = 256 * 2**20

USER, ASSISTANT = (
    {"role": "user", "content": "grüß\n dich"},
    {"role": "assistant", "content": "hello, {you}: [1]"},
)
CALL = {"type": "function", "function": {"name": "f", "arguments": '{"x": [1, 2.5, null]}'}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "array"}}}}]
CALLED = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "2"},
    ASSISTANT,
]
TURNS = [
    {"from": "human", "value": "hi"},
    {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
]
ROWS: list[list[dict[str, Any]]] = [
    [{"messages": [USER, ASSISTANT], "id": 7}] * 3,
    [{"messages": CALLED, "tools": TOOLS}] * 2,
    [{"prompt": "a, b", "completion": 'he said "c"'}, {"prompt": "d\ne", "completion": "[1]"}] * 3,
    [{"prompt": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "no"}]}] * 2,
    [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "c", "completion": "d", "label": False}]
    * 2,
    [{"conversations": [*TURNS, {"from": "gpt", "value": "ok"}], "system": "be kind", "tools": "[]"}] * 2,
    [{"instruction": "add", "input": "1 2", "output": "3", "history": [["q", "a"]]}] * 3,
    [{"text": "one\n\ntwo"}, {"text": "three"}],
]
TOKENS = [
    *(
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\r",
        b"\n",
        b"\r\n",
        b"\t",
        b" ",
    ),
    *(
        b'"',
        b'""',
        b"\\",
        b"\\u",
        b"\\ud800",
        b"\\u003a",
        b"'",
        b",",
        b":",
        b"[",
        b"]",
        b"{",
        b"}",
        b"[[",
        b"{}",
        b"#",
    ),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 30,
        b"null",
        b"true",
        b"-",
        b"0",
        b'"messages":',
        b'{"a":1,"a":2}',
        b"[" * 99,
    ),
    *(b"PAR1", b"PK\x03\x04", b"\x1f\x8b", b"%PDF", b"# Title\n", b"```\n", b"x" * 3000, b"\xf0\x9f\x98\x80"),
]


def as_jsonl(rows: list[Any]) -> bytes:
    return b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows)


def as_array(rows: list[Any]) -> bytes:
    return json.dumps(rows, indent=len(rows) % 2 or None).encode()


def as_table(rows: list[Any]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0].keys())
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
        )
    return buffer.getvalue().encode()


def as_parquet(rows: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def as_text(rows: list[Any]) -> bytes:
    return b"# Title\n\n" + b"\n\n".join(json.dumps(row, indent=1).encode() for row in rows)


def as_zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.jsonl", "b.txt"):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


KINDS: dict[str, Callable[[list[Any]], bytes]] = {
    ".jsonl": as_jsonl,
    ".json": as_array,
    ".csv": as_table,
    ".parquet": as_parquet,
    ".txt": as_text,
    ".md": as_text,
}
COMPRESSED: list[tuple[str, Callable[[bytes], bytes]]] = [
    *[("", bytes)] * 5,
    (".gz", lambda data: gzip.compress(data, mtime=0)),
    (".bz2", bz2.compress),
    (".xz", lzma.compress),
    (".zst", zstandard.compress),
    (".zip", as_zip),
]


def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """One damage: a flip, a cut, an insertion, a deletion, a repetition, a piece of another file."""
    at, length = chance.randrange(len(data) + 1), chance.randrange(1, 40)
    match chance.randrange(6):
        case 0 if data:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + chance.choice(TOKENS) + data[at:]
        case 3:
            return data[:at] + data[at + length :]
        case 4:
            return data[:at] + data[at : at + length] * chance.randrange(2, 5) + data[at:]
    return data[:at] + other[chance.randrange(len(other) + 1) :][: chance.randrange(1, 400)] + data[at:]


def damaged_files(batch: int) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of a batch, always the same."""
    chance = random.Random(f"batch {batch}")
    for number in range(FILES_OF_A_BATCH):
        (suffix, write), rows = chance.choice(list(KINDS.items())), chance.choice(ROWS)
        packed_suffix, pack = chance.choice(COMPRESSED)
        data, other = write(rows), as_jsonl(chance.choice(ROWS))
        outside = packed_suffix and chance.random() < 0.5
        data = pack(data) if outside else data
        for _ in range(chance.randrange(1, 4)):
            data = mutate(data, other, chance)
        yield f"{batch}-{number}{suffix}{packed_suffix}", data if outside else pack(data)


def check_refusal(refused: InvalidRow, name: str) -> None:
    assert refused.findings
    for finding in refused.findings:
        assert finding.place.file.startswith(name) and finding.place.line >= 1
        assert (finding.place.column or 1) >= 1
        assert finding.check and finding.found and finding.advice
        assert str(finding).encode() and "\n" not in str(finding)


def check_jsonl(outcomes: list[SourceRow | InvalidRow], source: RowSource, data: bytes) -> None:
    """Every line with something on it is a row, and says what any parser finds in it."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert [each.line for each in outcomes] == [
        number for number, line in enumerate(lines, start=1) if line.strip()
    ]
    for each in outcomes:
        if isinstance(each, SourceRow):
            assert each.row == canonical_row(json.loads(lines[each.line - 1]), source.data_format)


def check_file(path: Path, name: str, data: bytes) -> bool:
    """Whether a file was read to its end."""
    path.write_bytes(data)
    source = RowSource([DataFile(path, name)], DataFormat.AUTO)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: list[SourceRow | InvalidRow] = []
    failure: DataError | None = None
    try:
        outcomes.extend(source)
    except DataError as error:
        failure = error
    if failure:
        assert failure.reason in ("UnreadableFile", "UnknownFormat", "WrongFormat")
        assert re.search(rf"{re.escape(name)}[^\n]*(:[0-9]+|holds)", failure.message), failure.message
    else:
        assert sum(file.rows + file.refused for file in source.files) == len(outcomes) > 0
        if [file.format for file in source.files] == ["JSONL"]:
            check_jsonl(outcomes, source, data)
    for each in outcomes:
        if isinstance(each, InvalidRow):
            check_refusal(each, name)
    assert time.monotonic() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GROWTH_BYTES
    return failure is None


@pytest.mark.many_cases
@pytest.mark.parametrize("batch", range(BATCHES))
def test_damaged_files_are_read_or_refused(tmp_path: Path, batch: int) -> None:
    read = 0
    for name, data in damaged_files(batch):
        try:
            read += check_file(tmp_path / "file", name, data)
        except Exception as error:
            raise AssertionError(f"{name}: {data[:2000]!r}") from error
    assert 0.2 < read / (FILES_OF_A_BATCH) < 0.9
