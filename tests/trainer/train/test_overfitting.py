"""Overfitting step of synthetic loss curves, and condensed curves."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunesmith_contract.report import MAX_CURVE_POINTS
from tunesmith_trainer.train.callbacks.overfitting import (
    ValidationMeasurement,
    build_curve,
    find_overfitting_step,
)

SERIES = 300
Curve = Callable[[int], NDArray[np.float64]]


def measure(losses: NDArray[np.float64]) -> list[ValidationMeasurement]:
    return [ValidationMeasurement(10 * (index + 1), float(loss)) for index, loss in enumerate(losses)]


def plateau(count: int) -> NDArray[np.float64]:
    return np.ones(count)


def decay(count: int) -> NDArray[np.float64]:
    return 0.5 + np.exp(-np.arange(count) / (count / 6))


def turn(count: int) -> NDArray[np.float64]:
    """Falls through two fifths of the run, then rises by 30 %."""
    x = np.linspace(0, 1, count)
    return 1 + 1.5 * (np.clip(0.4 - x, 0, None) / 0.4) ** 2 + 0.3 * np.clip(x - 0.4, 0, None) / 0.6


def share_found(curve: Curve, count: int, noise: float) -> float:
    """In how many of the noisy runs a turn was ever reported, at any of their measurements."""
    chance = np.random.default_rng(0)
    found = 0
    for _ in range(SERIES):
        series = measure(curve(count) + noise * chance.standard_normal(count))
        found += any(find_overfitting_step(series[:seen]) is not None for seen in range(1, count + 1))
    return found / SERIES


@pytest.mark.parametrize("count", [6, 12, 30])
@pytest.mark.parametrize(
    ("curve", "noise", "most"),
    [(plateau, 0.002, 0.0), (plateau, 0.01, 0.05), (decay, 0.005, 0.05), (plateau, 0.02, 0.1)],
)
def test_noise_is_rarely_taken_for_a_turn(curve: Curve, noise: float, most: float, count: int) -> None:
    assert share_found(curve, count, noise) <= most


@pytest.mark.parametrize("count", [6, 12, 30])
def test_a_turn_is_found(count: int) -> None:
    assert share_found(turn, count, 0.01) >= 0.95
    quiet = turn(count)
    assert find_overfitting_step(measure(quiet)) == 10 * (int(quiet.argmin()) + 1)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=40))
def test_a_loss_that_only_falls_never_turns(losses: list[float]) -> None:
    assert find_overfitting_step(measure(np.array(sorted(losses, reverse=True)))) is None


def test_two_measurements_after_the_lowest_are_not_enough() -> None:
    assert find_overfitting_step(measure(np.array([1.0, 0.5, 0.9, 1.2]))) is None
    assert find_overfitting_step(measure(np.array([1.0, 0.5, 0.9, 1.2, 1.4]))) == 20
    assert find_overfitting_step(measure(np.array([1.0, 0.5, 0.9, 1.2, float("nan")]))) is None


@given(st.integers(0, 80), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_a_curve_is_short_and_keeps_its_ends_and_its_best(count: int, every: int, seed: int) -> None:
    losses = np.random.default_rng(seed).random(count)
    history = [{"step": step, "loss": float(loss)} for step, loss in enumerate(losses, start=1)]
    measured = [{"step": entry["step"], "eval_loss": entry["loss"]} for entry in history[every - 1 :: every]]
    best = min(measured, key=lambda entry: entry["eval_loss"])["step"] if measured else None
    curve = build_curve(sorted([*history, *measured], key=lambda entry: entry["step"]), best)  # type: ignore[arg-type]
    steps = [point.step for point in curve]
    assert len(curve) == len(set(steps)) <= MAX_CURVE_POINTS
    assert steps == sorted(steps)
    assert len(curve) == min(MAX_CURVE_POINTS, count) or len(measured) >= MAX_CURVE_POINTS
    if best:
        assert best in steps
        assert all(point.eval_loss is not None for point in curve if point.step % every == 0)
    if history:
        assert steps[0] <= max(every, 1)
