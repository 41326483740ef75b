"""Which questions say the same, or nearly."""

import re
import unicodedata
from collections.abc import Iterable

from rensa import RMinHash, RMinHashLSH

from tunesmith_contract.run_config import NEAR_THRESHOLD
from tunesmith_data.rows.clean.compared_text import question_of
from tunesmith_data.rows.clean.question_index import Question, QuestionIndex
from tunesmith_data.rows.schema.formats import Row

_WORD = re.compile(r"\w+")
_ROUNDING = 1e-9
_PERMUTATIONS, _BANDS = 128, 32


class HeldOutQuestions:
    """What generated rows are kept free of: questions that are the same, nearly the same, or quoted.

    They are found as prepare finds leaks.

    Args:
        rows: of validation and of the evaluation's suites.
        threshold: Jaccard similarity from which two questions are alike.
    """

    def __init__(self, rows: Iterable[Row], threshold: float = NEAR_THRESHOLD) -> None:
        questions = dict.fromkeys(Question.of(question_of(row)) for row in rows)
        asked = [question for question in questions if question.text]
        self._index = QuestionIndex(asked, threshold, seed=0) if asked else None

    def holds(self, row: Row) -> bool:
        """Whether a row asks what a held-out row asks."""
        if self._index is None:
            return False
        return any(True for _ in self._index.find([Question.of(question_of(row))], [b""]))


class NearTexts:
    """Texts that were seen, and whether another shares most of its words with one of them.

    Likeness is Jaccard's: words in common by words of both together. MinHash (Broder 1997) brings texts together that
    may be alike, and those are compared; of pairs as like as the threshold 0.7, one in five thousand is missed.

    Args:
        threshold: likeness from which two texts are nearly the same.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._words: list[frozenset[str]] = []
        self._index = RMinHashLSH(threshold, _PERMUTATIONS, _BANDS)

    def add(self, text: str) -> None:
        """Remember a text."""
        words = _words(text)
        self._index.insert(len(self._words), _signature(words))
        self._words.append(words)

    def holds_like(self, text: str) -> bool:
        """Whether one of the texts is nearly this one."""
        words = _words(text)
        return any(self._is_like(words, self._words[key]) for key in self._index.query(_signature(words)))

    def _is_like(self, words: frozenset[str], others: frozenset[str]) -> bool:
        return bool(words) and len(words & others) >= self._threshold * len(words | others) - _ROUNDING


def normal(text: str) -> str:
    """A text's words, in small letters, with one space between."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _words(text: str) -> frozenset[str]:
    return frozenset(normal(text).split())


def _signature(words: frozenset[str]) -> RMinHash:
    signature = RMinHash(num_perm=_PERMUTATIONS, seed=0)
    signature.update(sorted(words))
    return signature
