"""Check ``truncated_answer``: answers that are cut off."""

from collections.abc import Sequence

import numpy as np

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.arrays import Counts, Mask, Positions
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import FlaggedRows, IssueDraft, share_of
from tunesmith_data.rows.quality.quality_check import Flag, RowCheck
from tunesmith_data.rows.quality.row_views import RowView

#: Shorter answers often are words or titles, which have no end mark.
_MIN_CHARACTERS = 40
#: Answers without an end mark are flagged if at least this share of the others has one.
_CLOSED = 0.95
#: Number of answers without an end mark at the maximum length from which they count as cut off there.
_AT_LIMIT = 5
_ITEMS = ("-", "*", "•", "|", "#", ">", "    ")


class TruncatedAnswer(RowCheck):
    """``truncated_answer``: the answer ends with a letter or a comma where others end with a full stop.

    Besides, several of them at the greatest length of all, in tokens or characters, were cut off there, whatever others
    do. Lists, tables and code end as they like, and so does text without letters that have a case.
    """

    def __init__(self) -> None:
        super().__init__()
        self._long = 0

    def update(self, rows: Sequence[RowView]) -> None:
        """Count the answers that could lack an end mark."""
        self._long += sum(_is_prose(row) for row in rows)
        super().update(rows)

    def flag(self, row: RowView) -> Flag | None:
        """Flag of an answer without an end mark."""
        if not _is_prose(row) or not _ends_openly(row.learned):
            return None
        return Flag(f"the answer ends with {'…' + row.learned.rstrip()[-24:]!r}", 0.8)

    def select(self, positions: Positions, columns: Columns) -> Mask:
        """All flagged rows if nearly all other answers have an end mark; else those at the length limit."""
        if len(positions) <= (1 - _CLOSED) * self._long:
            return np.ones(len(positions), dtype=bool)
        return _at_limit(columns.tokens, positions) | _at_limit(columns.answer_characters, positions)

    def draft_issue(self, flagged: FlaggedRows, columns: Columns) -> IssueDraft:
        """Warning for any flagged row."""
        return IssueDraft(
            check="truncated_answer",
            severity=Severity.WARNING,
            message=f"{share_of(flagged.count, columns.rows)} have an answer that seems to be cut off",
            advice="complete the answers, or leave these rows out; look for a limit of length at their source",
            flagged=flagged,
        )


def _is_prose(row: RowView) -> bool:
    if len(row.learned) < _MIN_CHARACTERS:
        return False
    end = row.learned.rstrip()[-200:]
    last = end.rpartition("\n")[2]
    return not last.startswith(_ITEMS) and not last[:1].isdigit() and "```" not in end


def _ends_openly(text: str) -> bool:
    last = text.rstrip()[-1:]
    return last in ",-\u2013(" or last.islower()


def _at_limit(lengths: Counts, positions: Positions) -> Mask:
    """Mask of answers at the maximum length, if several are and they are most rows of that length."""
    limit = lengths.max()
    at_limit = lengths[positions] == limit
    count = int(at_limit.sum())
    enough = limit > 0 and count >= _AT_LIMIT and count >= 0.8 * (lengths == limit).sum()
    return at_limit if enough else np.zeros(len(positions), dtype=bool)
