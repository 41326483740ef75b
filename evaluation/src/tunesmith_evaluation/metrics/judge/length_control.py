"""Win rates without the influence of length.

Judges prefer longer answers. As in length-controlled AlpacaEval (Dubois et al. 2024, arXiv:2404.04475), a logistic
regression explains verdicts by a constant and by the difference of lengths; the win rate is what it predicts for
answers of equal length. Differences are divided by their root mean square, not by their standard deviation, so that
a surplus that is the same everywhere keeps its size.

For intervals and tests on items, each verdict becomes the win rate plus its influence on it (the influence function of
the estimate): their mean is the win rate, and their variance that of the estimate, the regression's own error included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Ridge on the influence of length. With one tie that is added, it keeps estimates finite.
_PENALTY = np.diag([0.0, 1.0])
_LEAST_WEIGHT = 1e-9
_STEPS = 50
_TOLERANCE = 1e-10

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class LengthControl:
    """Win rate at equal lengths.

    Attributes:
        win_rate: the win rate, in [0, 1].
        slope: influence of length: positive if longer answers win.
        values: one for each verdict, with the win rate as their mean; they may leave [0, 1].
    """

    win_rate: float
    slope: float
    values: tuple[float, ...]


def control_lengths(wins: Sequence[float], differences: Sequence[int]) -> LengthControl:
    """Win rate at equal lengths.

    Args:
        wins: verdicts: 1 for a win, 0 for a loss, 0.5 for a tie; at least one.
        differences: length of each answer minus that of the other one, in characters.
    """
    verdicts = np.asarray(wins, dtype=float)
    lengths = np.asarray(differences, dtype=float)
    scale = float(np.sqrt(np.mean(lengths**2))) or 1.0
    design = np.column_stack([np.ones(len(verdicts)), np.tanh(lengths / scale)])
    coefficients = _fit(design, verdicts)
    weights = _weights(design @ coefficients)
    information = design.T @ (weights[:, None] * design) + _PENALTY
    win_rate = _logistic(coefficients[:1])[0]
    residuals = (verdicts - _logistic(design @ coefficients))[:, None] * design
    influence = len(verdicts) * np.linalg.solve(information, residuals.T)[0]
    values = win_rate + win_rate * (1 - win_rate) * (influence - influence.mean())
    return LengthControl(float(win_rate), float(coefficients[1]), tuple(map(float, values)))


def _fit(design: Array, verdicts: Array) -> Array:
    """Coefficients by Newton's method, with the ridge and the added tie."""
    rows = np.vstack([design, [1.0, 0.0]])
    targets = np.append(verdicts, 0.5)
    coefficients = np.zeros(2)
    for _ in range(_STEPS):
        weights = _weights(rows @ coefficients)
        information = rows.T @ (weights[:, None] * rows) + _PENALTY
        gradient = rows.T @ (targets - _logistic(rows @ coefficients)) - _PENALTY @ coefficients
        step = np.linalg.solve(information, gradient)
        # Bounded steps: far from the optimum, Newton's method may overshoot.
        coefficients = coefficients + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < _TOLERANCE:
            break
    return coefficients


def _weights(values: Array) -> Array:
    """Variance of verdicts, not quite 0 anywhere."""
    chances = _logistic(values)
    return np.asarray(np.maximum(chances * (1 - chances), _LEAST_WEIGHT))


def _logistic(values: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return result
