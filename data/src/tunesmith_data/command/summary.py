"""Summary of a data report as plain text for a terminal."""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from textwrap import wrap

from tunesmith_data.html_pages.text_filters import amount, duration, number, percent
from tunesmith_data.rows.findings import Issue
from tunesmith_data.rows.page.charts import draw_counts
from tunesmith_data.rows.page.verdict import report_verdict
from tunesmith_data.rows.report.data_report import DataReport, TrainingEstimate

_WIDTH = 100
_LABEL = 18
_ISSUE = 10


def summarize(report: DataReport, places: dict[str, Path], omissions: Sequence[str] = ()) -> str:
    """The whole of it.

    Args:
        places: paths of the results, by label.
        omissions: sentences about what could not be checked here.
    """
    parts = [
        [f"{report.title}: {report_verdict(report).title}"],
        list(_counts(report)),
        [line for issue in report.issues for line in _issue(issue)],
        list(_outlook(report)),
        [line for sentence in omissions for line in _labeled("Not checked here", sentence)],
        [line for name, path in places.items() for line in _labeled(name, str(path))],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _counts(report: DataReport) -> Iterator[str]:
    yield f"  {'Rows read':{_LABEL}}{report.counts.rows:>12,}"
    for segment in draw_counts(report.counts):
        if segment.count:
            yield f"  {segment.label:{_LABEL}}{segment.count:>12,}   {percent(segment.share)}"
    tokens = report.tokens
    cut = f"; {report.truncated_rows:,} rows cut at {report.max_length:,}" if report.truncated_rows else ""
    yield from _labeled(
        "Tokens a row",
        f"median {tokens.p50:,.0f}, 95 % up to {tokens.p95:,.0f}, longest {tokens.max:,.0f}{cut}",
    )


def _issue(issue: Issue) -> Iterator[str]:
    first, *rest = wrap(f"{issue.check}: {issue.message}", _WIDTH - _ISSUE) or [issue.check]
    yield f"  {issue.severity:{_ISSUE}}{first}"
    if issue.examples:
        rest.append(f"first at {issue.examples[0].place}")
    yield from (f"  {'':{_ISSUE}}{line}" for line in rest)


def _outlook(report: DataReport) -> Iterator[str]:
    if advice := report.recommendation:
        choice = f"{advice.method}, {advice.adapter or 'full fine-tuning'}"
        yield from _labeled("Recommended", f"{choice}: {advice.summary}")
    if report.estimate:
        yield from _labeled("Training", _training(report.estimate))


def _training(estimate: TrainingEstimate) -> str:
    phrases = [f"{number(estimate.steps)} steps ({estimate.epochs} epochs, batch size {estimate.batch_size})"]
    if estimate.seconds is not None and estimate.gpu_hours is not None:
        phrases.append(f"about {duration(estimate.seconds)} on one {estimate.gpu}")
        phrases.append(f"{number(estimate.gpu_hours)} GPU hours")
    if estimate.amount is not None:
        phrases.append(f"about {amount(estimate.amount, estimate.currency or '')}")
    return ", ".join(phrases)


def _labeled(label: str, text: str) -> Iterator[str]:
    lines = wrap(text, _WIDTH - _LABEL, break_on_hyphens=False, break_long_words=False)
    yield from (
        f"  {name:{_LABEL}}{line}" for name, line in zip(chain([label], repeat("")), lines, strict=False)
    )
