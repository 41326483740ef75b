"""Finds questions again: the same, nearly the same, or quoted in longer texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import total_ordering

from tunesmith_contract.base import canonical_json

from .boilerplate import Boilerplate
from .compared_text import Parts, key_of, normalise, numbers
from .minhash_signatures import Bands, SignatureIndex, Signatures, sign
from .quoted_passages import PassageIndex
from .text_similarity import Compared

_ORDER = ("passage", "near", "exact")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, normalised; ``key`` stands for the numbers in it, which have to be the same."""

    text: bytes
    key: int

    @classmethod
    def of(cls, text: str) -> "Question":
        """The question that a text asks."""
        return cls(normalise(text), key_of(canonical_json(numbers(text))))


@total_ordering
@dataclass(frozen=True, slots=True)
class Likeness:
    """How a text holds a question; the surer, the greater.

    Attributes:
        kind: exact, near or passage.
        similarity: 1, the Jaccard similarity, or the share of the question that is quoted.
    """

    kind: str
    similarity: float

    def __lt__(self, other: "Likeness") -> bool:
        return (_ORDER.index(self.kind), self.similarity) < (_ORDER.index(other.kind), other.similarity)


class QuestionIndex:
    """Questions, ready to be found.

    Args:
        questions: each another one. What many of them say in the same words counts for nothing.
        threshold: Jaccard similarity from which two questions are alike.
        seed: of the signatures.
    """

    def __init__(self, questions: Sequence[Question], threshold: float, seed: int) -> None:
        self._questions, self._threshold, self._seed = questions, threshold, seed
        self._numbers = {question: number for number, question in enumerate(questions)}
        self._boilerplate = Boilerplate()
        self._boilerplate.see([[question.text] for question in questions])
        self._signatures = SignatureIndex(self._sign(questions), Bands.for_threshold(threshold), threshold)
        self._passages = PassageIndex([question.text for question in questions])

    def find(
        self, questions: Sequence[Question], answers: Sequence[bytes]
    ) -> Iterator[tuple[int, int, Likeness]]:
        """Which rows hold which questions: (number of the row, number of the question, how).

        Args:
            questions: what rows ask.
            answers: what else they say, normalised.
        """
        for row, question in enumerate(questions):
            if (number := self._numbers.get(question)) is not None:
                yield row, number, Likeness("exact", 1.0)
        yield from self._find_near(questions)
        texts = [
            b" ".join((question.text, answer)) for question, answer in zip(questions, answers, strict=True)
        ]
        for row, number, share in self._passages.find(texts):
            yield row, number, Likeness("passage", share)

    def _find_near(self, questions: Sequence[Question]) -> Iterator[tuple[int, int, Likeness]]:
        for row, number in self._signatures.find(self._sign(questions)):
            one, other = self._compared(questions[row]), self._compared(self._questions[number])
            similarity = one.similarity(other, self._threshold)
            if similarity is not None and questions[row] != self._questions[number]:
                yield row, number, Likeness("near", similarity)

    def _compared(self, question: Question) -> Compared:
        return Compared(Parts((question.text,), question.key), self._boilerplate)

    def _sign(self, questions: Sequence[Question]) -> Signatures:
        stripped = self._boilerplate.strip([question.text for question in questions])
        rows = [Parts((text,), question.key) for text, question in zip(stripped, questions, strict=True)]
        return sign(rows, self._seed)
