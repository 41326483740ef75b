"""Issue draft: the result of a quality check before example rows are fetched."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith_data.rows.findings import Severity

from .arrays import Positions, Scores

#: Rows of an issue that are ranked for the list of worst rows.
MAX_FLAGGED = 1_000


@dataclass(frozen=True, slots=True)
class FlaggedRows:
    """Rows flagged by a check, ranked.

    Attributes:
        positions: positions of the rows in the columns, the worst first, at most MAX_SUSPECTS.
        scores: certainty of the check about each row, from 0 to 1.
        count: number of all flagged rows.
    """

    positions: Positions
    scores: Scores
    count: int


@dataclass(frozen=True, slots=True)
class IssueDraft:
    """An issue before its examples are fetched.

    Attributes:
        details: reason of the issue for a row, by its position; of the first examples at least.
        others: the row that it is compared with, position by position.
    """

    check: str
    severity: Severity
    message: str
    advice: str
    flagged: FlaggedRows
    details: Mapping[int, str] = field(default_factory=dict)
    others: Mapping[int, int] = field(default_factory=dict)


def share_of(count: int, total: int, noun: str = "rows") -> str:
    """``12 of 400 rows (3 %)``."""
    return f"{count:,} of {total:,} {noun} ({percent(count / total)})"


def percent(share: float) -> str:
    """A share in per cent, with one digit where it is small: ``0.3 %``, ``42 %``."""
    if 0 < share < 0.0005:
        return "under 0.1 %"
    number = f"{100 * share:.0f}" if share == 0 or share >= 0.1 else f"{100 * share:.1f}"
    return f"{number} %"
