"""Table and plot of a search: as JSON, as Markdown, and as one HTML page that loads nothing from elsewhere."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from tunesmith_contract.search import Parameter, ParameterName, Scale, SearchSettings, Trial, TrialState

from .results import best_trial, importances

_WIDTH, _HEIGHT, _MARGIN = 320, 200, 36
_PACKAGE = "tunesmith_search"


@dataclass(frozen=True, slots=True)
class Point:
    """A trial in a plot, in pixels."""

    x: float
    y: float
    trial: Trial


@dataclass(frozen=True, slots=True)
class Plot:
    """Validation loss of the trials over one parameter.

    Attributes:
        importance: share in the differences between trials; None where there are too few of them.
        ticks: labels at places on the horizontal axis, in pixels.
        low, high: losses at the ends of the vertical axis.
    """

    name: ParameterName
    importance: float | None
    points: tuple[Point, ...]
    ticks: tuple[tuple[float, str], ...]
    low: float
    high: float
    width: int = _WIDTH
    height: int = _HEIGHT
    margin: int = _MARGIN


@dataclass(frozen=True, slots=True)
class Curve:
    """Validation losses of a trial over its steps; ``points`` are those of a polyline, in pixels."""

    points: str
    trial: Trial


@dataclass(frozen=True, slots=True)
class CurvePlot:
    """Validation losses of all trials over their steps.

    Attributes:
        low, high: losses at the ends of the vertical axis.
    """

    curves: tuple[Curve, ...]
    low: float
    high: float
    width: int = _WIDTH
    height: int = _HEIGHT
    margin: int = _MARGIN


def render_html(title: str, settings: SearchSettings, trials: Sequence[Trial]) -> str:
    """The page: outcome, a plot for each parameter, the table of all trials."""
    best, shares = best_trial(trials), importances(settings, trials)
    names = sorted(settings.parameters, key=lambda parameter: -shares.get(parameter.name, 0.0))
    plots = [plot for parameter in names if (plot := draw_plot(parameter, trials, shares))]
    page: str = (
        _templates()
        .get_template("page.html")
        .render(
            title=title,
            summary=describe(trials),
            best=best,
            plots=plots,
            curves=draw_curves(trials),
            names=[parameter.name for parameter in settings.parameters],
            trials=_by_loss(trials),
        )
    )
    return page


def render_markdown(title: str, settings: SearchSettings, trials: Sequence[Trial]) -> str:
    """The table of all trials, the best first."""
    names = [parameter.name for parameter in settings.parameters]
    header = ["Trial", "State", "Validation loss", "GPU seconds", *names]
    rows = [
        [
            str(trial.number),
            trial.state,
            _number(trial.loss),
            f"{trial.gpu_seconds:.0f}",
            *(trial.parameters.get(name, "") for name in names),
        ]
        for trial in _by_loss(trials)
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join([f"# {title}", "", describe(trials), "", *lines, ""])


def render_json(settings: SearchSettings, trials: Sequence[Trial]) -> str:
    """Settings, trials and importances for programs."""
    best = best_trial(trials)
    document = {
        "settings": settings.to_dict(),
        "trials": [trial.to_dict() for trial in trials],
        "best": best.number if best else None,
        "importances": {name: round(share, 4) for name, share in importances(settings, trials).items()},
    }
    return json.dumps(document, indent=2) + "\n"


def describe(trials: Sequence[Trial]) -> str:
    """One sentence with the number of trials by state, and one with the best."""
    counts = {state: sum(trial.state is state for trial in trials) for state in TrialState}
    parts = ", ".join(f"{count} {state.lower()}" for state, count in counts.items() if count)
    hours = sum(trial.gpu_seconds for trial in trials) / 3600
    text = f"{len(trials)} trials ({parts or 'none yet'}), {hours:.3g} GPU hours."
    best = best_trial(trials)
    if best is None:
        return text
    values = ", ".join(f"{name} {value}" for name, value in best.parameters.items())
    return f"{text} Best: trial {best.number} with a validation loss of {_number(best.loss)} ({values})."


def draw_plot(
    parameter: Parameter, trials: Sequence[Trial], shares: dict[ParameterName, float]
) -> Plot | None:
    """Plot of the trials that have a loss; None where there are none."""
    shown = [trial for trial in trials if trial.loss is not None and parameter.name in trial.parameters]
    if not shown:
        return None
    losses = [trial.loss for trial in shown if trial.loss is not None]
    low, high = min(losses), max(losses)
    places = _places(parameter, [trial.parameters[parameter.name] for trial in shown])
    inner = _HEIGHT - 2 * _MARGIN
    points = tuple(
        Point(place, _MARGIN + inner * (1 - (loss - low) / ((high - low) or 1)), trial)
        for trial, loss, place in zip(shown, losses, places, strict=True)
    )
    return Plot(parameter.name, shares.get(parameter.name), points, _ticks(parameter), low, high)


def draw_curves(trials: Sequence[Trial]) -> CurvePlot | None:
    """Plot of the trials that were measured more than once; None where there are none."""
    shown = [trial for trial in trials if len(trial.measurements) > 1]
    if not shown:
        return None
    losses = [each.loss for trial in shown for each in trial.measurements]
    low, high = min(losses), max(losses)
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def point(percent: float, loss: float) -> str:
        x = _MARGIN + width * percent / 100
        return f"{x:.1f},{_MARGIN + height * (1 - (loss - low) / ((high - low) or 1)):.1f}"

    curves = (
        Curve(" ".join(point(each.percent, each.loss) for each in trial.measurements), trial)
        for trial in shown
    )
    return CurvePlot(tuple(curves), low, high)


def _ticks(parameter: Parameter) -> tuple[tuple[float, str], ...]:
    labels = parameter.values or (parameter.min or "", parameter.max or "")
    return tuple(zip(_places(parameter, labels), labels, strict=True))


def _places(parameter: Parameter, values: Sequence[str]) -> list[float]:
    """Places of values on the horizontal axis, in pixels."""
    inner = _WIDTH - 2 * _MARGIN
    if parameter.values:
        step = inner / max(1, len(parameter.values) - 1)
        return [_MARGIN + step * parameter.values.index(value) for value in values]
    scaled = math.log if parameter.scale is Scale.LOG else float
    low, high = scaled(float(parameter.min or 0)), scaled(float(parameter.max or 1))
    return [_MARGIN + inner * (scaled(float(value)) - low) / ((high - low) or 1) for value in values]


def _by_loss(trials: Sequence[Trial]) -> list[Trial]:
    """Completed trials, the best first, then the others by number."""

    def rank(trial: Trial) -> tuple[bool, float, int]:
        done = trial.state is TrialState.COMPLETED and trial.loss is not None
        return not done, trial.loss if done and trial.loss is not None else 0.0, trial.number

    return sorted(trials, key=rank)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = _number
    return environment
