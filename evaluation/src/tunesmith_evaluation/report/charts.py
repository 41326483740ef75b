"""Geometry of the page's charts, in viewBox units: forest plots, bars of outcomes, trends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tunesmith_contract.report import Interval
from tunesmith_contract.shared_rules.result_text import describe_change

WIDTH, MARGIN = 360, 14
ROW_HEIGHT, AXIS_HEIGHT = 30, 22
TREND_HEIGHT, TREND_TOP, TREND_BASE, TREND_LEFT = 190, 18, 154, 50
_PADDING = 0.08
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Direction(StrEnum):
    """Meaning of an interval of differences for the candidate."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference to draw; ``thresholds`` are those of the gates on it."""

    delta: Interval
    higher_is_better: bool = True
    thresholds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ForestRow:
    """A drawn difference.

    Attributes:
        failing: position and width of the range in which a gate fails; None if no gate stands on the metric.
    """

    value: float
    low: float
    high: float
    thresholds: tuple[float, ...]
    failing: tuple[float, float] | None
    direction: Direction


@dataclass(frozen=True, slots=True)
class Tick:
    """Labeled position on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Forest:
    """Rows over one axis; ``zero`` is the position of no difference."""

    rows: tuple[ForestRow, ...]
    zero: float
    ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a bar of outcomes; ``x`` and ``width`` are thousandths of the whole."""

    key: str
    count: int
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """A report in a trend; ``low`` and ``high`` are the ends of its interval."""

    x: float
    y: float
    low: float
    high: float
    verdict: str
    label: str


@dataclass(frozen=True, slots=True)
class Trend:
    """Drawn trend; ``zero`` is the position of no difference."""

    points: tuple[TrendPoint, ...]
    line: str
    zero: float
    y_ticks: tuple[Tick, ...]
    first: str
    last: str


def direction(delta: Interval, higher_is_better: bool) -> Direction:
    """Meaning of an interval that lies wholly on one side of zero."""
    if delta.low <= 0 <= delta.high:
        return Direction.OPEN
    return Direction.BETTER if (delta.low > 0) is higher_is_better else Direction.WORSE


def draw_forest(differences: Sequence[Difference]) -> Forest:
    """Intervals over a common axis that holds all of them, their thresholds and zero."""
    values = [0.0]
    for each in differences:
        values += [*each.delta, *each.thresholds]
    low, high = _padded(min(values), max(values))

    def x(value: float) -> float:
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (value - low) / (high - low), 2)

    def row(each: Difference) -> ForestRow:
        failing = None
        if each.thresholds and each.higher_is_better:
            failing = (0.0, x(max(each.thresholds)))
        elif each.thresholds:
            start = x(min(each.thresholds))
            failing = (start, round(WIDTH - start, 2))
        value, start, end = map(x, each.delta)
        meaning = direction(each.delta, each.higher_is_better)
        return ForestRow(value, start, end, tuple(map(x, each.thresholds)), failing, meaning)

    return Forest(
        tuple(map(row, differences)),
        x(0),
        tuple(Tick(x(value), _tick_label(value)) for value in ticks(low, high)),
    )


def draw_outcomes(wins: int, ties: int, losses: int) -> tuple[Part, ...]:
    """Bar of wins, ties and losses; parts without an item are left out."""
    whole, at, parts = max(1, wins + ties + losses), 0.0, []
    for key, count in (("better", wins), ("equal", ties), ("worse", losses)):
        if count:
            parts.append(Part(key, count, round(at, 2), round(1000 * count / whole, 2)))
        at += 1000 * count / whole
    return tuple(parts)


def draw_trend(changes: Sequence[tuple[datetime, Interval, str]]) -> Trend:
    """Differences in their order, evenly spaced, with their intervals.

    Args:
        changes: end of the run, difference and verdict; at least one.
    """
    low, high = _padded(
        min(0.0, *(each.low for _, each, _ in changes)), max(0.0, *(each.high for _, each, _ in changes))
    )
    step = (WIDTH - MARGIN - TREND_LEFT - 20) / max(1, len(changes) - 1)

    def y(value: float) -> float:
        return round(TREND_BASE - (TREND_BASE - TREND_TOP) * (value - low) / (high - low), 2)

    points = tuple(
        TrendPoint(
            x=round(TREND_LEFT + 10 + index * step, 2),
            y=y(delta.value),
            low=y(delta.low),
            high=y(delta.high),
            verdict=verdict,
            label=f"{ended:%Y-%m-%d}: {describe_change(delta)}, {verdict}",
        )
        for index, (ended, delta, verdict) in enumerate(changes)
    )
    return Trend(
        points=points,
        line=" ".join(f"{point.x},{point.y}" for point in points),
        zero=y(0),
        y_ticks=tuple(Tick(y(value), _tick_label(value)) for value in ticks(low, high)),
        first=f"{changes[0][0]:%Y-%m-%d}",
        last=f"{changes[-1][0]:%Y-%m-%d}" if len(changes) > 1 else "",
    )


def ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers within a range, zero among them if the range holds it."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return low - _PADDING * (high - low), high + _PADDING * (high - low)


def _tick_label(value: float) -> str:
    return f"{value:+,.6g}".replace("-", "−") if round(value, 12) else "0"  # noqa: RUF001
