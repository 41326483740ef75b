"""Scorers of answers that are JSON or XML."""

from functools import lru_cache
from typing import Any

import defusedxml
from defusedxml import ElementTree

from tunesmith_data.failures import UserError
from tunesmith_data.rewards.json_schema import compile_schema
from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import Expected
from .json_values import PARSE_ERRORS, find_object, json_equal, parse_json, strip_code_block
from .scorer import MAX_NAMES, Score, TextScorer, binary


class JSONValid(TextScorer):
    """1 if the whole answer is JSON (RFC 8259); one block of code around it doesn't count."""

    name = "JSONValid"
    kind = ScoreKind.BINARY
    needs_text = False

    def score_text(self, expected: Expected, text: str) -> Score:
        """1 for JSON."""
        try:
            parse_json(strip_code_block(text))
        except PARSE_ERRORS:
            return binary(False)
        return binary(True)


class JSONSchema(TextScorer):
    """1 if the whole answer is JSON and matches a schema; one block of code around it doesn't count.

    Args:
        schema: JSON text of the schema; None if each item has its own.

    Raises:
        UserError: it is no schema, or asks for what is not allowed.
    """

    name = "JSONSchema"
    kind = ScoreKind.BINARY
    needs_text = False

    def __init__(self, schema: str | None = None) -> None:
        self._validator = _validator(schema) if schema is not None else None

    def _check(self, expected: Expected) -> str | None:
        if expected.json_schema is None:
            missing = "has no schema: write one into the row or into the metric's jsonSchema"
            return None if self._validator is not None else f"{expected.subject} {missing}"
        try:
            _validator(expected.json_schema)
        except UserError as error:
            return f"{expected.subject} has a wrong schema: {error.message}"
        return None

    def score_text(self, expected: Expected, text: str) -> Score:
        """1 for a match."""
        own = expected.json_schema
        validator: Any = self._validator if own is None else _validator(own)
        try:
            return binary(validator.is_valid(parse_json(strip_code_block(text))))
        except PARSE_ERRORS:
            return binary(False)


class JSONFields(TextScorer):
    """Share of the right members of an object: right / (keys expected or written).

    A missing, a wrong and a superfluous key each cost the same. The first JSON object in the answer counts; text around
    it doesn't. Values are equal as JSON, texts up to whitespace.
    """

    name = "JSONFields"
    version = "2"

    def _check(self, expected: Expected) -> str | None:
        if expected.text.strip() and not _expected_object(expected):
            advice = 'write an object with members, such as {"aisle": 4}'
            return f"{expected.subject} is no JSON object, which JSONFields compares with: {advice}"
        return None

    def score_text(self, expected: Expected, text: str) -> Score:
        """Share of right members."""
        wanted = _expected_object(expected) or {}
        found = find_object(text)
        if found is None:
            return Score(0.0, {"object": False})
        wrong = sorted(key for key in wanted if key not in found or not _same(found[key], wanted[key]))
        extra = sorted(found.keys() - wanted.keys())
        right = len(wanted) - len(wrong)
        return Score(
            right / len(wanted.keys() | found.keys()),
            {"wrong": wrong[:MAX_NAMES], "extra": extra[:MAX_NAMES]},
        )


class XMLValid(TextScorer):
    """1 if the whole answer is well-formed XML; one block of code around it doesn't count.

    Document types and entities are refused: they let a few bytes grow without limit, or read files.
    """

    name = "XMLValid"
    kind = ScoreKind.BINARY
    needs_text = False

    def score_text(self, expected: Expected, text: str) -> Score:
        """1 for XML."""
        try:
            ElementTree.fromstring(strip_code_block(text).strip(), forbid_dtd=True)
        except (ElementTree.ParseError, defusedxml.DefusedXmlException, ValueError):
            return binary(False)
        return binary(True)


def _expected_object(expected: Expected) -> dict[str, Any] | None:
    try:
        value = parse_json(strip_code_block(expected.text))
    except PARSE_ERRORS:
        return None
    return value if isinstance(value, dict) else None


def _same(left: Any, right: Any) -> bool:
    try:
        return json_equal(left, right, loose_text=True)
    except RecursionError:
        return False


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    return compile_schema(schema, "metric JSONSchema", "MetricSchema")
