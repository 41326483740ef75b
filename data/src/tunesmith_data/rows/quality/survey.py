"""All checks of quality over all rows, once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith_contract.report import ModelReport
from tunesmith_data.rows.findings import MAX_EXAMPLES, Example, Issue, Severity
from tunesmith_data.rows.quality.checks.registry import build_checks
from tunesmith_data.rows.report.data_report import LearningCurve, Recommendation
from tunesmith_data.rows.table.record import Record

from .columns import Columns, ColumnWriter, Fetch
from .evidence import Evidence
from .learning_curve import estimate_learning_curve
from .recommendation import Facts, recommend
from .row_views import RowView, view_of
from .worst_rows import excerpt_of, worst_rows

_ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class Quality:
    """What a survey found; the members are those of the data report.

    Attributes:
        issues: the gravest first, then those of most rows.
        worst: the rows of which most is said.
        learning_curve: whether more data would help; None where that can't be measured.
    """

    issues: tuple[Issue, ...]
    worst: tuple[Example, ...]
    learning_curve: LearningCurve | None
    recommendation: Recommendation


class Survey:
    """Shows every kept row to every check.

    It holds some 80 bytes a row, and reads at most SAMPLE_ROWS rows again at the end, for the checks that learn.
    What it finds depends on the rows, not on their order.
    """

    def __init__(self, method: str, fetch: Fetch) -> None:
        """Survey of no rows yet.

        Args:
            method: what the rows are for, named as in a FineTuneJob (``Method.key``).
            fetch: gives rows that were seen once more, by their records' ``index``.
        """
        self._method = method
        self._fetch = fetch
        self._checks = build_checks(method)
        self._columns = ColumnWriter()
        self._seen = 0

    def see(self, records: Sequence[Record]) -> None:
        """Take the next rows into account."""
        views = [view_of(record, position) for position, record in enumerate(records, start=self._seen)]
        self._seen += len(views)
        self._columns.add(views)
        for check in self._checks:
            check.see(views)

    def finish(self, model: ModelReport | None = None) -> Quality | None:
        """What there is to say of all rows; None where there were none.

        Args:
            model: the base model, whose size the recommended rank depends on.
        """
        if not self._seen:
            return None
        columns = self._columns.close(self._method, self._fetch)
        evidence = self._find(columns)
        issues = tuple(_issue(each, columns) for each in evidence)
        curve = estimate_learning_curve(columns)
        return Quality(
            issues=issues,
            worst=worst_rows(evidence, columns),
            learning_curve=curve,
            recommendation=recommend(_facts(columns, issues, curve, model)),
        )

    def issues(self) -> tuple[Issue, ...]:
        """What the checks alone say, without a learning curve and a recommendation."""
        columns = self._columns.close(self._method, self._fetch)
        return tuple(_issue(each, columns) for each in self._find(columns)) if self._seen else ()

    def _find(self, columns: Columns) -> list[Evidence]:
        evidence = [each for check in self._checks for each in check.finish(columns)]
        return sorted(
            evidence, key=lambda each: (_ORDER.index(each.severity), -each.suspects.count, each.check)
        )


def _issue(evidence: Evidence, columns: Columns) -> Issue:
    worst = evidence.suspects.positions[:MAX_EXAMPLES]
    views = list(columns.views(worst))
    others = {view.position: view for view in columns.views(list(evidence.others.values()))}
    return Issue(
        check=evidence.check,
        severity=evidence.severity,
        rows=evidence.suspects.count,
        message=evidence.message,
        advice=evidence.advice,
        examples=tuple(
            _example(evidence, view, float(score), others)
            for view, score in zip(views, evidence.suspects.scores, strict=False)
        ),
    )


def _example(evidence: Evidence, view: RowView, score: float, others: dict[int, RowView]) -> Example:
    other = others.get(evidence.others.get(view.position, -1))
    return Example(
        place=view.record.place,
        excerpt=excerpt_of(view),
        detail=evidence.details.get(view.position, ""),
        other=other.record.place if other else None,
        other_excerpt=excerpt_of(other) if other else "",
        score=round(score, 4),
    )


def _facts(
    columns: Columns, issues: Sequence[Issue], curve: LearningCurve | None, model: ModelReport | None
) -> Facts:
    answered = columns.answer_characters[columns.answer != 0]
    shape = model.shape if model else None
    return Facts(
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
            sum((each.inputs + each.outputs) * each.layers for each in shape.linears) if shape else None
        ),
    )
