"""Strict JSON parser (RFC 8259) that rejects duplicate keys and numbers out of range.

orjson parses; what it rejects, or may have lost, is scanned token by token for an exact message and place.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from tunesmith_data.rows.findings import Finding, quote

from .encodings import EncodingGuess, check_utf8

#: Levels of nested objects and lists; a row of messages with tools needs about ten.
MAX_DEPTH = 64
JSON_ADVICE = "write one JSON object per line"

_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
#: Fewer digits fit into 64 bits.
_MANY_DIGITS = b"0" * 19
_SHOWN_AROUND = 20

# A string that is never closed runs to the end, so that a scan takes time in proportion to the text.
_STRING = r'"(?:[^"\\]++|\\.)*+"?'
_BRACKETS = re.compile(rf"{_STRING}|([\[{{])|([\]}}])", re.DOTALL)
_TOKENS = re.compile(
    rf"(?P<string>{_STRING})|(?P<mark>[\[\]{{}}:,])|(?P<scalar>[^\s\[\]{{}}:,\"]+)", re.DOTALL
)
_PYTHON_WORDS = ("None", "True", "False")
_CONSTANTS = ("NaN", "Infinity", "-Infinity")
_INTEGER = re.compile(r"-?[0-9]+")


def load_json(data: bytes, guess: EncodingGuess | None = None) -> Any:
    """Value of a JSON text, or a Finding; columns are counted in the text's first line.

    Args:
        data: the text, in UTF-8.
        guess: guesses another encoding of the text, for the message.
    """
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and (finding := _check_depth(data)):
        return finding
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _explain_error(data, guess) or Finding(
            "invalid_json", _surrounding_text(_decode(data), 0), str(error)
        )
    return value if _is_whole(data, value) else _explain_error(data, guess) or value


def load_text(text: str) -> Any:
    """Value of JSON text within a row, such as a tool call's arguments, or a Finding."""
    return load_json(text.encode())


def first_line_column(text: str, position: int) -> int | None:
    """The column of a position, counted from 1; None if it is not in the first line."""
    return None if "\n" in text[:position] else position + 1


def _is_whole(data: bytes, value: Any) -> bool:
    """True if parsing has lost nothing; False may be a false alarm, True is certain.

    A key that comes twice takes a colon with it when the value is written again. orjson makes floats of integers
    that don't fit 64 bits.
    """
    return (
        data.count(b":") == orjson.dumps(value).count(b":")
        and b"\\u003" not in data
        and _MANY_DIGITS not in data.translate(_AS_ZEROS)
    )


def _explain_error(data: bytes, guess: EncodingGuess | None) -> Finding | None:
    """Finding for an invalid JSON text; None if it is valid."""
    if finding := check_utf8(data, guess):
        return finding
    text = data.decode()
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        found = f"{_surrounding_text(text, error.pos)} ({error.msg})"
        column = first_line_column(text, error.pos)
        return Finding("invalid_json", found, _advise(text, error), column=column)
    return next((finding for finding in _token_findings(text) if finding), None)


def _advise(text: str, error: json.JSONDecodeError) -> str:
    """Advice for common mistakes."""
    rest = text[error.pos :].strip()
    if error.msg == "Extra data":
        if rest == ",":
            return "leave out the comma after the row, or write the rows as one array: [{…}, {…}]"
        if "\r" in text[error.pos - 1 : error.pos + 1]:
            return "end lines with a line feed, not with a carriage return alone"
        return "write each object on a line of its own" if rest.startswith("{") else JSON_ADVICE
    if rest.startswith("'"):
        return "write double quotes around keys and texts: json.dumps does"
    if rest.startswith(_PYTHON_WORDS):
        return "write null, true and false: json.dumps does"
    if rest[:1] in ("}", "]") and text[: error.pos].rstrip().endswith(","):
        return "leave out the comma before it"
    if error.msg.startswith("Invalid control character"):
        return r"write line breaks and tabs in texts as \n and \t"
    if error.msg.startswith("Invalid \\escape"):
        return r"write a backslash as \\"
    if error.msg.startswith("Unterminated string") or not rest:
        return r"write the whole row on one line, line breaks in texts as \n; the file may have been cut off"
    return JSON_ADVICE


