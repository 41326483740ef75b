"""Finds training rows that validation or an evaluation holds too: whole, nearly, or quoted in a longer text.

What identifies a held-out row is its question, or its text where it has none: who has seen the question in training
is no longer asked it for the first time, whatever answer stood beside it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tunesmith_data.rows.findings import Place, excerpt
from tunesmith_data.rows.report.data_report import Leak
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, rejected_text, whole_text
from tunesmith_data.rows.table.record import Record

from .boilerplate import COMMON_ROWS, COMMON_SHARE
from .compared_text import RecordsOf, key_of, normalise, question_of
from .question_index import Likeness, Question, QuestionIndex

#: A question that more training rows ask than this, and than COMMON_SHARE of all, is an instruction.
COMMON_QUESTION = 50
#: Hits of a question that are remembered.
MOST_HITS = 1_000

_SAME_ROW = "same row"

_FETCHED = 1_000


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows that must not be trained on: validation, or a suite of an evaluation."""

    name: str
    records: Iterable[Record]


@dataclass(frozen=True, slots=True)
class LeakedRow:
    """A row to be removed from training: its record's index, and why."""

    index: int
    leak: Leak


@dataclass(frozen=True, slots=True)
class _Item:
    """A held-out row; ``content`` stands for question and answers."""

    held_out: str
    place: Place
    excerpt: str
    content: int


@dataclass(frozen=True, slots=True)
class _Hit:
    """A training row that holds a question."""

    index: int
    content: int
    likeness: Likeness


class _Asked:
    """A held-out question: whose it is, and the training rows that hold it."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self._hits: dict[str, list[_Hit]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, hit: _Hit) -> None:
        """Note a training row."""
        same = any(item.content == hit.content for item in self.items)
        kind = _SAME_ROW if same else hit.likeness.kind
        self._counts[kind] += 1
        if same or self._counts[kind] <= MOST_HITS:
            self._hits.setdefault(kind, []).append(hit)

    def hits(self, rows: int) -> list[_Hit]:
        """The training rows, of ``rows`` altogether; of what too many of them hold, those with the same answer."""
        return [
            hit
            for kind, hits in self._hits.items()
            if kind == _SAME_ROW or self._counts[kind] <= _hit_limit(kind, rows)
            for hit in hits
        ]

    def item_of(self, held_out: str, hit: _Hit) -> _Item | None:
        """The set's item that a training row holds; one with the same answer, if there is any."""
        items = [item for item in self.items if item.held_out == held_out]
        return max(items, key=lambda item: item.content == hit.content, default=None)


class Overlap:
    """Sees all training rows once, then says which are held out.

    It holds the held-out questions, and numbers of the training rows that hold one. A question that very many training
    rows hold, with other answers, is an instruction that identifies no row: more than 50, and than one in a thousand;
    of rows that are nearly the same, more than ten.

    Args:
        held_out: the sets; an item of several leaks from each.
        threshold: Jaccard similarity of shingles from which two questions are alike.
        seed: of the signatures.
    """

    def __init__(self, held_out: Sequence[HeldOut], threshold: float = 0.8, seed: int = 0) -> None:
        self._names = list(dict.fromkeys(each.name for each in held_out))
        self._rows = 0
        asked: dict[Question, _Asked] = {}
        for each in held_out:
            for record in each.records:
                item = _Item(each.name, record.place, excerpt(whole_text(record.row)), _content(record.row))
                asked.setdefault(Question.of(question_of(record.row)), _Asked()).items.append(item)
        self._asked = list(asked.values())
        self._index = QuestionIndex(list(asked), threshold, seed)

    def see(self, records: Sequence[Record]) -> None:
        """Take the next training rows into account."""
        self._rows += len(records)
        questions = [Question.of(question_of(record.row)) for record in records]
        answers = [normalise(_answers(record.row)) for record in records]
        found: dict[tuple[int, int], Likeness] = {}
        for row, number, likeness in self._index.find(questions, answers):
            found[row, number] = max(likeness, found.get((row, number), likeness))
        for (row, number), likeness in found.items():
            content = _content(records[row].row)
            self._asked[number].add(_Hit(records[row].index, content, likeness))

    def leaks(self, records_of: RecordsOf) -> Iterator[LeakedRow]:
        """The leaks in the order of the training rows; a row that is in several sets leaks from each, once.

        Args:
            records_of: fetches training rows by their indexes, in the order asked for.
        """
        found = sorted(self._surest().items())
        for begin in range(0, len(found), _FETCHED):
            part = found[begin : begin + _FETCHED]
            records = records_of([index for (index, _), _ in part])
            for record, ((index, held_out), (item, likeness)) in zip(records, part, strict=True):
                leak = Leak(
                    row=record.place,
                    held_out=self._names[held_out],
                    other=item.place,
                    kind=likeness.kind,
                    similarity=round(likeness.similarity, 4),
                    excerpt=excerpt(whole_text(record.row)),
                    other_excerpt=item.excerpt,
                )
                yield LeakedRow(index, leak)

    def _surest(self) -> dict[tuple[int, int], tuple[_Item, Likeness]]:
        """For each training row and set that has it, the item that is most alike."""
        surest: dict[tuple[int, int], tuple[_Item, Likeness]] = {}
        for asked in self._asked:
            for hit in asked.hits(self._rows):
                for number, name in enumerate(self._names):
                    best = surest.get((hit.index, number))
                    item = asked.item_of(name, hit)
                    if item and (best is None or hit.likeness > best[1]):
                        surest[hit.index, number] = (item, hit.likeness)
        return surest


def _hit_limit(kind: str, rows: int) -> float:
    """How many of so many training rows may hold a question that identifies a row."""
    least = COMMON_ROWS if kind == "near" else COMMON_QUESTION
    return min(MOST_HITS, max(least, COMMON_SHARE * rows))


def _answers(row: Row) -> str:
    """What stands beside the question."""
    return "" if "text" in row else f"{answer_text(row)}\n{rejected_text(row)}"


def _content(row: Row) -> int:
    return key_of(normalise(question_of(row)) + b"\0" + normalise(_answers(row)))
