"""Tells data whose answers are classes from data whose answers are free text."""

from dataclasses import dataclass

import numpy as np

from .array_types import Counts, Digests, Positions

#: An answer that is longer names no class.
CLASS_CHARACTERS = 80
#: A class has at least this many rows.
CLASS_ROWS = 5
#: Fewer rows don't show what the classes are.
FEWEST_ROWS = 50
#: Classes hold at least this share of all answers.
COVERED = 0.9
MAX_CLASSES = 200


@dataclass(frozen=True, slots=True)
class Classes:
    """The answers that occur again and again.

    Attributes:
        counts: rows of each class, the largest first.
        first: the position of a row of each.
        codes: the class of each row, by its position; -1 for other answers.
    """

    counts: Counts
    first: Positions
    codes: Counts


def find_classes(answers: Digests, characters: Counts, digests: Digests) -> Classes | None:
    """The classes of the answers; None where answers are free text, or where there are too few rows to tell.

    Args:
        answers: a digest of each row's answer; 0 where it has none.
        characters: how long each is.
        digests: of the rows; a class is named as its first row by them does.
    """
    answered = np.flatnonzero(answers)
    if len(answered) < FEWEST_ROWS:
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
