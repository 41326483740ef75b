"""Tasks in plain files: a sheet (CSV, for spreadsheets) or JSON lines, which people fill in.

A sheet holds what people see and what they say. What it stands for lies in a file of rows beside it, by id: nothing
that a spreadsheet does to long or odd cells changes a row.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith_data.failures import UserError
from tunesmith_data.rows.findings import Finding, Problem, quote

from .spreadsheet_cells import guard, unguard
from .task_items import Item
from .tasks import SKIP, Task
from .votes import Vote

ROWS_SUFFIX = ".rows.jsonl"
_DELIMITERS = ",;\t"
#: A cell may be as long as a row.
_CELL_LIMIT = 128 * 1024 * 1024
_SAVE_ADVICE = "save the sheet as CSV in UTF-8"


@dataclass(frozen=True, slots=True)
class Filled:
    """What a filled-in sheet says; a line that is wrong is a finding and no vote."""

    votes: tuple[Vote, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a sheet by its columns, and its number, the header's being 1."""

    number: int
    cells: Mapping[str, str]


def rows_path(sheet: Path) -> Path:
    """The file of rows beside a sheet."""
    return sheet.with_name(sheet.stem + ROWS_SUFFIX)


def sheet_path(sheet: Path, annotator: str) -> Path:
    """The sheet of one annotator, ``tasks-anna.csv`` for ``tasks.csv``."""
    return sheet.with_name(f"{sheet.stem}-{annotator}{sheet.suffix}")


def require_sheet(path: Path) -> None:
    """A sheet is known by its name.

    Raises:
        UserError: it is neither CSV nor JSONL.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError("UnknownSheet", f"{path} is no sheet: name a .csv or .jsonl file")


def write_sheet(path: Path, items: Sequence[Item], annotator: str = "") -> bytes:
    """The bytes of a sheet with a task a line, in the form that the path's name asks for."""
    lines = [_columns(item, annotator) for item in items]
    if path.suffix == ".jsonl":
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]))
    writer.writeheader()
    writer.writerows({name: guard(cell) for name, cell in line.items()} for line in lines)
    # With the mark in front of it, spreadsheet programs take the file for UTF-8.
    return codecs.BOM_UTF8 + text.getvalue().encode()


def read_sheet(path: Path, items: Mapping[str, Item]) -> Filled:
    """What people wrote into a sheet; an empty choice is no vote.

    Who answered is said by the column ``annotator``, else by the file's name.
    """
    name, votes, findings = path.name, [], []
    lines = _json_lines(path, name) if path.suffix == ".jsonl" else _table_lines(path, name)
    task = next(iter(items.values())).task
    for line in lines:
        read = line if isinstance(line, Finding) else _read_line(line, name, items, task)
        if isinstance(read, Vote):
            votes.append(read)
        elif read is not None:
            findings.append(read)
    return Filled(tuple(votes), tuple(findings))


def contradictions(sheets: Iterable[tuple[str, Filled]]) -> list[Finding]:
    """Who answers the same task twice, and differently."""
    said: dict[tuple[str, str], Vote] = {}
    findings = []
    for name, filled in sheets:
        for vote in filled.votes:
            first = said.setdefault((vote.item, vote.annotator), vote)
            if first.value != vote.value:
                found = f"{quote(first.value)} and {quote(vote.value)} by {vote.annotator} for {vote.item}"
                advice = "keep one of them, or name the annotators apart"
                findings.append(Problem("two_answers", found, advice, member="annotator").at(name, 1))
    return findings


def _columns(item: Item, annotator: str) -> dict[str, str]:
    seen = {"id": item.id, "prompt": item.prompt, **item.answers}
    return {**seen, "annotator": annotator, item.task.column: "", "comment": ""}


def _read_line(line: _Line, name: str, items: Mapping[str, Item], task: Task) -> Vote | Finding | None:
    digest = line.cells.get("id", "").strip()
    if digest not in items:
        found = quote(digest) if digest else "no id"
        advice = "keep the id as push wrote it, or name the file of rows that belongs to this sheet"
        return Problem("unknown_id", found, advice, member="id").at(name, line.number)
    written = unguard(line.cells.get(task.column, ""))
    if not written.strip():
        return None
    annotator = unguard(line.cells.get("annotator", "")).strip() or Path(name).stem
    comment = unguard(line.cells.get("comment", "")).strip()
    if written.strip().casefold() == SKIP:
        return Vote(digest, annotator, None, comment)
    value = task.read(written)
    if isinstance(value, Problem):
        return value.at(name, line.number)
    return Vote(digest, annotator, value, comment)


def _table_lines(path: Path, name: str) -> Iterator[_Line | Finding]:
    """Lines of a table; its delimiter is the one that its header holds most of."""
    try:
        text = _decode(path.read_bytes())
    except UnicodeError as error:
        yield Problem("invalid_encoding", f"bytes that are not UTF-8 ({error})", _SAVE_ADVICE).at(name, 1)
        return
    head = text.split("\n", 1)[0]
    csv.field_size_limit(_CELL_LIMIT)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=head.count), strict=True)
    header: list[str] = []
    number = 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield Problem("invalid_csv", str(error), _SAVE_ADVICE).at(name, number)
            return
        if row is None:
            break
        if not header:
            header = [column.strip().casefold() for column in row]
        elif any(cell.strip() for cell in row):
            yield _Line(number, dict(zip(header, row, strict=False)))
    if "id" not in header:
        found = f"columns {quote(header)}" if header else "nothing"
        yield Problem("missing_id", found, "keep the columns as push wrote them").at(name, 1)


def _decode(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 where its mark says so, as spreadsheet programs write it."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def _json_lines(path: Path, name: str) -> Iterator[_Line | Finding]:
    for number, data in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not data.strip():
            continue
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            yield Problem("invalid_json", str(error), "write one JSON object per line").at(name, number)
            continue
        if isinstance(value, dict):
            yield _Line(number, {str(key): _as_cell(cell) for key, cell in value.items()})
        else:
            yield Problem("data_type", quote(value), "write a JSON object per line").at(name, number)


def _as_cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)
