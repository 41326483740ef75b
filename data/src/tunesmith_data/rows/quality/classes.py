"""Classes among answers, and the classification task of a small model on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Counts, Digests, Positions
from .row_views import SampledRow
from .text_classifier import max_training_rows, text_features

#: An answer that is longer names no class.
CLASS_CHARACTERS = 80
#: A class has at least this many rows.
CLASS_ROWS = 5
#: Minimum rows to detect classes.
MIN_ROWS = 50
#: Classes hold at least this share of all answers.
COVERED = 0.9
MAX_CLASSES = 200


@dataclass(frozen=True, slots=True)
class Classes:
    """Classes of a data set: answers that many rows share.

    Attributes:
        counts: rows of each class, the largest first.
        first: the position of a row of each.
        codes: the class of each row, by its position; -1 for other answers.
    """

    counts: Counts
    first: Positions
    codes: Counts


def find_classes(answers: Digests, characters: Counts, digests: Digests) -> Classes | None:
    """The classes of the answers; None where answers are free text, or if there are too few rows.

    Args:
        answers: a digest of each row's answer; 0 where it has none.
        characters: length of each answer.
        digests: digests of the rows; the first row of a class by digest gives the class its name.
    """
    answered = np.flatnonzero(answers)
    if len(answered) < MIN_ROWS:
        return None
    answered = answered[np.argsort(digests[answered], kind="stable")]
    keys, first, codes, counts = np.unique(
        answers[answered], return_index=True, return_inverse=True, return_counts=True
    )
    first = answered[first]
    large = np.flatnonzero((counts >= CLASS_ROWS) & (characters[first] <= CLASS_CHARACTERS))
    most = min(MAX_CLASSES, len(answered) // 10)
    if not 1 <= len(large) <= most or counts[large].sum() < COVERED * len(answered):
        return None
    order = large[np.lexsort((keys[large], -counts[large]))]
    renumbered = np.full(len(keys), -1, dtype=np.int64)
    renumbered[order] = np.arange(len(order))
    by_row = np.full(len(answers), -1, dtype=np.int64)
    by_row[answered] = renumbered[codes]
    return Classes(counts[order], first[order], by_row)


#: Minimum rows of a class for five-fold cross-validation.
_MIN_OF_CLASS = 5


@dataclass(frozen=True, slots=True)
class ClassTask:
    """Sampled rows with the number of their labels, and the labels' names.

    ``features`` is a sparse matrix with one row for each.
    """

    rows: Sequence[SampledRow]
    labels: Counts
    names: list[str]
    features: Any


def build_task(sample: Sequence[SampledRow], labels: Counts, names: Sequence[str]) -> ClassTask | None:
    """The task; None if there are not two labels with enough rows.

    Args:
        sample: rows to learn from.
        labels: number of each row's label, by its position; negative for none.
        names: the labels' names.
    """
    texts = [_labeled_text(row) for row in sample]
    learned = sample[: max_training_rows(len(names), texts)]
    given = labels[[row.position for row in learned]]
    fits = (given >= 0) & (np.bincount(given + 1, minlength=len(names) + 1)[given + 1] >= _MIN_OF_CLASS)
    present, codes = np.unique(given[fits], return_inverse=True)
    if len(present) < 2:
        return None
    kept = [int(index) for index in np.flatnonzero(fits)]
    return ClassTask(
        rows=[learned[index] for index in kept],
        labels=codes,
        names=[names[index] for index in present],
        features=text_features([texts[index] for index in kept]),
    )


def _labeled_text(row: SampledRow) -> str:
    """Text that the label refers to: the question, with the answer if that is judged."""
    return row.question if row.label is None else f"{row.question}\n{row.answer}"
