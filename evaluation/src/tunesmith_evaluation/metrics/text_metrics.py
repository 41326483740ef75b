"""Metrics: scores of an answer against the expected one, from 0 (wrong) to 1 (right).

- ``ExactMatch``: 1 if answer and expected answer are equal after whitespace is trimmed and collapsed.
- ``JSONFields``: of an object with expected keys E and an answer with keys A, the number of keys of E whose
  values are equal, divided by the number of keys in E or A: a missing, a wrong and an extra key each
  cost the same. The first JSON object in the answer counts; text around it doesn't. An answer without one
  scores 0. Values are equal as JSON (1 and 1.0 are, 1 and true are not), strings up to whitespace.
"""

import json
from collections.abc import Callable
from typing import Any

from tunesmith_contract.evaluation import Metric

#: Metrics whose scores are 0 or 1.
BINARY_METRICS = frozenset({Metric.EXACT_MATCH})


def score(metric: Metric, answer: str, expected: str) -> float:
    """Score of an answer, in [0, 1]."""
    return _SCORERS[metric](answer, expected)


def accepts(metric: Metric, expected: str) -> bool:
    """True if a metric can score against this expected answer: ``JSONFields`` needs an object with keys."""
    return metric != Metric.JSON_FIELDS or bool(_expected_object(expected))


def exact_match(answer: str, expected: str) -> float:
    """1.0 if both are the same text up to whitespace, else 0.0."""
    return float(normalize_whitespace(answer) == normalize_whitespace(expected))


def json_fields(answer: str, expected: str) -> float:
    """Number of keys with the expected value, divided by the number of keys in either object."""
    expected_object = _expected_object(expected) or {}
    answer_object = find_object(answer)
    if answer_object is None:
        return 0.0
    correct = sum(
        key in answer_object and _equal(answer_object[key], value) for key, value in expected_object.items()
    )
    return correct / len(expected_object.keys() | answer_object.keys())


def normalize_whitespace(text: str) -> str:
    """The text with whitespace trimmed and each run of it replaced by one blank."""
    return " ".join(text.split())


def find_object(text: str) -> dict[str, Any] | None:
    """First JSON object in a text; None if there is none."""
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
        return normalize_whitespace(left) == normalize_whitespace(right)
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
