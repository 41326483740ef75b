"""Reads JSONL and JSON files, gzipped or not, row by row with line numbers."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tunesmith_contract.run_config import DataFormat
from tunesmith_trainer.failures import DataError

from .checks import Finding, Row, canonical_row, check_row, detect_format, quote

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
class SourceFile:
    """What a file holds: ``rows`` and ``refused`` together are all rows of the file.

    ``refused`` maps the lines of rows with findings to the rows as they were read; None for what is no JSON.
    """

    name: str
    data_format: DataFormat
    rows: tuple[SourceRow, ...]
    findings: tuple[Finding, ...]
    refused: dict[int, Any]


def read_source(path: Path, data_format: DataFormat, name: str | None = None) -> SourceFile:
    """Read and check a file of rows.

    Args:
        path: a JSONL file, or a JSON file that holds one array; gzip is recognised by its magic number.
        data_format: how rows are written; ``Auto`` goes by the first row that is an object.
        name: what findings call the file.

    Raises:
        DataError: the file holds no rows, no known format, or is damaged as a whole.
    """
    name = name or path.name
    parsed = list(parse_rows(_read_bytes(path, name), name))
    if not parsed:
        raise_findings([Finding(name, 1, "empty_file", "no rows", "write one JSON object per line")])
    values = [value for _, value in parsed if not isinstance(value, Finding)]
    if data_format is DataFormat.AUTO and values:
        data_format = _detect(values, parsed, name)
    rows: list[SourceRow] = []
    findings: list[Finding] = []
    refused: dict[int, Any] = {}
    for line, value in parsed:
        if isinstance(value, Finding):
            findings.append(value)
            refused[line] = None
        elif problems := check_row(value, data_format):
            findings.extend(Finding(name, line, p.check, p.found, p.advice) for p in problems)
            refused[line] = value
        else:
            rows.append(SourceRow(name, line, canonical_row(value, data_format)))
    return SourceFile(name, data_format, tuple(rows), tuple(findings), refused)


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


def _detect(values: list[Any], parsed: list[tuple[int, Any]], name: str) -> DataFormat:
    first = next((value for value in values if isinstance(value, dict)), values[0])
    detected = detect_format(first)
    if detected is None:
        line = next(line for line, value in parsed if value is first)
        found = f"keys {quote(sorted(first))}" if isinstance(first, dict) else quote(first)
        advice = 'write rows with "messages", or with "prompt" and "completion"'
        check = "missing_messages_list" if isinstance(first, dict) else "data_type"
        raise_findings([Finding(name, line, check, found, advice)], "UnknownFormat")
    return detected


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
