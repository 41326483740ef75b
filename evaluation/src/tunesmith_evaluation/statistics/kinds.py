"""Kinds of scores."""

from enum import StrEnum


class ScoreKind(StrEnum):
    """Kind of a score, which decides how two sides are compared.

    - ``BINARY``: 0 or 1 for each item.
    - ``UNIT_INTERVAL``: 0 to 1 for each item.
    - ``CORPUS``: a function of sums over all items, which is no mean of theirs.
    - ``UNBOUNDED``: any number for each item.
    """

    BINARY = "Binary"
    UNIT_INTERVAL = "UnitInterval"
    CORPUS = "Corpus"
    UNBOUNDED = "Unbounded"
