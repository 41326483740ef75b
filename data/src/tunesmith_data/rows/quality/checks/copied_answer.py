"""Answers that repeat the question."""

from collections.abc import Sequence

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.evidence import Evidence, Suspects, percent, share_of
from tunesmith_data.rows.quality.quality_check import Look, RowCheck
from tunesmith_data.rows.quality.row_views import RowView, normalised

#: Shorter texts are alike by chance: a greeting answers a greeting.
_FEWEST_CHARACTERS = 20
#: Share of the words from which an answer counts as copied.
_COPIED = 0.9
#: Share of the words from which an answer counts as an edited question.
_EDITED = 0.5
#: From this share of edited questions on, the task is editing: nothing to correct is an answer, too.
_EDITING_ROWS = 0.1


class CopiedAnswer(RowCheck):
    """``copied_answer``: the answer is the question, or has 90 % of its words and hardly any others.

    Where many answers are edited questions (correction, rewriting), copies are the norm.
    """

    def __init__(self) -> None:
        super().__init__()
        self._edited = 0

    def see(self, rows: Sequence[RowView]) -> None:
        """Count edited questions, too."""
        for row in rows:
            likeness = _likeness(row)
            if likeness >= _COPIED:
                self._positions.append(row.position)
                self._scores.append(likeness)
            if _EDITED <= likeness < 1:
                self._edited += 1

    def look(self, row: RowView) -> Look | None:
        """Whether the answer is copied."""
        likeness = _likeness(row)
        if likeness < _COPIED:
            return None
        return Look(f"the answer repeats {percent(likeness)} of the question's words", likeness)

    def judge(self, suspects: Suspects, columns: Columns) -> Evidence | None:
        """Copies are a fault unless the task is editing."""
        if self._edited > _EDITING_ROWS * columns.rows:
            return None
        return Evidence(
            check="copied_answer",
            severity=Severity.WARNING,
            message=f"{share_of(suspects.count, columns.rows)} have an answer that repeats the question",
            advice="write the answers, or leave these rows out; look whether the right column was taken as answer",
            suspects=suspects,
        )


def _likeness(row: RowView) -> float:
    """Words that question and answer have in common, as a share of the larger one's; 1: the same text."""
    question, answer = row.question, row.learned
    shorter, longer = sorted((len(question), len(answer)))
    if shorter < _FEWEST_CHARACTERS or shorter < _EDITED * longer:
        return 0.0
    words, others = normalised(question).split(), normalised(answer).split()
    if words == others:
        return 1.0
    different, same = set(words), set(words) & set(others)
    return min(0.99, len(same) / max(len(different), len(set(others))))
