"""Bounds of single values.

A check returns what is wrong, as the end of a sentence that begins with the name of the field.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

#: Returns what the value must be; empty if it is.
Check = Callable[[Any], str]


def integer(low: int, high: int) -> Check:
    """An integer between two bounds. The engine's own parser would also take text and true."""
    wanted = f"must be an integer from {low:,} to {high:,}"

    def check(value: Any) -> str:
        return "" if type(value) is int and low <= value <= high else wanted

    return check


def texts(count: int, length: int) -> Check:
    """A text or a list of texts."""
    wanted = f"must be a text or a list of at most {count} texts, each of at most {length} characters"

    def check(value: Any) -> str:
        items = [value] if type(value) is str else value
        return "" if _is_list(items, count) and all(_is_text(item, length) for item in items) else wanted

    return check


def integers(count: int) -> Check:
    """A list of integers, such as token IDs; the engine compares them with its vocabulary."""
    wanted = f"must be a list of at most {count} integers"

    def check(value: Any) -> str:
        return "" if _is_list(value, count) and all(type(item) is int for item in value) else wanted

    return check


def members(count: int) -> Check:
    """An object with a bounded number of members."""
    wanted = f"must be an object of at most {count} members"

    def check(value: Any) -> str:
        return "" if type(value) is dict and len(value) <= count else wanted

    return check


def flags(count: int) -> Check:
    """An object whose members are true or false. The engine's own parser would also take text and numbers."""
    wanted = f"must be an object of at most {count} members, each true or false"

    def check(value: Any) -> str:
        is_object = type(value) is dict and len(value) <= count
        return (
            "" if is_object and all(type(each) in {bool, type(None)} for each in value.values()) else wanted
        )

    return check


def items(count: int) -> Check:
    """A list with a bounded number of items."""
    wanted = f"must be a list of at most {count} items"

    def check(value: Any) -> str:
        return "" if _is_list(value, count) else wanted

    return check


def text(length: int) -> Check:
    """A text of bounded length."""
    wanted = f"must be a text of at most {length} characters"

    def check(value: Any) -> str:
        return "" if _is_text(value, length) else wanted

    return check


def only(*values: object) -> Check:
    """One of a few values."""
    written = [orjson.dumps(value).decode() for value in values]
    wanted = f"must be {' or '.join(written)} here, or be left out"

    def check(value: Any) -> str:
        # True is 1 for Python, and not in JSON.
        return "" if any(type(value) is type(known) and value == known for known in values) else wanted

    return check


@dataclass(frozen=True, slots=True)
class Refused:
    """Check that refuses every value.

    Attributes:
        advice: what to write instead, as a clause.
    """

    advice: str

    def __call__(self, value: Any) -> str:
        return f"is not served: {self.advice}"


def prompts(count: int) -> Check:
    """One prompt or several, each a text or a list of token IDs."""
    wanted = f"must be a text, a list of token IDs, or a list of at most {count} of these"

    def check(value: Any) -> str:
        return "" if 0 < count_prompts(value) <= count else wanted

    return check


def count_prompts(value: Any) -> int:
    """Number of prompts in a value; 0 for one that has none, or is of another form."""
    if type(value) is str:
        return 1
    if type(value) is not list or not value:
        return 0
    first = type(value[0])
    if first is int:
        return 1
    if first in {str, list} and all(type(item) is first for item in value):
        return len(value)
    return 0


def _is_list(value: Any, count: int) -> bool:
    return type(value) is list and len(value) <= count


def _is_text(value: Any, length: int) -> bool:
    return type(value) is str and len(value) <= length
