"""JSON values in answers, and their equality."""

import json
from typing import Any, NoReturn

from .words import normalize_whitespace

#: Maximum failed parses: hostile answers must not take forever.
_MAX_ATTEMPTS = 1000
_FENCE = "```"
#: Raised by text that is no JSON, and by values that are too deep or too large.
PARSE_ERRORS = (ValueError, RecursionError, ArithmeticError)


def parse_json(text: str) -> Any:
    """Value of a text that is JSON as a whole (RFC 8259).

    Raises:
        ValueError: it is none, an object has a key twice, or a value is NaN or infinite.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse)


def find_object(text: str) -> dict[str, Any] | None:
    """First JSON object in a text; None if there is none."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse)
    position = text.find("{")
    for _ in range(_MAX_ATTEMPTS):
        if position < 0:
            return None
        try:
            value, _ = decoder.raw_decode(text, position)
        except PARSE_ERRORS:
            position = text.find("{", position + 1)
        else:
            return value if isinstance(value, dict) else None
    return None


def strip_code_block(text: str) -> str:
    """Content of the one block of code that a text consists of; other text unchanged."""
    stripped = text.strip()
    opening, _, rest = stripped.partition("\n")
    if not opening.startswith(_FENCE) or not rest.endswith(_FENCE) or _FENCE in opening[len(_FENCE) :]:
        return text
    content = rest[: -len(_FENCE)]
    return text if _FENCE in content else content


def json_equal(left: Any, right: Any, *, loose_text: bool = False) -> bool:
    """Equality of JSON values: 1 and 1.0 are equal, 1 and true are not.

    Args:
        left, right: the values.
        loose_text: whitespace in texts is normalized.

    Raises:
        RecursionError: both are nested too deeply.
    """
    if isinstance(left, str) and isinstance(right, str):
        return left == right or (loose_text and normalize_whitespace(left) == normalize_whitespace(right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            json_equal(one, other, loose_text=loose_text) for one, other in zip(left, right, strict=True)
        )
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            json_equal(value, right[key], loose_text=loose_text) for key, value in left.items()
        )
    return bool(left == right)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has a key twice")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
