"""Reads JSONL, JSON and text files, gzipped or not, row by row with line numbers."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tunesmith_contract.run_config import DataFormat
from tunesmith_trainer.failures import DataError

from .canonical import canonical_row
from .checks import Finding, check_row
from .formats import ANY, Purpose, Row, describe_members, detect_format, is_conversational, methods_for
from .messages import Problem, quote
from .passages import divide_text, is_text_file

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_SHOWN_FINDINGS = 5
_JSON_ADVICE = "write one JSON object per line"


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row that passed its checks, in canonical form, and where it came from."""

    file: str
    line: int
    row: Row


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row as it was read (None for what is no JSON), and all that is wrong with it."""

    line: int
    row: Any
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """What a file holds: ``rows`` and ``refused`` together are all rows of the file."""

    name: str
    data_format: DataFormat
    rows: tuple[SourceRow, ...]
    refused: tuple[RefusedRow, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is wrong with any row."""
        return tuple(finding for row in self.refused for finding in row.findings)


def read_source(
    path: Path, data_format: DataFormat, name: str | None = None, purpose: Purpose = ANY
) -> SourceFile:
    """Read and check a file of rows.

    Args:
        path: a JSONL file, a JSON file that holds one array, or a text file; gzip is recognised by its magic
            number.
        data_format: how rows are written; ``Auto`` goes by the first row that is an object, and takes ``.txt`` and
            ``.md`` for text.
        name: what findings call the file.
        purpose: what the rows are for.

    Raises:
        DataError: the file holds no rows, no known format, one that the purpose can't use, or is damaged as a whole.
    """
    name = name or path.name
    data = _read_bytes(path, name)
    if is_text_file(name) and data_format in (DataFormat.AUTO, DataFormat.TEXT):
        data_format = DataFormat.TEXT
        parsed = _parse_text(data, name)
    else:
        parsed = list(parse_rows(data, name))
    if not parsed:
        raise_findings([Finding(name, 1, "empty_file", "no rows", "write one JSON object per line")])
    values = [value for _, value in parsed if not isinstance(value, Finding)]
    if data_format is DataFormat.AUTO and values:
        data_format = _detect(values, parsed, name, purpose)
    _require(purpose, data_format, name)
    return _check(parsed, data_format, name, purpose)


def _check(parsed: list[tuple[int, Any]], data_format: DataFormat, name: str, purpose: Purpose) -> SourceFile:
    """Sort rows into good ones and refused ones; the first good one says whether all hold messages or text."""
    rows: list[SourceRow] = []
    refused: list[RefusedRow] = []
    for line, value in parsed:
        if isinstance(value, Finding):
            refused.append(RefusedRow(line, None, (value,)))
            continue
        problems = check_row(value, data_format, purpose)
        if not problems:
            row = canonical_row(value, data_format, purpose)
            problems = _check_likeness(row, rows[0].row if rows else row)
        if problems:
            findings = tuple(Finding(name, line, p.check, p.found, p.advice) for p in problems)
            refused.append(RefusedRow(line, value, findings))
        else:
            rows.append(SourceRow(name, line, row))
    return SourceFile(name, data_format, tuple(rows), tuple(refused))


def _check_likeness(row: Row, first: Row) -> list[Problem]:
    """One file holds either messages or text: a column has one type."""
    if is_conversational(row) is is_conversational(first):
        return []
    forms = ("text", "messages")
    found = f"{forms[is_conversational(row)]} among rows of {forms[is_conversational(first)]}"
    return [Problem("mixed_forms", found, "write all rows as text, or all as messages")]


def parse_rows(data: bytes, name: str) -> Iterator[tuple[int, Any]]:
    """Line number and value of each row; the value is a Finding where the text is no JSON.

    Blank lines are no rows.
    """
    data = data.removeprefix(_BOM)
    if data.lstrip()[:1] == b"[":
        yield from _parse_array(data, name)
        return
    for line, text in enumerate(data.split(b"\n"), start=1):
        if text.strip():
            yield line, _parse_line(text, name, line)


