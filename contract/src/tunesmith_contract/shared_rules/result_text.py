"""Texts on results of an evaluation that status, report and command share: the headline, changes, gates."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tunesmith_contract.evaluation import Expect
from tunesmith_contract.report import Interval

_MAX_DECIMALS = 4
#: Makes up for the binary form of decimal fractions where they are rounded up.
_ROUNDING = 1e-9
#: Intervals that reach as far have no end that was found: the items were too few.
_NO_END = 1e9


class GatedMetric(NamedTuple):
    """Metric of a suite on which a gate stands; ``expect`` and ``tier`` are those of the gate."""

    suite: str
    metric: str
    expect: str
    tier: str


def choose_headline(
    gates: Sequence[GatedMetric], measured: Collection[tuple[str, str]]
) -> tuple[str, str] | None:
    """Suite and metric of the headline; None if nothing was measured.

    The first blocking gate that expects ``Better`` names it, else the first blocking gate, else the first gate, else
    the first metric that was measured. Gates on metrics that were not measured are passed over.

    Args:
        gates: the gates in their order.
        measured: suite and metric of each difference, in their order.
    """
    present = [gate for gate in gates if (gate.suite, gate.metric) in measured]
    ranked = sorted(present, key=lambda gate: (gate.tier != "Blocking", gate.expect != "Better"))
    if ranked:
        return ranked[0].suite, ranked[0].metric
    return next(iter(measured), None)


def describe_change(delta: Interval) -> str:
    """Difference with its uncertainty, ``+0.12 ±0.03``.

    The number behind ± is the distance from the value to the farther end of the interval, rounded up: the range is
    never shown narrower than it is. ``+0.12 ±∞`` is a difference of too few items to bound it.
    """
    distance = max(delta.high - delta.value, delta.value - delta.low, 0.0)
    if distance >= _NO_END:
        return f"{signed(delta.value, 2)} ±∞"
    decimals = decimals_for(distance)
    shown = math.ceil(distance * 10**decimals - _ROUNDING) / 10**decimals
    return f"{signed(delta.value, decimals)} ±{shown:,.{decimals}f}"


def decimals_for(distance: float) -> int:
    """Decimals that show an uncertainty with at least one significant digit: at most four."""
    if distance >= 10:
        return 0
    if distance >= 1:
        return 1
    return 2 if distance <= 0 else min(_MAX_DECIMALS, max(2, -math.floor(math.log10(distance))))


def signed(value: float, decimals: int) -> str:
    """Number with its sign; zero is ``+0.00``, never ``-0.00``; an end that was not found is infinite."""
    if abs(value) >= _NO_END:
        return "+∞" if value > 0 else "-∞"
    return f"{round(value, decimals) + 0.0:+,.{decimals}f}"


def describe_margin(margin: float, relative_margin: float | None = None, floor: float = 0.0) -> str:
    """Margin of a gate in words: ``0.02``, or ``2 % of the baseline's score (at least 0.01)``."""
    if relative_margin is None:
        return f"{margin:g}"
    least = f" (at least {floor:g})" if floor else ""
    return f"{100 * relative_margin:g} % of the baseline's score{least}"


def describe_expectation(expect: Expect, margin: str) -> str:
    """Condition of a gate in words: ``better by more than 0.05``, ``worse by less than 0.02``.

    Args:
        expect: the expectation.
        margin: the margin in words.
    """
    if expect is Expect.NOT_WORSE:
        return f"worse by less than {margin}"
    return "better" if margin == "0" else f"better by more than {margin}"
