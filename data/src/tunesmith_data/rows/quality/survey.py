"""Survey: runs all quality checks over all rows in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith_contract.report import ModelReport
from tunesmith_data.rows.findings import MAX_EXAMPLES, Example, Issue, Severity
from tunesmith_data.rows.quality.checks.registry import build_checks
from tunesmith_data.rows.report.data_report import LearningCurve, Recommendation
from tunesmith_data.rows.table.record import Record

from .columns import Columns, ColumnWriter, FetchRecords
from .issue_draft import IssueDraft
from .learning_curve import estimate_learning_curve
from .recommendation import DataProfile, recommend
from .row_views import RowView, build_view
from .worst_rows import row_excerpt, worst_rows

_ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class QualityResult:
    """Result of a survey; the members are those of the data report.

    Attributes:
        issues: most severe first, then those of most rows.
        worst: the rows with the highest total issue score.
        learning_curve: learning curve; None if it can't be measured.
    """

    issues: tuple[Issue, ...]
    worst: tuple[Example, ...]
    learning_curve: LearningCurve | None
    recommendation: Recommendation


class QualitySurvey:
    """Runner of all checks over the kept rows.

    It holds some 80 bytes a row, and reads at most SAMPLE_ROWS rows again at the end, for the checks that learn.
    What it finds depends on the rows, not on their order.
    """

    def __init__(self, method: str, fetch_records: FetchRecords) -> None:
        """Survey without rows.

        Args:
            method: training method, named as in a FineTuneJob (``Method.key``).
            fetch_records: gives rows that were seen once more, by their records' ``index``.
        """
        self._method = method
        self._fetch_records = fetch_records
        self._checks = build_checks(method)
        self._columns = ColumnWriter()
        self._seen = 0

    def update(self, records: Sequence[Record]) -> None:
        """Add the next rows."""
        views = [build_view(record, position) for position, record in enumerate(records, start=self._seen)]
        self._seen += len(views)
        self._columns.add(views)
        for check in self._checks:
            check.update(views)

    def finish(self, model: ModelReport | None = None) -> QualityResult | None:
        """Result for all rows; None if there were none.

        Args:
            model: the base model, whose size the recommended rank depends on.
        """
        if not self._seen:
            return None
        columns = self._columns.close(self._method, self._fetch_records)
        drafts = self._draft_issues(columns)
        issues = tuple(_issue(draft, columns) for draft in drafts)
        curve = estimate_learning_curve(columns)
        return QualityResult(
            issues=issues,
            worst=worst_rows(drafts, columns),
            learning_curve=curve,
            recommendation=recommend(_profile(columns, issues, curve, model)),
        )

    def issues(self) -> tuple[Issue, ...]:
        """Issues of the checks, without learning curve and recommendation."""
        columns = self._columns.close(self._method, self._fetch_records)
        return tuple(_issue(draft, columns) for draft in self._draft_issues(columns)) if self._seen else ()

    def _draft_issues(self, columns: Columns) -> list[IssueDraft]:
        drafts = [draft for check in self._checks for draft in check.finish(columns)]
        return sorted(
            drafts, key=lambda draft: (_ORDER.index(draft.severity), -draft.flagged.count, draft.check)
        )


def _issue(draft: IssueDraft, columns: Columns) -> Issue:
    worst = draft.flagged.positions[:MAX_EXAMPLES]
    views = list(columns.views(worst))
    others = {view.position: view for view in columns.views(list(draft.others.values()))}
    return Issue(
        check=draft.check,
        severity=draft.severity,
        rows=draft.flagged.count,
        message=draft.message,
        advice=draft.advice,
        examples=tuple(
            _example(draft, view, float(score), others)
            for view, score in zip(views, draft.flagged.scores, strict=False)
        ),
    )


def _example(draft: IssueDraft, view: RowView, score: float, others: dict[int, RowView]) -> Example:
    other = others.get(draft.others.get(view.position, -1))
    return Example(
        place=view.record.place,
        excerpt=row_excerpt(view),
        detail=draft.details.get(view.position, ""),
        other=other.record.place if other else None,
        other_excerpt=row_excerpt(other) if other else "",
        score=round(score, 4),
    )


def _profile(
    columns: Columns, issues: Sequence[Issue], curve: LearningCurve | None, model: ModelReport | None
) -> DataProfile:
    answered = columns.answer_characters[columns.answer != 0]
    shape = model.shape if model else None
    return DataProfile(
        method=columns.method,
        kind=columns.kind,
        rows=columns.rows,
        tokens=int(columns.tokens.sum()),
        answer_characters=int(np.median(answered)) if len(answered) else 0,
        classes=len(columns.classes.counts) if columns.classes else None,
        issues=issues,
        curve=curve,
        parameters=(model.parameters or None) if model else None,
        parameters_per_rank=(
            sum((linear.inputs + linear.outputs) * linear.layers for linear in shape.linears)
            if shape
            else None
        ),
    )
