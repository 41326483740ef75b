"""Labels that a small model, which did not see them, holds for wrong."""

from collections.abc import Iterator

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.array_types import Counts, Mask, Positions, Scores
from tunesmith_data.rows.quality.class_task import ClassTask
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.evidence import Evidence, percent, share_of
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.text_classifier import cross_validated

#: A model that errs more often, as a share of the errors of always naming the largest class, is no judge.
_WORST_ERROR = 0.4
#: Probability of the suggested label, and of the given one, from which a row is suspected.
_SUGGESTED, _GIVEN = 0.9, 0.05
_FEWEST_ROWS = 100


class SuspectedWrongLabel(ColumnCheck):
    """``suspected_wrong_label``: where answers are classes, or judged, rows whose label is probably another one.

    Confident learning (Northcutt et al. 2021, arXiv:1911.00068) by cleanlab, on cross-validated probabilities of a
    small model; of what it finds, rows of which the model is sure, and none where the model is no judge. Rows that
    contradict others are left to ``contradicting_answers``.
    """

    def finish(self, columns: Columns) -> Iterator[Evidence]:
        """What there is to say of the rows of the sample."""
        task = columns.class_task
        if task is None or len(task.rows) < _FEWEST_ROWS:
            return
        probabilities = cross_validated(task.features, task.labels)
        if not _is_judge(probabilities, task.labels):
            return
        contradicting = columns.contradicting[[row.position for row in task.rows]]
        found = np.flatnonzero(_suspected(probabilities, task.labels) & ~contradicting)
        if len(found):
            yield _evidence(columns, task, found, probabilities)


def _is_judge(probabilities: Scores, labels: Counts) -> bool:
    wrong = float((probabilities.argmax(axis=1) != labels).mean())
    naming_largest = 1 - np.bincount(labels).max() / len(labels)
    return bool(wrong <= _WORST_ERROR * naming_largest)


def _suspected(probabilities: Scores, labels: Counts) -> Mask:
    # cleanlab takes seconds to import.
    from cleanlab.filter import find_label_issues

    found: Mask = find_label_issues(labels, probabilities, filter_by="both", n_jobs=1)
    given = probabilities[np.arange(len(labels)), labels]
    sure: Mask = (probabilities.max(axis=1) >= _SUGGESTED) & (given <= _GIVEN)
    return found & sure


def _evidence(columns: Columns, task: ClassTask, found: Positions, probabilities: Scores) -> Evidence:
    by_position = {task.rows[each].position: int(each) for each in found}
    scores = probabilities[found].max(axis=1) - probabilities[found, task.labels[found]]
    suspects = columns.rank(np.array(list(by_position), dtype=np.int64), np.clip(scores, 0, 1))
    right = float((probabilities.argmax(axis=1) == task.labels).mean())
    looked_at = "" if len(task.rows) >= columns.rows else f" of the {len(task.rows):,} that were looked at"
    return Evidence(
        check="suspected_wrong_label",
        severity=Severity.WARNING,
        message=f"{share_of(suspects.count, columns.rows)}{looked_at} probably have a wrong label, "
        f"by a small model that is right in {percent(right)} of all rows",
        advice="look at the examples, and write the label that is right; where the label is right, keep the row",
        suspects=suspects,
        details={
            int(each): _detail(task, by_position[int(each)], probabilities)
            for each in suspects.positions[:MAX_EXAMPLES]
        },
    )


def _detail(task: ClassTask, row: int, probabilities: Scores) -> str:
    given, suggested = task.names[task.labels[row]], task.names[int(probabilities[row].argmax())]
    return f"labelled {given!r}, probably {suggested!r}"
