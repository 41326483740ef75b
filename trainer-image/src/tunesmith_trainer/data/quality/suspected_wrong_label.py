"""Labels that a small model, which did not see them, holds for wrong."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tunesmith_trainer.data.findings import MAX_EXAMPLES, Severity

from .base import ColumnCheck
from .columns import Columns, SampledRow
from .evidence import Evidence, percent, share_of
from .numbers import Counts, Mask, Positions, Scores
from .small_model import cross_validated, features, rows_for
from .views import Kind

#: A model that errs more often, as a share of the errors of always naming the largest class, is no judge.
_WORST_ERROR = 0.4
#: Probability of the suggested label, and of the given one, from which a row is suspected.
_SUGGESTED, _GIVEN = 0.7, 0.1
#: So many rows of a class are needed to learn it in each of five parts.
_FEWEST_OF_CLASS = 5
_FEWEST_ROWS = 100


class _Task(NamedTuple):
    """What the model learns: a label per row of the sample, and the labels' names."""

    rows: list[SampledRow]
    labels: Counts
    names: list[str]


class SuspectedWrongLabel(ColumnCheck):
    """``suspected_wrong_label``: where answers are classes, or judged, rows whose label is probably another one.

    Confident learning (Northcutt et al. 2021, arXiv:1911.00068) by cleanlab, on cross-validated probabilities of a
    small model; of what it finds, rows of which the model is sure, and none where the model is no judge.
    """

    def finish(self, columns: Columns) -> Iterator[Evidence]:
        """What there is to say of the rows of the sample."""
        task = _task(columns)
        if task is None:
            return
        probabilities = cross_validated(features([_asked(row) for row in task.rows]), task.labels)
        if not _is_judge(probabilities, task.labels):
            return
        found = np.flatnonzero(_suspected(probabilities, task.labels))
        if len(found):
            yield _evidence(columns, task, found, probabilities)


def _task(columns: Columns) -> _Task | None:
    if columns.kind is Kind.JUDGED:
        labels, names = columns.label, ["bad", "good"]
        rows = list(columns.sample[: rows_for(2)])
    elif columns.classes and len(columns.classes.counts) >= 2:
        labels, names = columns.classes.codes, columns.names(columns.classes)
        rows = [row for row in columns.sample[: rows_for(len(names))] if labels[row.position] >= 0]
    else:
        return None
    given = labels[[row.position for row in rows]]
    present, codes, counts = np.unique(given, return_inverse=True, return_counts=True)
    enough = counts[codes] >= _FEWEST_OF_CLASS
    kept, codes = np.unique(codes[enough], return_inverse=True)
    if len(kept) < 2 or enough.sum() < _FEWEST_ROWS:
        return None
    named = [names[int(present[each])] for each in kept]
    return _Task([row for row, fits in zip(rows, enough, strict=True) if fits], codes, named)


def _asked(row: SampledRow) -> str:
    """What the label is of: the question, with the answer where that is judged."""
    return row.question if row.label is None else f"{row.question}\n{row.answer}"


def _is_judge(probabilities: Scores, labels: Counts) -> bool:
    wrong = float((probabilities.argmax(axis=1) != labels).mean())
    naming_largest = 1 - np.bincount(labels).max() / len(labels)
    return bool(wrong <= _WORST_ERROR * naming_largest)


def _suspected(probabilities: Scores, labels: Counts) -> Mask:
    # cleanlab takes seconds to import.
    from cleanlab.filter import find_label_issues

    found: Mask = find_label_issues(labels, probabilities, filter_by="both", n_jobs=1)
    given = probabilities[np.arange(len(labels)), labels]
    return found & (probabilities.max(axis=1) >= _SUGGESTED) & (given <= _GIVEN)


def _evidence(columns: Columns, task: _Task, found: Positions, probabilities: Scores) -> Evidence:
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


def _detail(task: _Task, row: int, probabilities: Scores) -> str:
    given, suggested = task.names[task.labels[row]], task.names[int(probabilities[row].argmax())]
    return f"labelled {given!r}, probably {suggested!r}"
