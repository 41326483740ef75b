"""Labeling tasks in plain files: sheets (CSV or JSON lines) that people fill in.

A sheet contains what people see and answer. The rows are in a separate file, linked by id: nothing that a spreadsheet
does to long or unusual cells changes a row. Cells are escaped, so that no text runs as a formula.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith_data.failures import UserError
from tunesmith_data.rows.findings import Finding, quote

from .task_items import LabelItem
from .tasks import SKIP, LabelTask
from .votes import Vote

ROWS_SUFFIX = ".rows.jsonl"
_DELIMITERS = ",;\t"
#: A cell may be as long as a row.
_CELL_LIMIT = 128 * 1024 * 1024
_SAVE_ADVICE = "save the sheet as CSV in UTF-8"


@dataclass(frozen=True, slots=True)
class FilledSheet:
    """Votes and findings of a filled-in sheet; an invalid line is a finding."""

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
    """Check that the name of a sheet ends in .csv or .jsonl.

    Raises:
        UserError: it does not.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError("UnknownSheet", f"{path} is not a sheet: name a .csv or .jsonl file")


def write_sheet(path: Path, items: Sequence[LabelItem], annotator: str = "") -> bytes:
    """The bytes of a sheet with a task a line, in the form that the path's name asks for."""
    lines = [
        {
            **{"id": item.id, "prompt": item.prompt, **item.answers},
            **{"annotator": annotator, item.task.column: "", "comment": ""},
        }
        for item in items
    ]
    if path.suffix == ".jsonl":
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]))
    writer.writeheader()
    writer.writerows({name: escape_formula(cell) for name, cell in line.items()} for line in lines)
    # With the mark in front of it, spreadsheet programs take the file for UTF-8.
    return codecs.BOM_UTF8 + text.getvalue().encode()


def read_sheet(path: Path, items: Mapping[str, LabelItem]) -> FilledSheet:
    """Votes and findings of a sheet; an empty choice is no vote.

    The annotator is in the column ``annotator``, else the file's name is used.
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
    return FilledSheet(tuple(votes), tuple(findings))


def contradictions(sheets: Iterable[tuple[str, FilledSheet]]) -> list[Finding]:
    """Findings for annotators who answered the same item twice, differently."""
    first_votes: dict[tuple[str, str], Vote] = {}
    findings = []
    for name, filled in sheets:
        for vote in filled.votes:
            first = first_votes.setdefault((vote.item, vote.annotator), vote)
            if first.value != vote.value:
                found = f"{quote(first.value)} and {quote(vote.value)} by {vote.annotator} for {vote.item}"
                advice = "keep one of them, or give the annotators different names"
                findings.append(Finding("two_answers", found, advice, member="annotator").at(name, 1))
    return findings


def _read_line(
    line: _Line, name: str, items: Mapping[str, LabelItem], task: LabelTask
) -> Vote | Finding | None:
    digest = line.cells.get("id", "").strip()
    if digest not in items:
        found = quote(digest) if digest else "no id"
        advice = "keep the id as push wrote it, or name the file of rows that belongs to this sheet"
        return Finding("unknown_id", found, advice, member="id").at(name, line.number)
    written = unescape_formula(line.cells.get(task.column, ""))
    if not written.strip():
        return None
    annotator = unescape_formula(line.cells.get("annotator", "")).strip() or Path(name).stem
    comment = unescape_formula(line.cells.get("comment", "")).strip()
    if written.strip().casefold() == SKIP:
        return Vote(digest, annotator, None, comment)
    value = task.read(written)
    if isinstance(value, Finding):
        return value.at(name, line.number)
    return Vote(digest, annotator, value, comment)


def _table_lines(path: Path, name: str) -> Iterator[_Line | Finding]:
    """Lines of a table; the delimiter is the most frequent one in its header."""
    try:
        text = _decode(path.read_bytes())
    except UnicodeError as error:
        yield Finding("invalid_encoding", f"bytes that are not UTF-8 ({error})", _SAVE_ADVICE).at(name, 1)
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
            yield Finding("invalid_csv", str(error), _SAVE_ADVICE).at(name, number)
            return
        if row is None:
            break
        if not header:
            header = [column.strip().casefold() for column in row]
        elif any(cell.strip() for cell in row):
            yield _Line(number, dict(zip(header, row, strict=False)))
    if "id" not in header:
        found = f"columns {quote(header)}" if header else "nothing"
        yield Finding("missing_id", found, "keep the columns as push wrote them").at(name, 1)


def _decode(data: bytes) -> str:
    """Decoded UTF-8, or UTF-16 with a byte order mark, as spreadsheet programs write it."""
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
            yield Finding("invalid_json", str(error), "write one JSON object per line").at(name, number)
            continue
        if isinstance(value, dict):
            yield _Line(number, {str(key): _as_cell(cell) for key, cell in value.items()})
        else:
            yield Finding("data_type", quote(value), "write a JSON object per line").at(name, number)


def _as_cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


# OWASP's list for CSV injection; the last four are full-width forms that some programs take for the same.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_ESCAPED = re.compile("'+[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def escape_formula(text: str) -> str:
    """Text of a cell: an apostrophe is put before a text that a spreadsheet would run as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_formula(text: str) -> str:
    """The text of a cell that ``escape_formula`` wrote, or that a person wrote in the same way."""
    return text[1:] if _ESCAPED.match(text) else text
