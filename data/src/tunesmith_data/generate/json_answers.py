"""What models write when they are asked for JSON: with words around it, in fences, cut off."""

import json
import re
from collections.abc import Iterator
from typing import Any

#: Braces that may begin no object: hostile answers are not read for ever.
_MOST_ATTEMPTS = 1000
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_SCORED = (
    re.compile(r"\b(\d+(?:\.\d+)?)\s*(?:/|out of)\s*10\b", re.IGNORECASE),
    re.compile(r"(?:score|rating)\W*(?:is|of)?\W*(\d+(?:\.\d+)?)", re.IGNORECASE),
    re.compile(r"^\W*(\d+(?:\.\d+)?)\W*$"),
)
LOWEST, HIGHEST = 1.0, 10.0


def find_objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost JSON objects in a text; of a list that was cut off, those that are whole."""
    decoder = json.JSONDecoder()
    text = without_thoughts(text)
    position, attempts = text.find("{"), 0
    while position >= 0 and attempts < _MOST_ATTEMPTS:
        try:
            value, position = decoder.raw_decode(text, position)
            yield value
        except (ValueError, RecursionError):
            attempts += 1
            position += 1
        position = text.find("{", position)


def find_text(found: dict[str, Any], *names: str) -> str | None:
    """The first of the members that is text with something in it."""
    texts = (found.get(name) for name in names)
    return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), None)


def find_score(text: str) -> float | None:
    """A judge's number from 1 to 10: the last one that it gives as JSON, else as words; None if it gives none."""
    objects = [found["score"] for found in find_objects(text) if "score" in found]
    if objects:
        return _in_range(objects[-1])
    text = without_thoughts(text)
    for pattern in _SCORED:
        if found := pattern.findall(text):
            return _in_range(found[-1])
    return None


def find_choice(text: str, letters: str) -> tuple[int, int] | None:
    """Which answers a judge calls the best and the worst, by their places; None if that is not said clearly."""
    for found in reversed(list(find_objects(text))):
        chosen = [str(found.get(name, "")).strip().upper() for name in ("best", "worst")]
        if all(len(letter) == 1 and letter in letters for letter in chosen) and chosen[0] != chosen[1]:
            return letters.index(chosen[0]), letters.index(chosen[1])
    return None


def without_thoughts(text: str) -> str:
    """An answer without what a model thinks aloud before it."""
    return _THOUGHT.sub("", text)


def _in_range(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if LOWEST <= number <= HIGHEST else None
