"""What every check of quality is; and what checks of single rows have in common."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES

from .array_types import Mask, Positions
from .columns import Columns
from .evidence import Evidence, Suspects
from .row_views import RowView


class QualityCheck(Protocol):
    """Sees each row that is kept (for training or validation) once, in batches and in order.

    It holds numbers of rows, and no text: there may be millions. What it says depends on the rows, not on their order.
    """

    def see(self, rows: Sequence[RowView]) -> None:
        """Take the next rows into account."""

    def finish(self, columns: Columns) -> Iterator[Evidence]:
        """What there is to say of all of them."""


class ColumnCheck(ABC):
    """A check that goes by the columns, or by a sample, alone."""

    def see(self, rows: Sequence[RowView]) -> None:
        """Keep nothing: the columns hold all that is needed."""
        del rows

    @abstractmethod
    def finish(self, columns: Columns) -> Iterator[Evidence]:
        """What there is to say."""


class Look(NamedTuple):
    """What is odd about one row; ``score`` from 0 to 1 says how sure that is."""

    detail: str
    score: float = 1.0


class RowCheck(ABC):
    """A check that looks at each row by itself, and at the end judges by how many were odd."""

    def __init__(self) -> None:
        self._positions = array("Q")
        self._scores = array("d")

    @abstractmethod
    def look(self, row: RowView) -> Look | None:
        """What is odd about a row."""

    @abstractmethod
    def judge(self, suspects: Suspects, columns: Columns) -> Evidence | None:
        """What to say of so many odd rows, details aside; None where they are the norm."""

    def select(self, positions: Positions, columns: Columns) -> Mask:
        """Which of the odd rows are odd among all the others; a mask."""
        return np.ones(len(positions), dtype=bool)

    def see(self, rows: Sequence[RowView]) -> None:
        """Keep the positions of odd rows."""
        for row in rows:
            if found := self.look(row):
                self._positions.append(row.position)
                self._scores.append(found.score)

    def finish(self, columns: Columns) -> Iterator[Evidence]:
        """What there is to say of the rows that are left."""
        positions = np.array(self._positions, dtype=np.int64)
        kept = self.select(positions, columns)
        if not kept.any():
            return
        suspects = columns.rank(positions[kept], np.array(self._scores)[kept])
        if evidence := self.judge(suspects, columns):
            yield replace(evidence, details=self._details(suspects, columns))

    def _details(self, suspects: Suspects, columns: Columns) -> dict[int, str]:
        views = columns.views(suspects.positions[:MAX_EXAMPLES])
        return {view.position: found.detail for view in views if (found := self.look(view))}
