"""Overlap of items with other rows: questions that are equal, nearly equal, or quoted, under any system message.

It is the comparison by which data preparation holds evaluation suites out of training, with the same thresholds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith_contract.run_config import NEAR_THRESHOLD
from tunesmith_data.rows.clean.held_out_overlap import HeldOutOverlap, HeldOutSet
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.table.record import Record

from .item import EvaluationItem

_SET = "items"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Overlap of an item with a row.

    Attributes:
        kind: exact, near or passage.
        similarity: 1, the Jaccard similarity of shingles, or the share of the question that is quoted.
    """

    kind: str
    similarity: float


class ItemOverlap:
    """Finder of the overlap of items with other rows, in one pass over those.

    Args:
        items: the items; distinct by their digests.
        threshold: similarity from which two questions are similar.
    """

    def __init__(self, items: Iterable[EvaluationItem], threshold: float = NEAR_THRESHOLD) -> None:
        self._items = list({item.digest: item for item in items}.values())
        records = [
            Record(number, item.file, item.line, asked_row(item)) for number, item in enumerate(self._items)
        ]
        self._overlap = HeldOutOverlap([HeldOutSet(_SET, records)], threshold)
        self._rows = 0

    def update(self, rows: Sequence[Row]) -> None:
        """Add the next rows, in canonical form."""
        numbered = [Record(self._rows + number, "", 0, row) for number, row in enumerate(rows)]
        self._overlap.update(numbered)
        self._rows += len(rows)

    def items(self) -> dict[str, Overlap]:
        """Overlap of each item that a row contains, by the item's digest."""
        return {
            self._items[leak.index].digest: Overlap(leak.match.kind, round(leak.match.similarity, 4))
            for leak in self._overlap.leaked_items()
        }


def overlapping_rows(items: Sequence[EvaluationItem], rows: Sequence[Row]) -> set[int]:
    """Indices of the rows that overlap with an item.

    Args:
        items: the items.
        rows: other rows in canonical form, few enough for memory.
    """
    records = [Record(number, item.file, item.line, asked_row(item)) for number, item in enumerate(items)]
    overlap = HeldOutOverlap([HeldOutSet(_SET, records)], NEAR_THRESHOLD)
    numbered = [Record(number, "", 0, row) for number, row in enumerate(rows)]
    overlap.update(numbered)
    return {leak.index for leak in overlap.leaks(lambda indices: [numbered[index] for index in indices])}


def asked_row(item: EvaluationItem) -> Row:
    """Row of an item up to its expected answer, which is compared as its question."""
    if not item.messages:
        return item.row
    return {"messages": [*item.messages, item.answer], **({"tools": list(item.tools)} if item.tools else {})}


def group_by_suite(
    overlaps: Mapping[str, Overlap], items: Mapping[str, Sequence[EvaluationItem]]
) -> dict[str, dict[str, Overlap]]:
    """Overlaps of the items of each suite."""
    return {
        suite: {item.digest: overlaps[item.digest] for item in some if item.digest in overlaps}
        for suite, some in items.items()
    }
