"""Extraction of JSON, scores and choices from the answers of language models."""

import json
import re
from collections.abc import Iterator
from typing import Any

#: Maximum failed parses: hostile answers must not take forever.
_MAX_ATTEMPTS = 1000
_REASONING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_SCORE_PATTERNS = (
    re.compile(r"\b(\d+(?:\.\d+)?)\s*(?:/|out of)\s*10\b", re.IGNORECASE),
    re.compile(r"(?:score|rating)\W*(?:is|of)?\W*(\d+(?:\.\d+)?)", re.IGNORECASE),
    re.compile(r"^\W*(\d+(?:\.\d+)?)\W*$"),
)
LOWEST, HIGHEST = 1.0, 10.0


def find_objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost JSON objects in a text; of a list that was cut off, those that are whole."""
    decoder = json.JSONDecoder()
    text = without_reasoning(text)
    position, attempts = text.find("{"), 0
    while position >= 0 and attempts < _MAX_ATTEMPTS:
        try:
            value, position = decoder.raw_decode(text, position)
            yield value
        except (ValueError, RecursionError):
            attempts += 1
            position += 1
        position = text.find("{", position)


def find_text(members: dict[str, Any], *names: str) -> str | None:
    """The first of the members that is text with something in it."""
    texts = (members.get(name) for name in names)
    return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), None)


def find_score(text: str) -> float | None:
    """Score from 1 to 10 in a judge's answer: the last one as JSON, else in words; None if there is none."""
    objects = [members["score"] for members in find_objects(text) if "score" in members]
    if objects:
        return _in_range(objects[-1])
    text = without_reasoning(text)
    for pattern in _SCORE_PATTERNS:
        if numbers := pattern.findall(text):
            return _in_range(numbers[-1])
    return None


def find_choice(text: str, letters: str) -> tuple[int, int] | None:
    """Indexes of the answers that a judge calls best and worst; None if the judge is unclear."""
    for members in reversed(list(find_objects(text))):
        chosen = [str(members.get(name, "")).strip().upper() for name in ("best", "worst")]
        if all(len(letter) == 1 and letter in letters for letter in chosen) and chosen[0] != chosen[1]:
            return letters.index(chosen[0]), letters.index(chosen[1])
    return None


def without_reasoning(text: str) -> str:
    """Answer without the reasoning before it."""
    return _REASONING.sub("", text)


def _in_range(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if LOWEST <= number <= HIGHEST else None
