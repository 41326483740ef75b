"""JSON readers: an array of rows, or one row a line."""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tunesmith_data.rows.findings import Finding, quote
from tunesmith_data.rows.parsing.encodings import EncodingGuess
from tunesmith_data.rows.parsing.strict_json import MAX_DEPTH, load_json

from .lines import MAX_ROW_BYTES, Entries, read_lines, row_too_long
from .read_errors import UnreadableFile

_SPACE = re.compile(r"[ \t\r\n]*")
_ADVICE = "write one JSON array of objects"
_SHOWN = 20
#: Finds the end of an element; its content is parsed by ``load_json``.
_ENDS = json.JSONDecoder(strict=False, parse_int=str, parse_float=str, parse_constant=str)


def read_array(chunks: Iterator[bytes]) -> Entries:
    """Elements with the lines they begin on.

    Raises:
        UnreadableFile: the array is not valid JSON, or something follows its end.
    """
    window, guess = _ArrayWindow(chunks), EncodingGuess()
    mark = window.expect("[")
    if window.next_mark() == "]":
        mark = window.expect("]")
    while mark != "]":
        line, column, element = window.element()
        yield line, _shift_column(load_json(element.encode(errors="surrogateescape"), guess), column)
        mark = window.expect(",", "]")
    window.expect("")


def _shift_column(value: Any, column: int) -> Any:
    """A problem's column, counted from the line's beginning instead of the element's."""
    if isinstance(value, Finding) and value.column:
        return replace(value, column=value.column + column - 1)
    return value


class _ArrayWindow:
    """Sliding window over the text of a JSON array, with its position in the file.

    Bytes that are not UTF-8 stay in it as lone surrogates, so that one of them costs one row and not the file.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text = ""
        self._at = 0
        self._ended = False
        self._line = 1
        self._line_begin = 0

    def next_mark(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._advance(match.end())
            if self._at < len(self._text) or not self._read_more():
                return self._text[self._at : self._at + 1]

    def expect(self, *marks: str) -> str:
        """Pass one of the marks; an empty one is the end."""
        mark = self.next_mark()
        if mark not in marks:
            wanted = " or ".join(marks)
            found = (
                f"{self._excerpt()} where {wanted} belongs"
                if wanted
                else f"{self._excerpt()} after the array's end"
            )
            raise self._failure(Finding("invalid_json", found, _ADVICE))
        self._advance(self._at + len(mark))
        return mark

    def element(self) -> tuple[int, int, str]:
        """Line, column and text of the next element."""
        self.next_mark()
        line, column = self._line, self._column(self._at)
        while True:
            end = self._end_of_element()
            if end is not None and (end < len(self._text) or self._ended):
                break
            if len(self._text) - self._at > MAX_ROW_BYTES:
                raise self._failure(row_too_long(len(self._text) - self._at))
            self._read_more()
        element = self._text[self._at : end]
        self._advance(end)
        return line, column, element

    def _end_of_element(self) -> int | None:
        """End of the element; None if more text is needed."""
        try:
            return _ENDS.raw_decode(self._text, self._at)[1]
        except json.JSONDecodeError as error:
            if not self._ended:
                return None
            self._advance(error.pos)
            found = f"{self._excerpt()} ({error.msg})"
            raise self._failure(Finding("invalid_json", found, _ADVICE)) from error
        except RecursionError as error:
            found = f"more than {MAX_DEPTH} levels of objects and lists"
            raise self._failure(Finding("nested_too_deeply", found, "write flatter rows")) from error

    def _read_more(self) -> bool:
        """Discard the consumed text and read more; False at the end."""
        rest = self._text[self._at :]
        self._line_begin -= self._at
        self._at = 0
        pieces, read = [rest], 0
        while not self._ended and (not read or read < len(rest)):
            chunk = next(self._chunks, b"")
            self._ended = not chunk
            pieces.append(self._decode(chunk, self._ended))
            read += len(pieces[-1])
        self._text = "".join(pieces)
        return read > 0

    def _advance(self, to: int) -> None:
        newlines = self._text.count("\n", self._at, to)
        if newlines:
            self._line += newlines
            self._line_begin = self._text.rindex("\n", self._at, to) + 1
        self._at = to

    def _column(self, position: int) -> int:
        return position - self._line_begin + 1

    def _excerpt(self) -> str:
        shown = self._text[self._at : self._at + _SHOWN].encode(errors="replace").decode()
        return quote(shown) if shown else "the end of the file"

    def _failure(self, finding: Finding) -> UnreadableFile:
        return UnreadableFile(replace(finding, column=self._column(self._at)), self._line)


def read_jsonl(chunks: Iterator[bytes], head: bytes = b"") -> Entries:
    """Rows, one a line; blank lines are no rows.

    Raises:
        UnreadableFile: the file begins with an object that is written over several lines.
    """
    _reject_spread_object(head)
    guess = EncodingGuess()
    for number, line in read_lines(chunks):
        if isinstance(line, Finding):
            yield number, line
        elif line and not line.isspace():
            yield number, load_json(line, guess)


def _reject_spread_object(head: bytes) -> None:
    lines = [line.strip() for line in head.split(b"\n", 16) if line.strip()]
    if (
        len(lines) < 2
        or not lines[0].startswith(b"{")
        or lines[0].endswith(b"}")
        or lines[1].startswith(b"{")
    ):
        return
    advice = "write one JSON object per line, or the rows as one array: [{…}, {…}]"
    raise UnreadableFile(Finding("invalid_json", "one object over several lines", advice, column=1), 1)
