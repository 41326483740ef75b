"""Scores of answers, from 0 (wrong) to 1 (right).

- ``ExactMatch``: 1 if answer and expectation are equal once white space is trimmed and its runs are one
  blank.
- ``JSONFields``: of an object with expected keys E and an answer with keys A, the number of keys of E whose
  values are equal, divided by the number of keys in E or A: a missing, a wrong and a superfluous key each
  cost the same. The first JSON object in the answer counts; text around it doesn't. An answer without one
  scores 0. Values are equal as JSON (1 and 1.0 are, 1 and true are not), strings up to white space.
"""

import json
from collections.abc import Callable
from typing import Any

from tunesmith_contract.run_config import Metric

#: Metrics whose scores are 0 or 1.
BINARY = frozenset({Metric.EXACT_MATCH})


def score(metric: Metric, answer: str, expected: str) -> float:
    """The score of an answer."""
    return _SCORERS[metric](answer, expected)


def accepts(metric: Metric, expected: str) -> bool:
    """Whether a metric can compare with this expectation: ``JSONFields`` needs an object with keys."""
    return metric != Metric.JSON_FIELDS or bool(_expected_object(expected))


def exact_match(answer: str, expected: str) -> float:
    """1 if both are the same text, up to white space."""
    return float(normalise(answer) == normalise(expected))


def json_fields(answer: str, expected: str) -> float:
    """The share of keys that are right."""
    wanted = _expected_object(expected) or {}
    given = find_object(answer)
    if given is None:
        return 0.0
    right = sum(key in given and _equal(given[key], value) for key, value in wanted.items())
    return right / len(wanted.keys() | given.keys())


def normalise(text: str) -> str:
    """The text with white space trimmed and its runs made one blank."""
    return " ".join(text.split())


def find_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text."""
    decoder = json.JSONDecoder()
    position = text.find("{")
    while position >= 0:
        try:
            value, _ = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            position = text.find("{", position + 1)
        else:
            return value if isinstance(value, dict) else None
    return None


def _expected_object(expected: str) -> dict[str, Any] | None:
    try:
        value = json.loads(expected)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return normalise(left) == normalise(right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return bool(left == right)


_SCORERS: dict[Metric, Callable[[str, str], float]] = {
    Metric.EXACT_MATCH: exact_match,
    Metric.JSON_FIELDS: json_fields,
}
