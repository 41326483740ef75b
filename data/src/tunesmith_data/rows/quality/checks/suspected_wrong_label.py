"""Check ``suspected_wrong_label``: labels that a small cross-validated model considers wrong."""

from collections.abc import Iterator

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.arrays import Counts, Mask, Positions, Scores
from tunesmith_data.rows.quality.classes import ClassTask
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import IssueDraft, percent, share_of
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.text_classifier import cross_validate

#: Largest error of a usable model, as a share of the error of always answering the largest class.
_WORST_ERROR = 0.4
#: Probability of the suggested label, and of the given one, from which a row is suspected.
_SUGGESTED, _GIVEN = 0.9, 0.05
_MIN_ROWS = 100


class SuspectedWrongLabel(ColumnCheck):
    """``suspected_wrong_label``: rows whose class or judgment is probably wrong.

    Confident learning (Northcutt et al. 2021, arXiv:1911.00068) by cleanlab, on cross-validated probabilities of a
    small model; of what it finds, rows of which the model is sure, and none where the model is no judge. Rows that
    contradict others are left to ``contradicting_answers``.
    """

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue draft from the rows of the sample."""
        task = columns.class_task
        if task is None or len(task.rows) < _MIN_ROWS:
            return
        probabilities = cross_validate(task.features, task.labels)
        if not _is_reliable(probabilities, task.labels):
            return
        contradicting = columns.contradicting[[row.position for row in task.rows]]
        suspects = np.flatnonzero(_find_suspects(probabilities, task.labels) & ~contradicting)
        if len(suspects):
            yield _draft(columns, task, suspects, probabilities)


def _is_reliable(probabilities: Scores, labels: Counts) -> bool:
    wrong = float((probabilities.argmax(axis=1) != labels).mean())
    naming_largest = 1 - np.bincount(labels).max() / len(labels)
    return bool(wrong <= _WORST_ERROR * naming_largest)


def _find_suspects(probabilities: Scores, labels: Counts) -> Mask:
    # cleanlab takes seconds to import.
    from cleanlab.filter import find_label_issues

    label_issues: Mask = find_label_issues(labels, probabilities, filter_by="both", n_jobs=1)
    given = probabilities[np.arange(len(labels)), labels]
    sure: Mask = (probabilities.max(axis=1) >= _SUGGESTED) & (given <= _GIVEN)
    return label_issues & sure


def _draft(columns: Columns, task: ClassTask, suspects: Positions, probabilities: Scores) -> IssueDraft:
    by_position = {task.rows[row].position: int(row) for row in suspects}
    scores = probabilities[suspects].max(axis=1) - probabilities[suspects, task.labels[suspects]]
    flagged = columns.rank(np.array(list(by_position), dtype=np.int64), np.clip(scores, 0, 1))
    right = float((probabilities.argmax(axis=1) == task.labels).mean())
    looked_at = "" if len(task.rows) >= columns.rows else f" of the {len(task.rows):,} that were checked"
    return IssueDraft(
        check="suspected_wrong_label",
        severity=Severity.WARNING,
        message=f"{share_of(flagged.count, columns.rows)}{looked_at} probably have a wrong label, "
        f"by a small model that is right in {percent(right)} of all rows",
        advice="look at the examples, and write the label that is right; where the label is right, keep the row",
        flagged=flagged,
        details={
            int(position): _detail(task, by_position[int(position)], probabilities)
            for position in flagged.positions[:MAX_EXAMPLES]
        },
    )


def _detail(task: ClassTask, row: int, probabilities: Scores) -> str:
    given, suggested = task.names[task.labels[row]], task.names[int(probabilities[row].argmax())]
    return f"labeled {given!r}, probably {suggested!r}"
