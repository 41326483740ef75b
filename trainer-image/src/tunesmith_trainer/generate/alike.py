"""Which questions say the same, or nearly."""

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

from tunesmith_trainer.data.formats import Row
from tunesmith_trainer.data.texts import prompt_text

_WORD = re.compile(r"\w+")
_ROUNDING = 1e-9


class HeldOutQuestions(Protocol):
    """What generated rows are kept free of."""

    def holds(self, row: Row) -> bool:
        """Whether a row asks what a held-out row asks."""


class SameQuestions:
    """Held-out questions that are repeated word for word; case, punctuation and spaces aside."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._questions = {normal(prompt_text(row)) for row in rows} - {""}

    def holds(self, row: Row) -> bool:
        """Whether a row asks what a held-out row asks."""
        return normal(prompt_text(row)) in self._questions


class NearTexts:
    """Texts that were seen, and whether another shares most of its words with one of them.

    Likeness is Jaccard's: words in common by words of both together. Two texts as like as that have one of their first
    few words in common, in whatever order all words are brought, so only those are compared (Bayardo et al. 2007,
    "Scaling up all pairs similarity search").

    Args:
        threshold: likeness from which two texts are nearly the same, above 0.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._words: list[frozenset[str]] = []
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, text: str) -> None:
        """Remember a text."""
        words = frozenset(normal(text).split())
        for word in self._first(words):
            self._by_word[word].append(len(self._words))
        self._words.append(words)

    def holds_like(self, text: str) -> bool:
        """Whether one of the texts is nearly this one."""
        words = frozenset(normal(text).split())
        candidates = {number for word in self._first(words) for number in self._by_word.get(word, ())}
        return any(self._is_like(words, self._words[number]) for number in candidates)

    def _is_like(self, words: frozenset[str], others: frozenset[str]) -> bool:
        return len(words & others) >= self._threshold * len(words | others) - _ROUNDING

    def _first(self, words: frozenset[str]) -> list[str]:
        """Long words first, since they are rare."""
        count = len(words) - math.ceil(self._threshold * len(words) - _ROUNDING) + 1
        return sorted(words, key=lambda word: (-len(word), word))[:count] if words else []


def normal(text: str) -> str:
    """A text's words, in small letters, with one space between."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))
