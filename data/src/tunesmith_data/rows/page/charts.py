"""Geometry of the page's charts: bars, ticks and curves in viewBox units."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from math import log2

from tunesmith_data.html_pages.text_filters import number
from tunesmith_data.rows.report.data_report import Histogram, LearningCurve, RowCounts

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 6, 6, 26, 24
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
BASE = TOP + PLOT_HEIGHT
CURVE_LEFT = 44
TICKS = 4
#: About the width of a character of a label, and some room.
CHARACTER = 7.5
GAP, MAX_BAR = 1.0, 56.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram; ``label`` is the span of its values, ``count`` how many there are."""

    x: float
    y: float
    width: float
    height: float
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Labeled position on an axis; ``anchor`` is the text's alignment."""

    at: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class HistogramChart:
    """A drawn histogram.

    Attributes:
        lines: vertical lines with a label, such as ``maxLength``.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[Mark, ...]
    lines: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the bar of counts; ``x`` and ``width`` are thousandths of the whole."""

    key: str
    label: str
    count: int
    share: float
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class CurveChart:
    """A drawn learning curve; ``fitted`` and ``expected`` are the points of polylines."""

    points: tuple[tuple[float, float, str], ...]
    fitted: str
    expected: str
    end: tuple[float, float]
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]


_SIDES = (
    ("train", "Training"),
    ("validation", "Validation"),
    ("duplicates", "Exact duplicates"),
    ("near_duplicates", "Near duplicates"),
    ("leaked", "Leaked"),
    ("dropped", "Dropped"),
)


def draw_counts(counts: RowCounts) -> tuple[Segment, ...]:
    """All six parts, the empty ones too."""
    segments, x, whole = [], 0.0, max(1, counts.rows)
    for key, label in _SIDES:
        count = getattr(counts, key)
        share = count / whole
        segments.append(Segment(key, label, count, share, round(x, 2), round(1000 * share, 2)))
        x += 1000 * share
    return tuple(segments)


def draw_histogram(histogram: Histogram, limit: int = 0) -> HistogramChart:
    """Bars of equal width; ``limit`` is marked if it is within the range."""
    highest, width = max(1, *histogram.counts), PLOT_WIDTH / len(histogram.counts)
    thick = min(width - GAP, MAX_BAR)
    bars = tuple(
        Bar(
            x=round(LEFT + index * width + (width - thick) / 2, 2),
            y=round(BASE - PLOT_HEIGHT * count / highest, 2),
            width=round(thick, 2),
            height=round(PLOT_HEIGHT * count / highest, 2),
            label=_span(histogram, index),
            count=count,
        )
        for index, count in enumerate(histogram.counts)
    )
    inside = bool(limit) and histogram.edges[0] <= limit <= histogram.edges[-1]
    lines = (_line(_position(histogram.edges, limit), f"maxLength {limit:,}"),) if inside else ()
    return HistogramChart(bars, tuple(_ticks(histogram)), lines)


def draw_curve(curve: LearningCurve, rows: int) -> CurveChart:
    """Errors over rows, the rows on a logarithmic scale, on to twice as many as there are."""
    last = max(rows, *(count for count, _ in curve.points))
    first = min(count for count, _ in curve.points)
    errors = [error for _, error in (*curve.points, *curve.fitted)] + [curve.now, curve.doubled]
    low, high = min(errors), max(errors)
    margin = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin

    def x(count: float) -> float:
        share = (log2(count) - log2(first)) / (log2(2 * last) - log2(first))
        return round(CURVE_LEFT + (WIDTH - RIGHT - 16 - CURVE_LEFT) * share, 2)

    def y(error: float) -> float:
        return round(BASE - PLOT_HEIGHT * (error - low) / (high - low), 2)

    return CurveChart(
        points=tuple(
            (x(count), y(error), f"{count:,} rows: {number(error)}") for count, error in curve.points
        ),
        fitted=_polyline((x(count), y(error)) for count, error in curve.fitted),
        expected=_polyline([(x(last), y(curve.now)), (x(2 * last), y(curve.doubled))]),
        end=(x(2 * last), y(curve.doubled)),
        x_ticks=tuple(Mark(x(count), f"{count:,}") for count in (first, last, 2 * last)),
        y_ticks=tuple(Mark(y(error), number(error)) for error in (low + margin, high - margin)),
    )


def _span(histogram: Histogram, index: int) -> str:
    """Label of a bin: whole numbers from one edge up to the next."""
    low, high = histogram.edges[index], histogram.edges[index + 1]
    last = high - 1 if index < len(histogram.counts) - 1 else min(high - 1, histogram.max)
    return number(low) if last <= low else f"{number(low)}–{number(last)}"  # noqa: RUF001


def _position(edges: tuple[float, ...], value: float) -> float:
    """Position of a value on the axis, interpolated within its bin."""
    index = min(bisect_right(edges, value) - 1, len(edges) - 2)
    share = (value - edges[index]) / (edges[index + 1] - edges[index])
    return round(LEFT + PLOT_WIDTH * (index + share) / (len(edges) - 1), 2)


def _line(at: float, label: str) -> Mark:
    """A label on the side of its line that has more room."""
    return Mark(at, label, "start" if at < WIDTH / 2 else "end")


def _ticks(histogram: Histogram) -> Iterable[Mark]:
    """Some edges; where each bin is one number, the numbers below the middle of their bars."""
    edges, bins = histogram.edges, len(histogram.counts)
    single_values = edges[1] - edges[0] == 1
    tail = bins > 1 and edges[-1] - edges[-2] > 1.5 * (edges[1] - edges[0])
    regular, width, end = bins - tail, PLOT_WIDTH / bins, float(WIDTH)
    if tail:
        last = Mark(WIDTH - RIGHT, f"to {number(histogram.max)}", "end")
        end = last.at - CHARACTER * len(last.label)
        yield last
    for index in range(0, regular + (not single_values), max(1, -(-regular // TICKS))):
        at, label = LEFT + width * (index + 0.5 * single_values), number(edges[index])
        if at + CHARACTER * len(label) / 2 < end:
            yield Mark(round(at, 2), label, _anchor(at))


def _anchor(at: float) -> str:
    if at < LEFT + 12:
        return "start"
    return "end" if at > WIDTH - RIGHT - 12 else "middle"


def _polyline(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)