def _check_depth(data: bytes) -> Finding | None:
    depth = 0
    text = _decode(data)
    for token in _BRACKETS.finditer(text):
        depth += 1 if token[1] else -1 if token[2] else 0
        if depth > MAX_DEPTH:
            found, advice = f"more than {MAX_DEPTH} levels of objects and lists", "write flatter rows"
            column = first_line_column(text, token.start())
            return Finding("nested_too_deeply", found, advice, column=column)
    return None


@dataclass(slots=True)
class _Level:
    """An object or list that is open.

    Attributes:
        path: the member that it is.
        keys: those that an object has so far; None for a list.
        key: the member that is being read; of a list its number.
    """

    path: str
    keys: set[str] | None
    key: str = ""
    count: int = field(default=0)

    @property
    def member(self) -> str:
        if self.keys is None:
            return f"{self.path}[{self.count}]"
        return f"{self.path}.{self.key}" if self.path else self.key


def _token_findings(text: str) -> Iterator[Finding | None]:
    levels: list[_Level] = []
    string: tuple[str, int | None] = ("", None)
    for token in _TOKENS.finditer(text):
        column = first_line_column(text, token.start())
        member = levels[-1].member if levels else ""
        match token[0]:
            case "{" | "[":
                levels.append(_Level(member, set() if token[0] == "{" else None))
            case "}" | "]":
                levels.pop()
            case ",":
                levels[-1].count += 1
            case ":":
                yield _check_key(levels[-1], *string)
            case _ if token["string"]:
                string = (str(json.loads(token[0], strict=False)), column)
                yield _check_surrogates(*string, member)
            case scalar:
                yield _check_scalar(scalar, column, member)


def _check_key(level: _Level, key: str, column: int | None) -> Finding | None:
    assert level.keys is not None
    level.key = key
    if key not in level.keys:
        level.keys.add(key)
        return None
    advice = "write each key once: only one of the values would be read"
    return Finding("duplicate_key", f"key {quote(key)} twice", advice, level.member, column)


def _check_surrogates(string: str, column: int | None, member: str) -> Finding | None:
    try:
        string.encode()
    except UnicodeEncodeError as error:
        found = f"half of a surrogate pair (\\u{ord(string[error.start]):04x})"
        return Finding(
            "invalid_encoding", found, "write both halves, or the character itself", member, column
        )
    return None


def _check_scalar(scalar: str, column: int | None, member: str) -> Finding | None:
    if scalar in _CONSTANTS:
        advice = "write null, or leave the member out"
        return Finding("invalid_json", f"{scalar}, which JSON does not have", advice, member, column)
    if _fits_in_64_bits(scalar):
        return None
    found = f"the number {scalar if len(scalar) <= 2 * _SHOWN_AROUND else scalar[: 2 * _SHOWN_AROUND] + '…'}"
    advice = "write it as a string: it doesn't fit 64 bits"
    return Finding("number_out_of_range", found, advice, member, column)


def _fits_in_64_bits(scalar: str) -> bool:
    if scalar in ("true", "false", "null"):
        return True
    if _INTEGER.fullmatch(scalar):
        return len(scalar) <= len("-9223372036854775808") and -(2**63) <= int(scalar) < 2**64
    return float(scalar) not in (float("inf"), float("-inf"))


def _surrounding_text(text: str, position: int) -> str:
    """Text around a position, quoted for a message."""
    begin = max(0, position - _SHOWN_AROUND)
    return quote(text[begin : position + _SHOWN_AROUND].strip())


def _decode(data: bytes) -> str:
    return data.decode(errors="replace")
