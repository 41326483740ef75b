"""Check ``copied_answer``: answers that repeat the question."""

from collections.abc import Iterator, Sequence

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import IssueDraft, percent, share_of
from tunesmith_data.rows.quality.quality_check import FlagColumns
from tunesmith_data.rows.quality.row_views import RowView, normalized

#: Shorter texts are similar by chance: a greeting answers a greeting.
_MIN_CHARACTERS = 20
#: Share of the words from which an answer counts as copied.
_COPIED_SHARE = 0.9
#: Share of the words from which an answer counts as an edited question.
_EDITED_SHARE = 0.5
#: From this share of edited questions on, the task is editing: an unchanged question is a valid answer then.
_EDITING_ROWS = 0.1


class CopiedAnswer:
    """``copied_answer``: the answer is the question, or has 90 % of its words and hardly any others.

    Where many answers are edited questions (correction, rewriting), copies are normal.
    """

    def __init__(self) -> None:
        self._copies = FlagColumns()
        self._edited = 0

    def update(self, rows: Sequence[RowView]) -> None:
        """Record copied answers, and count edited questions."""
        for row in rows:
            overlap = _word_overlap(row)
            if overlap >= _COPIED_SHARE:
                self._copies.add(row, overlap)
            self._edited += _EDITED_SHARE <= overlap < 1

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue draft, unless the task is editing."""
        copies = self._copies.positions
        if not len(copies) or self._edited > _EDITING_ROWS * columns.rows:
            return
        flagged = columns.rank(copies, self._copies.scores)
        yield IssueDraft(
            check="copied_answer",
            severity=Severity.WARNING,
            message=f"{share_of(flagged.count, columns.rows)} have an answer that repeats the question",
            advice="write the answers, or leave these rows out; check that the right column is used as answer",
            flagged=flagged,
            details={
                int(position): f"the answer repeats {percent(float(score))} of the question's words"
                for position, score in zip(flagged.positions, flagged.scores, strict=True)
            },
        )


def _word_overlap(row: RowView) -> float:
    """Words that question and answer have in common, as a share of the larger one's; 1: the same text."""
    question, answer = row.question, row.learned
    shorter, longer = sorted((len(question), len(answer)))
    if shorter < _MIN_CHARACTERS or shorter < _EDITED_SHARE * longer:
        return 0.0
    words, others = normalized(question).split(), normalized(answer).split()
    if words == others:
        return 1.0
    different, same = set(words), set(words) & set(others)
    return min(0.99, len(same) / max(len(different), len(set(others))))
