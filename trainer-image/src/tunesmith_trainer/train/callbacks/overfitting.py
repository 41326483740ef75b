"""Where the validation loss turned, and a short curve of both losses; pure, from the trainer's log."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from tunesmith_contract.progress import REWARD
from tunesmith_contract.report import MAX_CURVE_POINTS, CurvePoint

#: Measurements after the lowest that must all lie clearly above it.
WITNESSES = 3
#: Of the lowest loss: Prechelt's "generalization loss" (Early Stopping - But When?, 1998).
LEAST_RISE = 0.02
#: Standard deviations of the noise. Few measurements tell little of it, hence so many.
LEAST_DEVIATIONS = 10.0
# The minimum, one level before it and one after, and the mean are taken from the data.
_FITTED = 4


class Measurement(NamedTuple):
    """A validation measurement after a step; lower is better."""

    step: int
    loss: float


def find_turn(measurements: Sequence[Measurement]) -> int | None:
    """The step at which the validation loss turned; None while there is no clear evidence that it did.

    It turned at its lowest measurement when at least ``WITNESSES`` follow and the last ``WITNESSES`` all lie above
    it by more than ``LEAST_RISE`` of it and by more than ``LEAST_DEVIATIONS`` times the noise: the standard
    deviation of what a fall to the minimum and a rise from there (isotonic regressions) leave unexplained.
    """
    losses = np.array([measurement.loss for measurement in measurements], dtype=float)
    if len(losses) <= WITNESSES or not np.isfinite(losses).all():
        return None
    lowest = int(losses.argmin())
    if len(losses) - 1 - lowest < WITNESSES:
        return None
    rise = max(LEAST_RISE * abs(losses[lowest]), LEAST_DEVIATIONS * _noise(losses, lowest))
    turned = bool((losses[-WITNESSES:] > losses[lowest] + rise).all())
    return measurements[lowest].step if turned else None


def _noise(losses: NDArray[np.float64], lowest: int) -> float:
    fall = isotonic_regression(losses[: lowest + 1], increasing=False).x
    rise = isotonic_regression(losses[lowest:]).x[1:]
    left = losses - np.concatenate([fall, rise])
    return float(np.sqrt((left**2).sum() / max(1, len(losses) - _FITTED)))


def build_curve(history: Iterable[Mapping[str, Any]], best_step: int | None) -> tuple[CurvePoint, ...]:
    """At most MAX_CURVE_POINTS points of the whole run.

    Steps with a validation loss come first, the first, last and best in any case, the others as evenly over the
    steps as they lie; each carries the last training loss and reward logged by then. Without validation all logged
    steps count.
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
    must = {*measured_steps, steps[0], steps[-1]} if steps else set()
    if len(must) > MAX_CURVE_POINTS:
        must = {steps[0], steps[-1]} | ({best_step} & set(steps))
    return tuple(points[step] for step in _spread(steps, must))


def _spread(steps: Sequence[int], must: set[int]) -> list[int]:
    """``must``, and of the other steps those that lie farthest from all that were taken before."""
    taken = set(must)
    while len(taken) < min(MAX_CURVE_POINTS, len(steps)):
        taken.add(max((step for step in steps if step not in taken), key=lambda step: _distance(step, taken)))
    return sorted(taken)


def _distance(step: int, taken: set[int]) -> int:
    return min(abs(step - other) for other in taken)
