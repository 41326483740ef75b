"""The rows of which most is said, over all issues."""

from collections import defaultdict
from collections.abc import Sequence

from tunesmith_data.rows.findings import Example, Severity, excerpt
from tunesmith_data.rows.report.data_report import MAX_WORST

from .columns import Columns
from .evidence import Evidence
from .row_views import RowView

_WEIGHTS = {Severity.ERROR: 3.0, Severity.WARNING: 2.0, Severity.NOTE: 1.0}
#: An issue that so many rows have says little about each of them.
_COMMON = 0.3
_QUESTION, _ANSWER = 110, 125


def worst_rows(evidence: Sequence[Evidence], columns: Columns) -> tuple[Example, ...]:
    """At most MAX_WORST rows, the worst first: each issue adds its weight times how sure it is.

    ``score`` is the sum as a share of the largest one.
    """
    said: dict[int, float] = defaultdict(float)
    checks: dict[int, list[str]] = defaultdict(list)
    for each in evidence:
        if each.suspects.count > _COMMON * columns.rows:
            continue
        for position, score in zip(each.suspects.positions, each.suspects.scores, strict=True):
            said[int(position)] += _WEIGHTS[each.severity] * float(score)
            checks[int(position)].append(each.check)
    order = sorted(said, key=lambda position: (-said[position], int(columns.digest[position])))[:MAX_WORST]
    return tuple(
        Example(
            place=view.record.place,
            excerpt=excerpt_of(view),
            detail=", ".join(checks[view.position]),
            score=round(said[view.position] / said[order[0]], 4),
        )
        for view in columns.views(order)
    )


def excerpt_of(view: RowView) -> str:
    """The beginnings of question and answer, on one line."""
    parts = [(view.question, _QUESTION), (view.answer, _ANSWER)]
    return " → ".join(_cut(excerpt(text), size) for text, size in parts if text)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"
