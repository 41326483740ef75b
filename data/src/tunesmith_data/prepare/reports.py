"""The two reports: a short one that goes into status, and the whole one for people."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith_contract.report import MAX_DATA_ISSUES, DatasetReport, IssueCount, TokenStatistics
from tunesmith_contract.run_config import PrepareConfig
from tunesmith_data.rows.clean.excerpt_masking import mask_quotations
from tunesmith_data.rows.clean.personal_data import PersonalDataFinder
from tunesmith_data.rows.findings import Issue, Severity
from tunesmith_data.rows.report.data_report import Counts, DataReport
from tunesmith_data.rows.report.histogram import build_histogram
from tunesmith_data.rows.table.record import Side
from tunesmith_data.rows.table.row_store import RowStore
from tunesmith_data.rows.table.split import CODES, dataset_digest

from .annotator_agreement import agreement_issues
from .cleaning import Cleaned
from .refused_rows import Refusals
from .row_quality import Judged, by_gravity
from .sources import Taken

_MAX_WARNINGS = 4
_WARNING_CHARACTERS = 200
_RECOMMENDATION_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Findings:
    """All that prepare came to know of the rows."""

    taken: Taken
    store: RowStore
    refusals: Refusals
    cleaned: Cleaned
    judged: Judged
    truncated: int

    def indexes(self, side: Side) -> npt.NDArray[np.int64]:
        """The rows of a side."""
        return np.flatnonzero(self.cleaned.sides == CODES[side])

    @property
    def issues(self) -> list[Issue]:
        """What there is to say of rows and labels, the gravest first."""
        return sorted([*self.judged.issues, *agreement_issues(self.taken.agreement)], key=by_gravity)

    @property
    def counts(self) -> Counts:
        """What became of the rows."""
        of = Counter({side: int((self.cleaned.sides == CODES[side]).sum()) for side in Side})
        return Counts(
            rows=len(self.store) + self.refusals.rows,
            train=of[Side.TRAIN],
            validation=of[Side.VALIDATION],
            duplicates=of[Side.DUPLICATE],
            near_duplicates=of[Side.NEAR_DUPLICATE],
            leaked=of[Side.LEAKED],
            dropped=self.refusals.rows,
        )

    @property
    def digest(self) -> str:
        """Of what is trained and validated on."""
        digests = self.store.digests
        train, validation = (digests[self.indexes(side)] for side in (Side.TRAIN, Side.VALIDATION))
        return dataset_digest((each.tobytes() for each in train), (each.tobytes() for each in validation))


def build_dataset_report(found: Findings, page: str) -> DatasetReport:
    """What status shows.

    Args:
        page: the URI of the report for people.
    """
    counts, tokens = found.counts, _kept_tokens(found)
    recommendation = found.judged.recommendation
    return DatasetReport(
        digest=found.digest,
        format=found.taken.data_format,
        rows=counts.rows,
        train_rows=counts.train,
        validation_rows=counts.validation,
        duplicates=counts.duplicates,
        near_duplicates=counts.near_duplicates,
        leaked_rows=counts.leaked,
        dropped_rows=counts.dropped,
        truncated_rows=found.truncated,
        tokens=TokenStatistics(
            p50=round(float(np.median(tokens))),
            p95=int(tokens[min(len(tokens) - 1, len(tokens) * 95 // 100)]),
            max=int(tokens[-1]),
            total=int(tokens.sum()),
        ),
        warnings=tuple(warning[:_WARNING_CHARACTERS] for warning in _warnings(found)[:_MAX_WARNINGS]),
        issues=tuple(IssueCount(issue.check, issue.rows) for issue in _grave(found)[:MAX_DATA_ISSUES]),
        recommendation=recommendation.summary[:_RECOMMENDATION_CHARACTERS] if recommendation else None,
        page=page,
    )


def build_data_report(found: Findings, config: PrepareConfig, finder: PersonalDataFinder) -> DataReport:
    """All of it, as far as it is bounded.

    Args:
        finder: takes personal data out of what is quoted of rows: a report is passed around.
    """
    judged, refused = found.judged, found.refusals.describe(config, found.counts.rows)
    report = DataReport(
        title=config.owner.name,
        model=config.base_model,
        method=config.method.key,
        format=found.taken.data_format,
        digest=found.digest,
        files=found.taken.files,
        counts=found.counts,
        truncated_rows=found.truncated,
        max_length=config.method.max_length,
        tokens=build_histogram(_kept_tokens(found)),
        answer_characters=build_histogram(judged.answer_characters),
        turns=build_histogram(judged.turns),
        issues=tuple(sorted([*found.issues, *([refused] if refused else [])], key=by_gravity)),
        worst=judged.worst,
        clusters=found.cleaned.clusters,
        leaks=found.cleaned.leaks,
        dropped=tuple(found.refusals.shown),
        agreement=found.taken.agreement,
        learning_curve=judged.learning_curve,
        recommendation=judged.recommendation,
    )
    return DataReport.model_validate(mask_quotations(report.to_dict(), finder))


def _kept_tokens(found: Findings) -> npt.NDArray[np.int64]:
    """Tokens of the rows that are trained or validated on, in ascending order."""
    kept = np.isin(found.cleaned.sides, (CODES[Side.TRAIN], CODES[Side.VALIDATION]))
    return np.sort(found.store.tokens[kept])


def _warnings(found: Findings) -> list[str]:
    """What to look at, in a sentence each, the gravest first."""
    warnings = _said(_grave(found), Severity.ERROR)
    if found.refusals.silent:
        cut = found.refusals.silent
        warnings.append(f"{cut:,} answers of the teacher were cut off and are left out: raise maxTokens")
    if found.truncated:
        warnings.append(
            f"{found.truncated:,} rows are longer than maxLength and lose their end: raise maxLength"
        )
    if not found.counts.validation:
        warnings.append("no rows are held out for validation: set dataset.validation")
    return warnings + _said(_grave(found), Severity.WARNING)


def _grave(found: Findings) -> list[Issue]:
    """What somebody should look at; notes stand in the report."""
    return [issue for issue in found.issues if issue.severity is not Severity.NOTE]


def _said(issues: Sequence[Issue], severity: Severity) -> list[str]:
    return [f"{issue.message}: {issue.advice}" for issue in issues if issue.severity is severity]