def raise_findings(findings: list[Finding], reason: str = "InvalidRows") -> NoReturn:
    """Fail with the first findings and their total.

    Raises:
        DataError: always.
    """
    shown = "\n".join(str(finding) for finding in findings[:_SHOWN_FINDINGS])
    count = len(findings)
    more = f"\nand {count - _SHOWN_FINDINGS:,} more" if count > _SHOWN_FINDINGS else ""
    checks = "1 check" if count == 1 else f"{count:,} checks"
    raise DataError(reason, f"{checks} failed:\n{shown}{more}")


def _read_bytes(path: Path, name: str) -> bytes:
    data = path.read_bytes()
    if not data.startswith(_GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError) as error:
        raise_findings([Finding(name, 1, "invalid_encoding", f"broken gzip: {error}", "compress it again")])


def _parse_text(data: bytes, name: str) -> list[tuple[int, Any]]:
    """The passages of a text file, each a row."""
    try:
        text = data.removeprefix(_BOM).decode()
    except UnicodeError as error:
        return [(1, _encoding_finding(name, 1, error))]
    return [(line, {"text": passage}) for line, passage in divide_text(text)]


def _detect(values: list[Any], parsed: list[tuple[int, Any]], name: str, purpose: Purpose) -> DataFormat:
    first = next((value for value in values if isinstance(value, dict)), values[0])
    detected = detect_format(first, purpose)
    if detected is None:
        line = next(line for line, value in parsed if value is first)
        found = f"keys {quote(sorted(first))}" if isinstance(first, dict) else quote(first)
        check = "unknown_format" if isinstance(first, dict) else "data_type"
        advice = f"write rows with {describe_members(purpose.formats)}"
        raise_findings([Finding(name, line, check, found, advice)], "UnknownFormat")
    return detected


def _require(purpose: Purpose, data_format: DataFormat, name: str) -> None:
    if data_format is DataFormat.AUTO or data_format in purpose.formats:
        return
    others = methods_for(data_format)
    instead = f", or choose method {' or '.join(others)}" if others else ""
    raise DataError(
        "WrongFormat",
        f"{purpose.name} needs rows with {describe_members(purpose.formats)}: {name} holds {data_format} rows "
        f"({describe_members((data_format,))}); write such rows{instead}",
    )


def _parse_line(text: bytes, name: str, line: int) -> Any:
    try:
        return _load(text.decode())
    except UnicodeError as error:
        return _encoding_finding(name, line, error)
    except (ValueError, RecursionError) as error:
        found = f"{quote(text.decode(errors='replace').strip())} ({_reason(error)})"
        return Finding(name, line, "invalid_json", found, _JSON_ADVICE)


def _parse_array(data: bytes, name: str) -> Iterator[tuple[int, Any]]:
    try:
        text = data.decode()
        values = _load(text)
    except UnicodeError as error:
        yield 1, _encoding_finding(name, 1, error)
        return
    except json.JSONDecodeError as error:
        advice = "write one JSON array of objects"
        yield error.lineno, Finding(name, error.lineno, "invalid_json", _reason(error), advice)
        return
    except (ValueError, RecursionError) as error:
        yield 1, Finding(name, 1, "invalid_json", _reason(error), "write one JSON array of objects")
        return
    yield from zip(_array_lines(text), values, strict=True)


def _array_lines(text: str) -> Iterator[int]:
    """The line on which each element of a well-formed array begins."""
    decoder = json.JSONDecoder()
    position = text.index("[") + 1
    line, counted = 1, 0
    while True:
        while text[position] in ", \t\r\n":
            position += 1
        if text[position] == "]":
            return
        line += text.count("\n", counted, position)
        counted = position
        yield line
        _, position = decoder.raw_decode(text, position)


def _load(text: str) -> Any:
    value = json.loads(text, parse_constant=_refuse_constant)
    json.dumps(value, ensure_ascii=False).encode()  # finds lone surrogates
    return value


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _encoding_finding(name: str, line: int, error: UnicodeError) -> Finding:
    return Finding(name, line, "invalid_encoding", f"bytes that are not UTF-8 ({error})", "save it as UTF-8")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error) or type(error).__name__
