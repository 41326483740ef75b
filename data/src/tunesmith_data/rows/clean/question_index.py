"""Index of questions: finds equal, similar and quoted ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import total_ordering

from tunesmith_contract.base import canonical_json

from .boilerplate import Boilerplate
from .compared_text import RowParts, content_key, normalize, numbers
from .minhash_signatures import Bands, SignatureIndex, Signatures, sign
from .quoted_passages import PassageIndex
from .text_similarity import ComparableRow

_ORDER = ("passage", "near", "exact")


@dataclass(frozen=True, slots=True)
class NormalizedQuestion:
    """Normalized question; ``key`` is a hash of the numbers in it, which must be equal."""

    text: bytes
    key: int

    @classmethod
    def of(cls, text: str) -> "NormalizedQuestion":
        """Normalized form of the text of a question."""
        return cls(normalize(text), content_key(canonical_json(numbers(text))))


@total_ordering
@dataclass(frozen=True, slots=True)
class QuestionMatch:
    """Match of a question in a text; ordered by certainty.

    Attributes:
        kind: exact, near or passage.
        similarity: 1, the Jaccard similarity, or the share of the question that is quoted.
    """

    kind: str
    similarity: float

    def __lt__(self, other: "QuestionMatch") -> bool:
        return (_ORDER.index(self.kind), self.similarity) < (_ORDER.index(other.kind), other.similarity)


class QuestionIndex:
    """Index of questions.

    Args:
        questions: distinct questions. Passages that many of them share are ignored.
        threshold: Jaccard similarity from which two questions are similar.
        seed: seed of the signatures.
    """

    def __init__(self, questions: Sequence[NormalizedQuestion], threshold: float, seed: int) -> None:
        self._questions, self._threshold, self._seed = questions, threshold, seed
        self._numbers = {question: number for number, question in enumerate(questions)}
        self._boilerplate = Boilerplate()
        self._boilerplate.update([[question.text] for question in questions])
        self._signatures = SignatureIndex(self._sign(questions), Bands.for_threshold(threshold), threshold)
        self._passages = PassageIndex([question.text for question in questions])

    def find(
        self, questions: Sequence[NormalizedQuestion], answers: Sequence[bytes]
    ) -> Iterator[tuple[int, int, QuestionMatch]]:
        """Matches as (row number, question number, match).

        Args:
            questions: the questions of the rows.
            answers: the other texts of the rows, normalized.
        """
        for row, question in enumerate(questions):
            if (number := self._numbers.get(question)) is not None:
                yield row, number, QuestionMatch("exact", 1.0)
        yield from self._find_near(questions)
        texts = [
            b" ".join((question.text, answer)) for question, answer in zip(questions, answers, strict=True)
        ]
        for row, number, share in self._passages.find(texts):
            yield row, number, QuestionMatch("passage", share)

    def _find_near(self, questions: Sequence[NormalizedQuestion]) -> Iterator[tuple[int, int, QuestionMatch]]:
        for row, number in self._signatures.find(self._sign(questions)):
            one, other = self._compared(questions[row]), self._compared(self._questions[number])
            similarity = one.similarity(other, self._threshold)
            if similarity is not None and questions[row] != self._questions[number]:
                yield row, number, QuestionMatch("near", similarity)

    def _compared(self, question: NormalizedQuestion) -> ComparableRow:
        return ComparableRow(RowParts((question.text,), question.key), self._boilerplate)

    def _sign(self, questions: Sequence[NormalizedQuestion]) -> Signatures:
        stripped = self._boilerplate.strip([question.text for question in questions])
        rows = [RowParts((text,), question.key) for text, question in zip(stripped, questions, strict=True)]
        return sign(rows, self._seed)
