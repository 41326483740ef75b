"""Rows with the highest total issue score."""

from collections import defaultdict
from collections.abc import Sequence

from tunesmith_data.rows.findings import Example, Severity, excerpt
from tunesmith_data.rows.report.data_report import MAX_WORST

from .columns import Columns
from .issue_draft import IssueDraft
from .row_views import RowView

_WEIGHTS = {Severity.ERROR: 3.0, Severity.WARNING: 2.0, Severity.NOTE: 1.0}
#: Issues of more rows than this share do not count: they say little about a single row.
_COMMON = 0.3
_QUESTION, _ANSWER = 110, 125


def worst_rows(drafts: Sequence[IssueDraft], columns: Columns) -> tuple[Example, ...]:
    """At most MAX_WORST rows, the worst first: each issue adds its weight times its certainty.

    ``score`` is the sum as a share of the largest one.
    """
    totals: dict[int, float] = defaultdict(float)
    checks: dict[int, list[str]] = defaultdict(list)
    for draft in drafts:
        if draft.flagged.count > _COMMON * columns.rows:
            continue
        for position, score in zip(draft.flagged.positions, draft.flagged.scores, strict=True):
            totals[int(position)] += _WEIGHTS[draft.severity] * float(score)
            checks[int(position)].append(draft.check)
    order = sorted(totals, key=lambda position: (-totals[position], int(columns.digest[position])))[
        :MAX_WORST
    ]
    return tuple(
        Example(
            place=view.record.place,
            excerpt=row_excerpt(view),
            detail=", ".join(checks[view.position]),
            score=round(totals[view.position] / totals[order[0]], 4),
        )
        for view in columns.views(order)
    )


def row_excerpt(view: RowView) -> str:
    """The beginnings of question and answer, on one line."""
    parts = [(view.question, _QUESTION), (view.answer, _ANSWER)]
    return " → ".join(_shorten(excerpt(text), size) for text, size in parts if text)


def _shorten(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"
