"""Training rows that overlap with held-out rows: equal, nearly equal, or quoted.

What identifies a held-out row is its question, or its text where it has none: who has seen the question in training
is no longer asked it for the first time, whatever the answer was.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tunesmith_data.rows.findings import RowPlace, excerpt
from tunesmith_data.rows.report.data_report import Leak
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, rejected_text, whole_text
from tunesmith_data.rows.table.record import Record

from .boilerplate import COMMON_ROWS, COMMON_SHARE
from .compared_text import RecordsOf, content_key, identifying_text, normalize
from .question_index import NormalizedQuestion, QuestionIndex, QuestionMatch

#: A question that more training rows ask than this, and than COMMON_SHARE of all, is an instruction.
COMMON_QUESTION_ROWS = 50
#: Maximum matches kept for a question.
MOST_HITS = 1_000

_SAME_ROW = "same row"

_FETCH_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """Rows that must not be trained on: validation, or a suite of an evaluation."""

    name: str
    records: Iterable[Record]


@dataclass(frozen=True, slots=True)
class LeakedRow:
    """A row to be removed from training: its record's index, and why."""

    index: int
    leak: Leak


@dataclass(frozen=True, slots=True)
class LeakedItem:
    """A held-out row that a training row contains.

    Attributes:
        held_out: name of its set.
        index: its record's index in that set.
        match: the surest match.
        row: index of the training row.
    """

    held_out: str
    index: int
    match: QuestionMatch
    row: int


@dataclass(frozen=True, slots=True)
class _HeldOutItem:
    """Held-out row; ``content`` is a hash of question and answers."""

    held_out: str
    index: int
    place: RowPlace
    excerpt: str
    content: int


@dataclass(frozen=True, slots=True)
class _Hit:
    """Training row that contains a held-out question."""

    index: int
    content: int
    match: QuestionMatch


class _HeldOutQuestion:
    """Held-out question with its items and the training rows that contain it."""

    def __init__(self) -> None:
        self.items: list[_HeldOutItem] = []
        self._hits: dict[str, list[_Hit]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, hit: _Hit) -> None:
        """Note a training row."""
        same = any(item.content == hit.content for item in self.items)
        kind = _SAME_ROW if same else hit.match.kind
        self._counts[kind] += 1
        if same or self._counts[kind] <= MOST_HITS:
            self._hits.setdefault(kind, []).append(hit)

    def hits(self, rows: int) -> list[_Hit]:
        """Matching training rows; of kinds that match too many of all ``rows``, only those with the same answer."""
        return [
            hit
            for kind, hits in self._hits.items()
            if kind == _SAME_ROW or self._counts[kind] <= _max_hits(kind, rows)
            for hit in hits
        ]

    def item_of(self, held_out: str, hit: _Hit) -> _HeldOutItem | None:
        """Item of the set that a training row matches; preferably with the same answer."""
        items = [item for item in self.items if item.held_out == held_out]
        return max(items, key=lambda item: item.content == hit.content, default=None)


class HeldOutOverlap:
    """Finder of training rows that overlap with held-out rows, in one pass.

    It holds the held-out questions, and numbers of the training rows that hold one. A question that very many training
    rows hold, with other answers, is an instruction that identifies no row: more than 50, and than one in a thousand;
    of rows that are nearly the same, more than ten.

    Args:
        held_out: the sets; an item of several leaks from each.
        threshold: Jaccard similarity of shingles from which two questions are similar.
        seed: seed of the signatures.
    """

    def __init__(self, held_out: Sequence[HeldOutSet], threshold: float = 0.8, seed: int = 0) -> None:
        self._names = list(dict.fromkeys(held_out_set.name for held_out_set in held_out))
        self._rows = 0
        questions: dict[NormalizedQuestion, _HeldOutQuestion] = {}
        for held_out_set in held_out:
            for record in held_out_set.records:
                item = _HeldOutItem(
                    held_out_set.name,
                    record.index,
                    record.place,
                    excerpt(whole_text(record.row)),
                    _content(record.row),
                )
                questions.setdefault(
                    NormalizedQuestion.of(identifying_text(record.row)), _HeldOutQuestion()
                ).items.append(item)
        self._questions = list(questions.values())
        self._index = QuestionIndex(list(questions), threshold, seed)

    def update(self, records: Sequence[Record]) -> None:
        """Add the next training rows."""
        self._rows += len(records)
        questions = [NormalizedQuestion.of(identifying_text(record.row)) for record in records]
        answers = [normalize(_answers(record.row)) for record in records]
        matches: dict[tuple[int, int], QuestionMatch] = {}
        for row, number, match in self._index.find(questions, answers):
            matches[row, number] = max(match, matches.get((row, number), match))
        for (row, number), match in matches.items():
            content = _content(records[row].row)
            self._questions[number].add(_Hit(records[row].index, content, match))

    def leaks(self, records_of: RecordsOf) -> Iterator[LeakedRow]:
        """Leaks in the order of training rows; one for each set that a row overlaps with.

        Args:
            records_of: fetches training rows by their indexes, in the order asked for.
        """
        best_matches = sorted(self._best_matches().items())
        for begin in range(0, len(best_matches), _FETCH_BATCH):
            part = best_matches[begin : begin + _FETCH_BATCH]
            records = records_of([index for (index, _), _ in part])
            for record, ((index, held_out), (item, match)) in zip(records, part, strict=True):
                leak = Leak(
                    row=record.place,
                    held_out=self._names[held_out],
                    other=item.place,
                    kind=match.kind,
                    similarity=round(match.similarity, 4),
                    excerpt=excerpt(whole_text(record.row)),
                    other_excerpt=item.excerpt,
                )
                yield LeakedRow(index, leak)

    def leaked_items(self) -> Iterator[LeakedItem]:
        """Held-out rows whose question a training row contains; all rows that ask the same question leak together."""
        for question in self._questions:
            best = max(question.hits(self._rows), key=lambda hit: hit.match, default=None)
            if best is not None:
                for item in question.items:
                    yield LeakedItem(item.held_out, item.index, best.match, best.index)

    def _best_matches(self) -> dict[tuple[int, int], tuple[_HeldOutItem, QuestionMatch]]:
        """For each training row and held-out set, the most similar item."""
        surest: dict[tuple[int, int], tuple[_HeldOutItem, QuestionMatch]] = {}
        for question in self._questions:
            for hit in question.hits(self._rows):
                for number, name in enumerate(self._names):
                    best = surest.get((hit.index, number))
                    item = question.item_of(name, hit)
                    if item and (best is None or hit.match > best[1]):
                        surest[hit.index, number] = (item, hit.match)
        return surest


def _max_hits(kind: str, rows: int) -> float:
    """Number of training rows up to which a question identifies a row."""
    least = COMMON_ROWS if kind == "near" else COMMON_QUESTION_ROWS
    return min(MOST_HITS, max(least, COMMON_SHARE * rows))


def _answers(row: Row) -> str:
    """Answers of a row, apart from the question."""
    return "" if "text" in row else f"{answer_text(row)}\n{rejected_text(row)}"


def _content(row: Row) -> int:
    return content_key(normalize(identifying_text(row)) + b"\0" + normalize(_answers(row)))
