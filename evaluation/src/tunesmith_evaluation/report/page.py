"""HTML page of a report: one self-contained file."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_data.html_pages.render import PageTemplates
from tunesmith_data.html_pages.text_filters import reveal_controls, shorten

from . import sentences
from .charts import Difference, Forest, ForestRow, Part, Tick, draw_forest, draw_outcomes
from .document import (
    EvaluationDocument,
    GateReport,
    MetricReport,
    SliceReport,
    SuiteReport,
    WorstItem,
)
from .word_diff import Piece, diff_words

MAX_PAGE_BYTES = 2 * 2**20

#: Classes of the base style by verdict.
LEVELS: dict[Verdict, str] = {Verdict.PASS: "ready", Verdict.FAIL: "stop", Verdict.INCONCLUSIVE: "care"}

_PACKAGE = "tunesmith_evaluation.report"


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Limits on the contents of a page.

    Attributes:
        suites: maximum suites, and sides.
        results: maximum metrics of a suite, gates of the run, and facts of a metric.
        slices: maximum values of slices.
        items: maximum items of a list.
        excerpt: maximum characters of a question or an answer.
        text: maximum characters of a sentence.
        record: maximum characters of the policy record.
    """

    suites: int
    results: int
    slices: int
    items: int
    excerpt: int
    text: int
    record: int


#: The first limits with which the page is small enough are used; the last ones always suffice.
_LIMITS = (
    PageLimits(suites=40, results=60, slices=200, items=50, excerpt=4000, text=1000, record=200_000),
    PageLimits(suites=40, results=40, slices=100, items=50, excerpt=1500, text=600, record=100_000),
    PageLimits(suites=20, results=20, slices=50, items=25, excerpt=600, text=300, record=20_000),
    PageLimits(suites=10, results=10, slices=20, items=10, excerpt=200, text=120, record=5_000),
)


@dataclass(frozen=True, slots=True)
class MetricView:
    """A result as it is shown: its row in the forest plot, and its bar of outcomes."""

    result: MetricReport
    row: ForestRow | None
    parts: tuple[Part, ...]
    gates: tuple[GateReport, ...]


@dataclass(frozen=True, slots=True)
class PlotView:
    """Results that share an axis."""

    metrics: tuple[MetricView, ...]
    zero: float
    ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class SuiteView:
    """A suite with its results.

    Attributes:
        left_out: reasons and numbers of items without a comparison or with an incomplete answer.
    """

    suite: SuiteReport
    plots: tuple[PlotView, ...]
    left_out: tuple[tuple[str, int], ...]

    @property
    def metrics(self) -> list[MetricView]:
        """All results of the suite."""
        return [metric for plot in self.plots for metric in plot.metrics]


@dataclass(frozen=True, slots=True)
class SlicesView:
    """Values of one column, for one metric of a suite."""

    suite: str
    metric: str
    column: str
    slices: tuple[SliceReport, ...]
    forest: Forest


@dataclass(frozen=True, slots=True)
class ItemView:
    """An item that got worse, with the pieces of both answers: the candidate's and the baseline's."""

    item: WorstItem
    candidate: list[Piece]
    baseline: list[Piece]


def render_page(document: EvaluationDocument) -> str:
    """The report as one HTML file of less than MAX_PAGE_BYTES, which loads no other file.

    Texts of items and answers are shown as text: everything is escaped, characters that can't be seen are written
    out, and the page's content security policy allows no other script or style than its own.
    """
    pages = (_render(document, limits) for limits in _LIMITS)
    return next(page for page in pages if len(page.encode()) < MAX_PAGE_BYTES)


@cache
def page_templates() -> PageTemplates:
    """Templates of this package."""
    filters: dict[str, Callable[..., str]] = {
        "bounds": sentences.bounds,
        "change": sentences.change,
        "expectation": sentences.expectation,
        "identity": sentences.identity,
        "json": _as_json,
        "more_items": sentences.more_items,
        "outcomes": sentences.outcomes,
        "p_value": sentences.p_value,
        "score": sentences.score,
    }
    return PageTemplates(_PACKAGE, "report.css", "report.js", filters)


def _as_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False)


def _render(document: EvaluationDocument, limits: PageLimits) -> str:
    return page_templates().render(
        "report.html.jinja",
        report=document,
        limits=limits,
        level=LEVELS[document.verdict.verdict],
        levels=LEVELS,
        headline=sentences.headline(document),
        gates_passed=sentences.gates_passed(document.gates),
        suites=[_suite(document, suite, limits) for suite in document.suites[: limits.suites]],
        slices=list(_slices(document, limits)),
        items=[_item(item, limits) for item in document.worst[: limits.items]],
        configuration=list(_configuration(document, limits)),
    )


def _suite(document: EvaluationDocument, suite: SuiteReport, limits: PageLimits) -> SuiteView:
    results = [result for result in document.results if result.suite == suite.name][: limits.results]
    units = dict.fromkeys(result.unit for result in results)
    plots = (_plot([result for result in results if result.unit == unit], document.gates) for unit in units)
    return SuiteView(suite, tuple(plots), tuple(sentences.left_out(suite))[: limits.results])


def _plot(results: Sequence[MetricReport], gates: Sequence[GateReport]) -> PlotView:
    """Results of one unit over one axis; those without a difference have no row in it."""
    standing = {
        id(result): tuple(
            gate for gate in gates if (gate.suite, gate.metric) == (result.suite, result.metric)
        )
        for result in results
    }
    drawn = [result for result in results if result.delta is not None]
    forest = draw_forest([_difference(result, standing[id(result)]) for result in drawn])
    rows = dict(zip(map(id, drawn), forest.rows, strict=True))
    views = (
        MetricView(
            result,
            rows.get(id(result)),
            draw_outcomes(result.wins, result.ties, result.losses),
            standing[id(result)],
        )
        for result in results
    )
    return PlotView(tuple(views), forest.zero, forest.ticks)


def _difference(result: MetricReport, gates: Sequence[GateReport]) -> Difference:
    assert result.delta is not None
    thresholds = tuple(gate.threshold for gate in gates if gate.threshold is not None)
    return Difference(result.delta, result.higher_is_better, thresholds)


def _slices(document: EvaluationDocument, limits: PageLimits) -> Iterator[SlicesView]:
    shown = document.slices[: limits.slices]
    for suite, metric, column in dict.fromkeys((each.suite, each.metric, each.column) for each in shown):
        same = tuple(
            each for each in shown if (each.suite, each.metric, each.column) == (suite, metric, column)
        )
        result = document.metric(suite, metric)
        higher_is_better = result is None or result.higher_is_better
        forest = draw_forest([Difference(each.delta, higher_is_better) for each in same])
        yield SlicesView(suite, metric, column, same, forest)


def _item(item: WorstItem, limits: PageLimits) -> ItemView:
    candidate, baseline = (reveal_controls(shorten(answer.text, limits.excerpt)) for answer in item.answers)
    left, right = diff_words(baseline, candidate)
    return ItemView(item, candidate=right, baseline=left)


def _configuration(document: EvaluationDocument, limits: PageLimits) -> Iterator[tuple[str, str, str]]:
    """Key, title and JSON of each part of the configuration."""
    parts: tuple[tuple[str, str, Any], ...] = (
        ("decoding", "Decoding", document.decoding),
        ("environment", "Environment", document.environment),
        ("policy-record", "Policy record", document.policy.record),
    )
    for key, title, value in parts:
        if value:
            yield key, title, reveal_controls(shorten(_as_json(value, indent=2), limits.record))
