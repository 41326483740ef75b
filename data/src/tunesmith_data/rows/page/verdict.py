"""Verdict of a data report: ready, ready with care, or stop."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.report.data_report import DataReport


class Readiness(StrEnum):
    """Readiness for training."""

    READY = "ready"
    CARE = "care"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class ReportVerdict:
    """Verdict of a data report.

    Attributes:
        level: readiness for training.
        title: a few words.
        text: a sentence; that of the most severe issue if there is one.
    """

    level: Readiness
    title: str
    text: str


def report_verdict(report: DataReport) -> ReportVerdict:
    """Verdict from the report's issues: errors first, then warnings; notes do not count."""
    if report.counts.train == 0:
        return ReportVerdict(
            Readiness.STOP, "Nothing is left to train on", "All rows were left out: see why below."
        )
    severities = Counter(issue.severity for issue in report.issues)
    gravest = next((issue.message for issue in report.issues if issue.severity is not Severity.NOTE), "")
    if errors := severities[Severity.ERROR]:
        return ReportVerdict(Readiness.STOP, "Look at this first", f"{_count(errors, 'error')}. {gravest}")
    if warnings := severities[Severity.WARNING]:
        return ReportVerdict(Readiness.CARE, f"Ready, with {_count(warnings, 'warning')}", gravest)
    rows = f"{report.counts.train:,} rows can be trained on"
    return ReportVerdict(Readiness.READY, "Ready to train", f"{rows}, and no check found an issue.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
