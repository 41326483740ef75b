"""Base classes of quality checks."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity

from .arrays import Mask, Positions, Scores
from .columns import Columns
from .issue_draft import FlaggedRows, IssueDraft, share_of
from .row_views import RowView

#: Share of rows from which a flagged property is what the data is about.
_COMMON_SHARE = 0.2


class QualityCheck(Protocol):
    """Quality check: gets each kept row once, in batches and in order.

    It keeps numbers about rows, and no text: there may be millions. Its result does not depend on their order.
    """

    def update(self, rows: Sequence[RowView]) -> None:
        """Add the next rows."""

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue drafts for all rows."""


class ColumnCheck(ABC):
    """Base of checks that use only columns or a sample."""

    def update(self, rows: Sequence[RowView]) -> None:
        """Ignore the rows: the columns contain all that is needed."""
        del rows

    @abstractmethod
    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue drafts from the columns."""


class Flag(NamedTuple):
    """Mark of a check on one row, with its certainty from 0 to 1."""

    detail: str
    score: float = 1.0


class FlagColumns:
    """Positions and scores of flagged rows."""

    def __init__(self) -> None:
        self._positions = array("Q")
        self._scores = array("d")

    def add(self, row: RowView, score: float) -> None:
        """Flag a row."""
        self._positions.append(row.position)
        self._scores.append(score)

    @property
    def positions(self) -> Positions:
        """Positions of the rows."""
        return np.array(self._positions, dtype=np.int64)

    @property
    def scores(self) -> Scores:
        """Certainty of each flag, from 0 to 1."""
        return np.array(self._scores)


class RowCheck(ABC):
    """Base of checks that flag single rows, and decide at the end by the number of flagged rows."""

    def __init__(self) -> None:
        self._flags = FlagColumns()

    @abstractmethod
    def flag(self, row: RowView) -> Flag | None:
        """Flag for a row, or None."""

    @abstractmethod
    def draft_issue(self, flagged: FlaggedRows, columns: Columns) -> IssueDraft | None:
        """Issue draft for the flagged rows, without details; None if they are normal for this data."""

    def select(self, positions: Positions, columns: Columns) -> Mask:
        """Mask of the flagged rows that count, given all rows."""
        return np.ones(len(positions), dtype=bool)

    def update(self, rows: Sequence[RowView]) -> None:
        """Record the flagged rows."""
        for row in rows:
            if flag := self.flag(row):
                self._flags.add(row, flag.score)

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue draft for the flagged rows that count."""
        positions = self._flags.positions
        kept = self.select(positions, columns)
        if not kept.any():
            return
        flagged = columns.rank(positions[kept], self._flags.scores[kept])
        if draft := self.draft_issue(flagged, columns):
            views = columns.views(flagged.positions[:MAX_EXAMPLES])
            details = {view.position: flag.detail for view in views if (flag := self.flag(view))}
            yield replace(draft, details=details)


def warn_unless_common(
    check: str, flagged: FlaggedRows, columns: Columns, *, problem: str, advice: str, advice_if_common: str
) -> IssueDraft:
    """Warning for a few flagged rows; a note if the flagged property is common in the data.

    Args:
        problem: continues "3 of 400 rows (0.8 %) …".
    """
    is_common = flagged.count >= _COMMON_SHARE * columns.rows
    return IssueDraft(
        check=check,
        severity=Severity.NOTE if is_common else Severity.WARNING,
        message=f"{share_of(flagged.count, columns.rows)} {problem}",
        advice=advice_if_common if is_common else advice,
        flagged=flagged,
    )
