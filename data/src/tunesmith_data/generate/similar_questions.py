"""Similarity of questions: held-out questions, and near duplicates of earlier ones."""

import re
import unicodedata
from collections.abc import Iterable

from rensa import RMinHash, RMinHashLSH

from tunesmith_contract.run_config import NEAR_THRESHOLD
from tunesmith_data.rows.clean.compared_text import identifying_text
from tunesmith_data.rows.clean.question_index import NormalizedQuestion, QuestionIndex
from tunesmith_data.rows.schema.formats import Row

_WORD = re.compile(r"\w+")
_ROUNDING = 1e-9
_PERMUTATIONS, _BANDS = 128, 32


class HeldOutQuestions:
    """Held-out questions; generated rows must not equal, nearly equal or quote one.

    They are found as prepare finds leaks.

    Args:
        rows: rows of validation and of the evaluation's suites.
        threshold: Jaccard similarity from which two questions are similar.
    """

    def __init__(self, rows: Iterable[Row], threshold: float = NEAR_THRESHOLD) -> None:
        questions = dict.fromkeys(NormalizedQuestion.of(identifying_text(row)) for row in rows)
        non_empty = [question for question in questions if question.text]
        self._index = QuestionIndex(non_empty, threshold, seed=0) if non_empty else None

    def contains(self, row: Row) -> bool:
        """True if a row contains a held-out question."""
        if self._index is None:
            return False
        return any(True for _ in self._index.find([NormalizedQuestion.of(identifying_text(row))], [b""]))


class SimilarTexts:
    """Set of texts with a search for texts that have mostly the same words.

    Similarity is the Jaccard index: words in common divided by words of both together. MinHash (Broder 1997) finds
    candidates, which are then compared; of pairs at the threshold 0.7, one in five thousand is missed.

    Args:
        threshold: similarity from which two texts are nearly equal.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._words: list[frozenset[str]] = []
        self._index = RMinHashLSH(threshold, _PERMUTATIONS, _BANDS)

    def add(self, text: str) -> None:
        """Add a text."""
        words = _words(text)
        self._index.insert(len(self._words), _signature(words))
        self._words.append(words)

    def contains_similar(self, text: str) -> bool:
        """True if one of the texts is similar to this one."""
        words = _words(text)
        return any(self._is_similar(words, self._words[key]) for key in self._index.query(_signature(words)))

    def _is_similar(self, words: frozenset[str], others: frozenset[str]) -> bool:
        return bool(words) and len(words & others) >= self._threshold * len(words | others) - _ROUNDING


def normalize_words(text: str) -> str:
    """Words of a text in lower case, separated by one space."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _words(text: str) -> frozenset[str]:
    return frozenset(normalize_words(text).split())


def _signature(words: frozenset[str]) -> RMinHash:
    signature = RMinHash(num_perm=_PERMUTATIONS, seed=0)
    signature.update(sorted(words))
    return signature
