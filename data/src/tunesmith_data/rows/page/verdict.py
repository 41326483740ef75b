"""The one sentence that a page begins with."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.report.data_report import DataReport


class Level(StrEnum):
    """Whether to train now."""

    READY = "ready"
    CARE = "care"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do next.

    Attributes:
        level: whether to train now.
        title: a few words.
        text: a sentence; the gravest issue's where there is one.
    """

    level: Level
    title: str
    text: str


def judge(report: DataReport) -> Verdict:
    """What the report comes to: errors come first, then warnings; notes stop nobody."""
    if report.counts.train == 0:
        return Verdict(Level.STOP, "Nothing is left to train on", "All rows were left out: see why below.")
    found = Counter(issue.severity for issue in report.issues)
    gravest = next((issue.message for issue in report.issues if issue.severity is not Severity.NOTE), "")
    if errors := found[Severity.ERROR]:
        return Verdict(Level.STOP, "Look at this first", f"{_count(errors, 'error')}. {gravest}")
    if warnings := found[Severity.WARNING]:
        return Verdict(Level.CARE, f"Ready, with {_count(warnings, 'warning')}", gravest)
    rows = f"{report.counts.train:,} rows can be trained on"
    return Verdict(Level.READY, "Ready to train", f"{rows}, and no check has anything against them.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
