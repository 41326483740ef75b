"""Answers that stop before their end."""

from collections.abc import Sequence

import numpy as np

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.array_types import Counts, Mask, Positions
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.evidence import Evidence, Suspects, share_of
from tunesmith_data.rows.quality.quality_check import Look, RowCheck
from tunesmith_data.rows.quality.row_views import RowView

#: Shorter answers often are words or titles, which have no end mark.
_FEWEST_CHARACTERS = 40
#: Answers that end openly are odd where at least this share of the others ends with a mark.
_CLOSED = 0.95
#: So many that end openly at the greatest length of all were cut off there.
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

    def see(self, rows: Sequence[RowView]) -> None:
        """Count all answers that could end openly."""
        self._long += sum(_is_prose(row) for row in rows)
        super().see(rows)

    def look(self, row: RowView) -> Look | None:
        """Whether the answer ends openly."""
        if not _is_prose(row) or not _ends_openly(row.learned):
            return None
        return Look(f"the answer ends with {'…' + row.learned.rstrip()[-24:]!r}", 0.8)

    def select(self, positions: Positions, columns: Columns) -> Mask:
        """All, where nearly all others are closed; else those at the limit."""
        if len(positions) <= (1 - _CLOSED) * self._long:
            return np.ones(len(positions), dtype=bool)
        return _at_limit(columns.tokens, positions) | _at_limit(columns.answer_characters, positions)

    def judge(self, suspects: Suspects, columns: Columns) -> Evidence:
        """Any of them is one too many."""
        return Evidence(
            check="truncated_answer",
            severity=Severity.WARNING,
            message=f"{share_of(suspects.count, columns.rows)} have an answer that seems to be cut off",
            advice="complete the answers, or leave these rows out; look for a limit of length at their source",
            suspects=suspects,
        )


def _is_prose(row: RowView) -> bool:
    if len(row.learned) < _FEWEST_CHARACTERS:
        return False
    end = row.learned.rstrip()[-200:]
    last = end.rpartition("\n")[2]
    return not last.startswith(_ITEMS) and not last[:1].isdigit() and "```" not in end


def _ends_openly(text: str) -> bool:
    last = text.rstrip()[-1:]
    return last in ",-\u2013(" or last.islower()


def _at_limit(lengths: Counts, positions: Positions) -> Mask:
    """Those of the greatest length of all rows, where they are several and nearly all of that length."""
    limit = lengths.max()
    at_limit = lengths[positions] == limit
    count = int(at_limit.sum())
    enough = limit > 0 and count >= _AT_LIMIT and count >= 0.8 * (lengths == limit).sum()
    return at_limit if enough else np.zeros(len(positions), dtype=bool)
