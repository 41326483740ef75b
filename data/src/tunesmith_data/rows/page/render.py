"""Rendering of the data report's HTML page."""

from dataclasses import dataclass
from functools import cache

from tunesmith_data.html_pages.render import PageTemplates
from tunesmith_data.rows.findings import EXCERPT_CHARACTERS, MAX_EXAMPLES
from tunesmith_data.rows.report.data_report import DataReport, Histogram
from tunesmith_data.rows.report.label_agreement import describe_alpha, describe_kappa

from .charts import HistogramChart, draw_counts, draw_curve, draw_histogram
from .verdict import report_verdict

MAX_PAGE_BYTES = 2**20
MAX_ISSUES = 40
MAX_FILES = 100

_PACKAGE = "tunesmith_data.rows.page"


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Limits on the contents of a page.

    Attributes:
        rows: maximum rows of a list.
        examples: maximum examples of an issue.
        excerpt: maximum characters of a row.
        text: maximum characters of a sentence.
    """

    rows: int
    examples: int
    excerpt: int
    text: int


@dataclass(frozen=True, slots=True)
class Panel:
    """Histogram with a title; ``unit`` is the unit of its values."""

    id: str
    title: str
    unit: str
    histogram: Histogram
    chart: HistogramChart


#: The first limits with which the page is small enough are used; the last ones always suffice.
_LIMITS = (
    PageLimits(rows=100, examples=MAX_EXAMPLES, excerpt=EXCERPT_CHARACTERS, text=400),
    PageLimits(rows=50, examples=10, excerpt=160, text=300),
    PageLimits(rows=25, examples=3, excerpt=60, text=120),
    PageLimits(rows=10, examples=1, excerpt=30, text=60),
)


def render_page(report: DataReport) -> str:
    """The report as one HTML file of less than MAX_PAGE_BYTES, which loads no other file.

    Rows are shown as text: everything is escaped, and the page's content security policy allows no other script or
    style than its own.
    """
    pages = (_render(report, limits) for limits in _LIMITS)
    return next(page for page in pages if len(page.encode()) < MAX_PAGE_BYTES)


def _render(report: DataReport, limits: PageLimits) -> str:
    return _templates().render(
        "page.html.jinja",
        report=report,
        verdict=report_verdict(report),
        limits=limits,
        issues=report.issues[:MAX_ISSUES],
        files=report.files[:MAX_FILES],
        segments=draw_counts(report.counts),
        panels=_panels(report),
        curve=draw_curve(report.learning_curve, report.counts.train) if report.learning_curve else None,
    )


def _panels(report: DataReport) -> list[Panel]:
    named = (
        ("tokens", "Tokens a row", "tokens", report.tokens, report.max_length),
        ("answer", "Characters of an answer", "characters", report.answer_characters, 0),
        ("turns", "Turns of a row", "turns", report.turns, 0),
    )
    return [
        Panel(key, title, unit, histogram, draw_histogram(histogram, limit))
        for key, title, unit, histogram, limit in named
    ]


@cache
def _templates() -> PageTemplates:
    filters = {"alpha_words": describe_alpha, "kappa_words": describe_kappa}
    return PageTemplates(_PACKAGE, "page.css", filters=filters)
