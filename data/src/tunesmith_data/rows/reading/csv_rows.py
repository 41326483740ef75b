"""CSV reader: a header, one record a row; cells hold text or JSON."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from tunesmith_data.rows.findings import Finding, quote
from tunesmith_data.rows.parsing.encodings import EncodingGuess, check_utf8
from tunesmith_data.rows.parsing.strict_json import load_text

from .lines import MAX_ROW_BYTES, Entries, read_lines, row_too_long
from .read_errors import UnreadableFile

_DELIMITERS = (",", ";", "\t")
_LABELS: Mapping[str, bool] = MappingProxyType(
    {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
)
#: Columns that are always JSON, those that may be, and those of text, whose empty cells are empty text.
_JSON_COLUMNS = ("messages", "tools", "conversations", "history")
_TEXT_OR_MESSAGES_COLUMNS = ("prompt", "completion", "chosen", "rejected")
_LABEL_COLUMNS = ("label", "kto_tag")
_ABSENT = object()


def read_table(chunks: Iterator[bytes], delimiter: str) -> Entries:
    """Records as rows, each with the line it begins on.

    Raises:
        UnreadableFile: no header, or names in it that are empty or come twice; a quote that is never closed.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    lines = _RecordLines(chunks)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names = _read_header(reader, lines)
    while (record := _read_record(reader, lines)) is not None:
        if isinstance(record, Finding) or record:
            yield lines.begin, record if isinstance(record, Finding) else _row(names, record)


def detect_delimiter(head: bytes) -> str:
    """Delimiter of a CSV header: comma, semicolon or tab."""
    header = head.partition(b"\n")[0].decode(errors="replace")
    return max(_DELIMITERS, key=header.count)


class _RecordLines:
    """Lines of text for the parser; ``finding`` is the first defect in a line of the current record.

    Attributes:
        begin: the line that the record begins on.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._lines = read_lines(chunks)
        self._guess = EncodingGuess()
        self._number = self._size = 0
        self.begin = 1
        self.finding: Finding | None = None

    def start_record(self) -> None:
        self.begin = self._number + 1
        self._size = 0
        self.finding = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._number, line = next(self._lines)
        if isinstance(line, Finding):
            self.finding = self.finding or line
            return "\n"
        self._size += len(line)
        if self._size > MAX_ROW_BYTES:
            raise UnreadableFile(row_too_long(self._size), self.begin)
        self.finding = self.finding or check_utf8(line, self._guess)
        return line.decode(errors="replace") + "\n"


def _read_header(reader: Iterator[list[str]], lines: _RecordLines) -> list[str]:
    record: list[str] | Finding | None = []
    while record == []:
        record = _read_record(reader, lines)
    if record is None:
        raise UnreadableFile(Finding("empty_file", "no header", "write the names of the columns first"), 1)
    if isinstance(record, Finding):
        raise UnreadableFile(record, lines.begin)
    names = [name.strip() for name in record]
    if finding := check_names(names):
        raise UnreadableFile(finding, lines.begin)
    return names


def check_names(names: Sequence[str]) -> Finding | None:
    """Finding for empty or duplicate column names."""
    if "" in names:
        column = f"column {names.index('') + 1} without a name"
        return Finding("empty_column_name", column, "name it, or leave the column out (pandas: index=False)")
    name, count = Counter(names).most_common(1)[0]
    if count == 1:
        return None
    return Finding("duplicate_column_name", f"{count} columns {quote(name)}", "name each column once", name)


def _read_record(reader: Iterator[list[str]], lines: _RecordLines) -> list[str] | Finding | None:
    """The next record, or a finding if it is invalid; an empty list for an empty line, None at the end."""
    lines.start_record()
    try:
        record = next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        if "end of data" in str(error) or "field limit" in str(error):
            found, advice = "a quote that is never closed", 'close it; write a quote within a cell as ""'
            raise UnreadableFile(Finding("invalid_csv", found, advice), lines.begin) from error
        return lines.finding or Finding("invalid_csv", str(error), 'write a quote within a cell as ""')
    return lines.finding or record


def _row(names: Sequence[str], record: Sequence[str]) -> dict[str, Any] | Finding:
    if len(record) != len(names):
        found = f"{len(record):,} cells under {len(names):,} names of columns"
        return Finding(
            "wrong_number_of_cells", found, "write a cell for each column, and quote commas in cells"
        )
    row = {}
    for name, text in zip(names, record, strict=True):
        read = _READ.get(name)
        value = read(text) if read else text
        if isinstance(value, Finding):
            return replace(value, member=name, column=None)
        if value is not _ABSENT:
            row[name] = value
    return row


def _read_json(text: str) -> Any:
    return load_text(text) if text.strip() else _ABSENT


def _read_text_or_messages(text: str) -> Any:
    """Text, or the messages that are written in it: an answer may be JSON itself, and stays text then."""
    if not text.startswith(("[", "{")):
        return text
    value = load_text(text)
    messages = value if isinstance(value, list) else [value]
    return value if messages and all(map(_is_message, messages)) else text


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and (
        {"role", "content"} <= value.keys() or value.keys() == {"from", "value"}
    )


def _read_label(text: str) -> Any:
    return _LABELS.get(text.strip().lower(), text) if text else _ABSENT


_READ: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    dict.fromkeys(_JSON_COLUMNS, _read_json)
    | dict.fromkeys(_TEXT_OR_MESSAGES_COLUMNS, _read_text_or_messages)
    | dict.fromkeys(_LABEL_COLUMNS, _read_label)
)
