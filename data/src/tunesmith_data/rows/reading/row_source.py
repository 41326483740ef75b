"""Stream of rows from several files: canonical rows, or invalid rows with findings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import DataError
from tunesmith_data.rows.data_files import DataFile
from tunesmith_data.rows.findings import Finding, quote
from tunesmith_data.rows.report.data_report import FileReport
from tunesmith_data.rows.schema.canonical import canonical_row
from tunesmith_data.rows.schema.formats import (
    ANY,
    KNOWN_MEMBERS,
    OPTIONAL_MEMBERS,
    Purpose,
    Row,
    describe_members,
    detect_format,
    is_conversational,
    methods_for,
)
from tunesmith_data.rows.schema.row_checks import check_row

from .compression import open_contents
from .file_kinds import OpenedFile, open_rows
from .read_errors import UnreadableFile, raise_findings


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row that passed its checks, and where it came from.

    Attributes:
        file: name of the file in findings.
        line: where the row begins; of a Parquet file its number.
        row: in canonical form.
        kept: values of the members that the source was asked to keep, as text.
        carried: values of the members that it was asked to carry along, as they are written; None for missing ones.
        document: the text that the row is a passage of; empty where rows are rows.
    """

    file: str
    line: int
    row: Row
    kept: Mapping[str, str] = field(default_factory=dict)
    document: str = ""
    carried: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """Invalid row as it was read (None if unreadable), with its findings."""

    file: str
    line: int
    row: Any
    findings: tuple[Finding, ...]


