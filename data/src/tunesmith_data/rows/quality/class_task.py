"""What a small model can learn to name: the class of an answer, or whether an answer is good."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .array_types import Counts
from .row_views import Kind
from .samples import SampledRow
from .text_classifier import features, rows_for

if TYPE_CHECKING:
    from .columns import Columns

#: So many rows of a class are needed to learn it in each of five parts.
_FEWEST_OF_CLASS = 5


@dataclass(frozen=True, slots=True)
class ClassTask:
    """Rows of the sample, the number of each one's label, and what the labels are called.

    ``features`` is a sparse matrix, a row for each.
    """

    rows: Sequence[SampledRow]
    labels: Counts
    names: list[str]
    features: Any


def build_task(columns: "Columns") -> ClassTask | None:
    """The task; None where answers are free text, or where there are not two labels of enough rows."""
    if columns.kind is Kind.JUDGED:
        labels, names = columns.label, ["bad", "good"]
    elif columns.classes:
        labels, names = columns.classes.codes, columns.names(columns.classes)
    else:
        return None
    asked = [_asked(row) for row in columns.sample]
    sample = columns.sample[: rows_for(len(names), asked)]
    given = labels[[row.position for row in sample]]
    fits = (given >= 0) & (np.bincount(given + 1, minlength=len(names) + 1)[given + 1] >= _FEWEST_OF_CLASS)
    present, codes = np.unique(given[fits], return_inverse=True)
    if len(present) < 2:
        return None
    kept = np.flatnonzero(fits)
    rows = [sample[each] for each in kept]
    return ClassTask(rows, codes, [names[each] for each in present], features([asked[each] for each in kept]))


def _asked(row: SampledRow) -> str:
    """What the label is of: the question, with the answer where that is judged."""
    return row.question if row.label is None else f"{row.question}\n{row.answer}"
