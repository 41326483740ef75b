"""Overfitting step and condensed loss curve, as pure functions of the trainer's log."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from tunesmith_contract.progress import REWARD
from tunesmith_contract.report import MAX_CURVE_POINTS, CurvePoint

#: Number of last measurements that must all lie clearly above the lowest.
CONFIRMATIONS = 3
#: Rise relative to the lowest loss: Prechelt's "generalization loss" (Early Stopping - But When?, 1998).
MIN_RISE = 0.02
#: Rise in standard deviations of the noise; many, because few measurements estimate the noise poorly.
MIN_DEVIATIONS = 10.0
# Degrees of freedom of the fit: minimum, one level before it, one after, mean.
_FITTED_PARAMETERS = 4


class ValidationMeasurement(NamedTuple):
    """Validation loss after a step; lower is better."""

    step: int
    loss: float


def find_overfitting_step(measurements: Sequence[ValidationMeasurement]) -> int | None:
    """Step after which the validation loss rises; None without clear evidence that it does.

    It is the step of the lowest measurement, if the last ``CONFIRMATIONS`` measurements follow it and exceed it by
    ``MIN_RISE`` of its value and by ``MIN_DEVIATIONS`` times the noise. The noise is the standard deviation of the
    residuals of two isotonic regressions, falling to the minimum and rising from there.
    """
    losses = np.array([measurement.loss for measurement in measurements], dtype=float)
    if len(losses) <= CONFIRMATIONS or not np.isfinite(losses).all():
        return None
    lowest = int(losses.argmin())
    if len(losses) - 1 - lowest < CONFIRMATIONS:
        return None
    rise = max(MIN_RISE * abs(losses[lowest]), MIN_DEVIATIONS * _noise(losses, lowest))
    overfits = bool((losses[-CONFIRMATIONS:] > losses[lowest] + rise).all())
    return measurements[lowest].step if overfits else None


def _noise(losses: NDArray[np.float64], lowest: int) -> float:
    fall = isotonic_regression(losses[: lowest + 1], increasing=False).x
    rise = isotonic_regression(losses[lowest:]).x[1:]
    residuals = losses - np.concatenate([fall, rise])
    return float(np.sqrt((residuals**2).sum() / max(1, len(losses) - _FITTED_PARAMETERS)))


def build_curve(history: Iterable[Mapping[str, Any]], best_step: int | None) -> tuple[CurvePoint, ...]:
    """Condensed loss curve of the whole run, of at most MAX_CURVE_POINTS points.

    The first, last and best step are always included. Steps with a validation loss take precedence over others, and
    the rest is spread evenly. Each point has the last training loss and reward logged until its step.
    """
    points: dict[int, CurvePoint] = {}
    loss = reward = None
    for entry in history:
        loss, reward = entry.get("loss", loss), entry.get(REWARD, reward)
        if "loss" in entry or "eval_loss" in entry:
            step = int(entry["step"])
            measured = entry.get("eval_loss", points[step].eval_loss if step in points else None)
            points[step] = CurvePoint(step, loss, measured, reward)
    steps = sorted(points)
    measured_steps = [step for step in steps if points[step].eval_loss is not None]
    if len(measured_steps) >= MAX_CURVE_POINTS:
        steps = measured_steps
    required = {*measured_steps, steps[0], steps[-1]} if steps else set()
    if len(required) > MAX_CURVE_POINTS:
        required = {steps[0], steps[-1]} | {step for step in steps if step == best_step}
    return tuple(points[step] for step in _spread(steps, required))


def _spread(steps: Sequence[int], required: set[int]) -> list[int]:
    """Required steps and MAX_CURVE_POINTS in all, each next one farthest from those chosen before."""
    chosen = set(required)

    def distance(step: int) -> int:
        return min(abs(step - other) for other in chosen)

    while len(chosen) < min(MAX_CURVE_POINTS, len(steps)):
        chosen.add(max((step for step in steps if step not in chosen), key=distance))
    return sorted(chosen)