class RowSource:
    """The rows of several files, one file after another, all in one format.

    Nothing is held but what is being read, so any number of rows may come.

    Args:
        files: in the order in which they are read.
        data_format: how rows are written; ``Auto`` goes by the first row that is an object, and takes ``.txt`` and
            ``.md`` for text.
        purpose: what the rows are for.
        keep: members of rows as they are written, such as ``metadata.customer``, whose values are kept.
        columns: member of a row as it is written, by the member of the format that it stands for.
        carry: members of rows as they are written, whose values go along with the rows; rows may lack them.
    """

    def __init__(
        self,
        files: Sequence[DataFile],
        data_format: DataFormat,
        purpose: Purpose = ANY,
        keep: Sequence[str] = (),
        columns: Mapping[str, str] = MappingProxyType({}),
        carry: Sequence[str] = (),
    ) -> None:
        self.data_format = data_format
        self._written_as = data_format
        self._files = tuple(files)
        self._purpose = purpose
        self._keep = tuple(keep)
        self._mapping = dict(columns)
        self._carry = tuple(carry)
        paths = (*keep, *columns.values(), *carry)
        self._columns = (*KNOWN_MEMBERS, *paths, *(path.partition(".")[0] for path in paths))
        self._reports: list[FileReport] = []
        self._format_fixed = False
        self._first: Row | None = None
        self._first_stray: Finding | None = None

    @property
    def files(self) -> tuple[FileReport, ...]:
        """Reports of the files that have been read completely."""
        return tuple(self._reports)

    @property
    def bytes(self) -> int:
        """The size of all files on disk."""
        return sum(file.path.stat().st_size for file in self._files)

    def __iter__(self) -> Iterator[SourceRow | InvalidRow]:
        """The rows in their order.

        Raises:
            DataError: a file without rows, or damaged so that the rest of it can't be read; no known format, or one
                that the purpose can't use.
        """
        self._reports.clear()
        for file in self._files:
            yield from self._read_file(file)
        if self.data_format is DataFormat.AUTO and self._first_stray:
            raise_findings([self._first_stray], "UnknownFormat")

    def _read_file(self, file: DataFile) -> Iterator[SourceRow | InvalidRow]:
        name, line = file.name, 1
        try:
            for content in open_contents(file):
                name = content.name
                opened = open_rows(content, self._written_as, self._columns)
                if opened.is_text:
                    self._fix_format(DataFormat.TEXT, name)
                for outcome in self._read(opened):
                    line = outcome.line
                    yield outcome
        except UnreadableFile as error:
            raise_findings([error.finding.at(error.name or name, error.line or line)], "UnreadableFile")

    def _read(self, opened: OpenedFile) -> Iterator[SourceRow | InvalidRow]:
        rows = refused = 0
        document = opened.name if opened.is_text else ""
        for line, value in opened.entries:
            outcome = self._take(opened.name, line, value, document)
            if isinstance(outcome, SourceRow):
                rows += 1
            else:
                refused += 1
            yield outcome
        if not rows + refused:
            raise UnreadableFile(opened.no_rows_finding, 1)
        self._reports.append(FileReport(name=opened.name, format=opened.label, rows=rows, refused=refused))

    def _take(self, file: str, line: int, value: Any, document: str) -> SourceRow | InvalidRow:
        """Row in canonical form, or an invalid row with findings."""
        if isinstance(value, Finding):
            return InvalidRow(file, line, None, (value.at(file, line),))
        kept: dict[str, str] = {}
        written = value
        if isinstance(value, dict) and self._mapping:
            if missing := [_missing_column(value, *pair) for pair in _missing_columns(value, self._mapping)]:
                return InvalidRow(file, line, value, tuple(finding.at(file, line) for finding in missing))
            value = rename_members(value, self._mapping)
        if isinstance(value, dict) and not self._format_fixed:
            self._fix_format(self._detect(value, file, line), file)
        findings = check_row(value, self.data_format, self._purpose)
        if self._keep and isinstance(written, dict):
            kept, missing = keep_members(written, self._keep)
            findings += missing
        if not findings:
            row = canonical_row(value, self.data_format, self._purpose)
            self._first = self._first or row
            findings = _check_same_form(row, self._first)
            if not findings:
                carried = {path: find_member(written, path) for path in self._carry}
                return SourceRow(file, line, row, kept, document, carried)
        placed = tuple(finding.at(file, line) for finding in findings)
        if not isinstance(value, dict):
            self._first_stray = self._first_stray or placed[0]
        return InvalidRow(file, line, written, placed)

    def _detect(self, row: Row, file: str, line: int) -> DataFormat:
        if self.data_format is not DataFormat.AUTO:
            return self.data_format
        detected = detect_format(row, self._purpose)
        if detected is None:
            raise_findings([_unknown_format_finding(row, self._purpose).at(file, line)], "UnknownFormat")
        return detected

    def _fix_format(self, data_format: DataFormat, file: str) -> None:
        """Fix the format of all further rows.

        Raises:
            DataError: the purpose can't use it, or other rows were in another.
        """
        if self._format_fixed and data_format is not self.data_format:
            message = f"{file} holds {data_format} rows after {self.data_format} rows: write all files in one format"
            raise DataError("WrongFormat", message)
        _require(self._purpose, data_format, file)
        self.data_format, self._format_fixed = data_format, True


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows of a small file: ``rows`` and ``invalid`` together are all of them."""

    name: str
    data_format: DataFormat
    rows: tuple[SourceRow, ...]
    invalid: tuple[InvalidRow, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings of all invalid rows."""
        return tuple(finding for row in self.invalid for finding in row.findings)


def read_source(
    path: Path,
    data_format: DataFormat,
    name: str | None = None,
    purpose: Purpose = ANY,
    columns: Mapping[str, str] = MappingProxyType({}),
) -> FileRows:
    """Read and check a file that fits into memory.

    Args:
        path: the file; see ``RowSource``.
        data_format: how rows are written.
        name: name of the file in findings.
        purpose: what the rows are for.
        columns: member of a row as it is written, by the member of the format that it stands for.

    Raises:
        DataError: as ``RowSource``.
    """
    file = DataFile(path, name or path.name)
    source = RowSource([file], data_format, purpose, columns=columns)
    rows: list[SourceRow] = []
    invalid: list[InvalidRow] = []
    for outcome in source:
        if isinstance(outcome, SourceRow):
            rows.append(outcome)
        else:
            invalid.append(outcome)
    return FileRows(file.name, source.data_format, tuple(rows), tuple(invalid))


