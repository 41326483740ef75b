"""Dataset report for status, and data report for people."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith_contract.report import MAX_DATA_ISSUES, DatasetReport, IssueCount, TokenStatistics
from tunesmith_contract.run_config import PrepareConfig
from tunesmith_data.rows.clean.personal_data import PersonalDataFinder, mask_quotations
from tunesmith_data.rows.findings import Issue, Severity
from tunesmith_data.rows.report.data_report import DataReport, HeldOutRows, RowCounts
from tunesmith_data.rows.report.histogram import build_histogram
from tunesmith_data.rows.table.record import RowSide
from tunesmith_data.rows.table.row_store import RowStore
from tunesmith_data.rows.table.split import SIDE_CODES, dataset_digest

from .annotator_agreement import agreement_issues
from .cleaning import CleaningResult
from .invalid_rows import InvalidRows
from .row_quality import RowQuality, by_severity
from .sources import SourceSummary

_MAX_WARNINGS = 4
_WARNING_CHARACTERS = 200
_RECOMMENDATION_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Everything that prepare found about the rows; both reports are built from it."""

    sources: SourceSummary
    store: RowStore
    invalid_rows: InvalidRows
    cleaned: CleaningResult
    quality: RowQuality
    truncated: int
    held_out: tuple[HeldOutRows, ...] = ()

    def indexes(self, side: RowSide) -> npt.NDArray[np.int64]:
        """The rows of a side."""
        return np.flatnonzero(self.cleaned.sides == SIDE_CODES[side])

    @property
    def issues(self) -> list[Issue]:
        """Issues of rows and labels, most severe first."""
        return sorted([*self.quality.issues, *agreement_issues(self.sources.agreement)], key=by_severity)

    @property
    def counts(self) -> RowCounts:
        """Number of rows per side."""
        by_side = Counter({side: int((self.cleaned.sides == SIDE_CODES[side]).sum()) for side in RowSide})
        return RowCounts(
            rows=len(self.store) + self.invalid_rows.rows,
            train=by_side[RowSide.TRAIN],
            validation=by_side[RowSide.VALIDATION],
            duplicates=by_side[RowSide.DUPLICATE],
            near_duplicates=by_side[RowSide.NEAR_DUPLICATE],
            leaked=by_side[RowSide.LEAKED],
            dropped=self.invalid_rows.rows,
        )

    @property
    def digest(self) -> str:
        """Digest of training and validation rows."""
        digests = self.store.digests
        train, validation = (digests[self.indexes(side)] for side in (RowSide.TRAIN, RowSide.VALIDATION))
        return dataset_digest(
            (digest.tobytes() for digest in train), (digest.tobytes() for digest in validation)
        )


def build_dataset_report(data: PreparedData, page: str) -> DatasetReport:
    """Dataset report for status.

    Args:
        page: the URI of the report for people.
    """
    counts, tokens = data.counts, _kept_tokens(data)
    recommendation = data.quality.recommendation
    return DatasetReport(
        digest=data.digest,
        format=data.sources.data_format,
        rows=counts.rows,
        train_rows=counts.train,
        validation_rows=counts.validation,
        duplicates=counts.duplicates,
        near_duplicates=counts.near_duplicates,
        leaked_rows=counts.leaked,
        dropped_rows=counts.dropped,
        truncated_rows=data.truncated,
        tokens=TokenStatistics(
            p50=round(float(np.median(tokens))),
            p95=int(tokens[min(len(tokens) - 1, len(tokens) * 95 // 100)]),
            max=int(tokens[-1]),
            total=int(tokens.sum()),
        ),
        warnings=tuple(warning[:_WARNING_CHARACTERS] for warning in _warnings(data)[:_MAX_WARNINGS]),
        issues=tuple(
            IssueCount(issue.check, issue.rows) for issue in _needing_attention(data)[:MAX_DATA_ISSUES]
        ),
        recommendation=recommendation.summary[:_RECOMMENDATION_CHARACTERS] if recommendation else None,
        page=page,
    )


def build_data_report(data: PreparedData, config: PrepareConfig, finder: PersonalDataFinder) -> DataReport:
    """Data report for people, of bounded size.

    Args:
        finder: takes personal data out of what is quoted of rows: a report is passed around.
    """
    quality, invalid = data.quality, data.invalid_rows.describe(config, data.counts.rows)
    report = DataReport(
        title=config.owner.name,
        model=config.base_model,
        method=config.method.key,
        format=data.sources.data_format,
        digest=data.digest,
        files=data.sources.files,
        counts=data.counts,
        truncated_rows=data.truncated,
        max_length=config.method.max_length,
        tokens=build_histogram(_kept_tokens(data)),
        answer_characters=build_histogram(quality.answer_characters),
        turns=build_histogram(quality.turns),
        issues=tuple(sorted([*data.issues, *([invalid] if invalid else [])], key=by_severity)),
        worst=quality.worst,
        clusters=data.cleaned.clusters,
        leaks=data.cleaned.leaks,
        held_out=data.held_out,
        dropped=tuple(data.invalid_rows.shown),
        agreement=data.sources.agreement,
        learning_curve=quality.learning_curve,
        recommendation=quality.recommendation,
    )
    return DataReport.model_validate(mask_quotations(report.to_dict(), finder))


def _kept_tokens(data: PreparedData) -> npt.NDArray[np.int64]:
    """Tokens of the rows that are trained or validated on, in ascending order."""
    kept = np.isin(data.cleaned.sides, (SIDE_CODES[RowSide.TRAIN], SIDE_CODES[RowSide.VALIDATION]))
    return np.sort(data.store.tokens[kept])


def _warnings(data: PreparedData) -> list[str]:
    """Warnings, one sentence each, most severe first."""
    warnings = _sentences(_needing_attention(data), Severity.ERROR)
    if data.invalid_rows.without_findings:
        cut = data.invalid_rows.without_findings
        warnings.append(f"{cut:,} answers of the teacher were cut off and are left out: raise maxTokens")
    if data.truncated:
        warnings.append(
            f"{data.truncated:,} rows are longer than maxLength and lose their end: raise maxLength"
        )
    if not data.counts.validation:
        warnings.append("no rows are held out for validation: set dataset.validation")
    return warnings + _sentences(_needing_attention(data), Severity.WARNING)


def _needing_attention(data: PreparedData) -> list[Issue]:
    """Errors and warnings; notes are only in the report."""
    return [issue for issue in data.issues if issue.severity is not Severity.NOTE]


def _sentences(issues: Sequence[Issue], severity: Severity) -> list[str]:
    return [f"{issue.message}: {issue.advice}" for issue in issues if issue.severity is severity]