def _check_same_form(row: Row, first: Row) -> list[Finding]:
    """Findings for a row that mixes text and messages, or single answers and pairs."""
    if row.keys() == first.keys() and is_conversational(row) is is_conversational(first):
        return []
    if is_conversational(row) is not is_conversational(first):
        forms = ("text", "messages")
        found = f"{forms[is_conversational(row)]} among rows of {forms[is_conversational(first)]}"
        return [Finding("mixed_forms", found, "write all rows as text, or all as messages")]
    if ("chosen" in row) is ("chosen" in first):
        return []
    found = f"{_answers(row)} among rows with {_answers(first)}"
    return [Finding("mixed_forms", found, "write pairs of answers in all rows, or in none")]


def _answers(row: Row) -> str:
    return "a pair of answers" if "chosen" in row else "one answer"


def _unknown_format_finding(row: Row, purpose: Purpose) -> Finding:
    lists = [
        name
        for name, value in row.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    if len(lists) == 1 and detect_format(row[lists[0]][0], purpose):
        advice = f'write the list in "{lists[0]}" by itself: [{{…}}, {{…}}]'
    else:
        advice = f"write rows with {describe_members(purpose.formats)}"
    return Finding("unknown_format", f"keys {quote(sorted(row))}", advice)


def _require(purpose: Purpose, data_format: DataFormat, name: str) -> None:
    if data_format in purpose.formats:
        return
    others = methods_for(data_format) if purpose.trains else ()
    instead = f", or choose method {' or '.join(others)}" if others else ""
    raise DataError(
        "WrongFormat",
        f"{purpose.name} needs rows with {describe_members(purpose.formats)}: {name} holds {data_format} rows "
        f"({describe_members((data_format,))}); write such rows{instead}",
    )


def rename_members(row: Row, mapping: Mapping[str, str]) -> Row:
    """Row with the members of a format in place of those that it is written with.

    Args:
        row: the row as it is written.
        mapping: full name or dotted path of a written member by the format's member.
    """
    found = {member: find_member(row, path) for member, path in mapping.items()}
    other = {
        name: value for name, value in row.items() if name not in mapping and name not in mapping.values()
    }
    return other | {member: value for member, value in found.items() if value is not None}


def _missing_columns(row: Row, mapping: Mapping[str, str]) -> list[tuple[str, str]]:
    """Members of a format, with the written members that should stand for them, which the row lacks."""
    return [
        (member, path)
        for member, path in mapping.items()
        if member not in OPTIONAL_MEMBERS and find_member(row, path) is None
    ]


def _missing_column(row: Row, member: str, path: str) -> Finding:
    advice = f'write "{path}" in each row: by columns it is the "{member}"'
    return Finding("missing_field", f"keys {quote(sorted(row))}", advice, path)


def keep_members(row: Row, paths: Sequence[str]) -> tuple[dict[str, str], list[Finding]]:
    """Values at dotted paths as text, and findings for missing ones."""
    values = {path: find_member(row, path) for path in paths}
    findings = [
        _missing_field(row, path, value)
        for path, value in values.items()
        if not isinstance(value, str | bool | int | float) or value == ""
    ]
    kept = {path: value if isinstance(value, str) else json.dumps(value) for path, value in values.items()}
    return kept, findings


def find_member(row: Row, path: str) -> Any:
    """Value of a member, by its full name or by a dotted path; None if there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _missing_field(row: Row, path: str, value: object) -> Finding:
    found = f"keys {quote(sorted(row))}" if value is None else quote(value)
    return Finding(
        "missing_field", found, f'write "{path}" as text or a number in each row: the split goes by it', path
    )
