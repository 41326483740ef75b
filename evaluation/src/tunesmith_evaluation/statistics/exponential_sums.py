"""Distribution of a weighted sum of independent exponential variables."""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Floats = NDArray[np.float64]

#: Terms below this share of the integrand's peak are left out.
_NEGLIGIBLE = 1e-15
#: Steps of the quadrature; the integrand is smooth and decays at both ends, so that the trapezoidal rule converges
#: exponentially.
_STEPS = 96
#: Values of one block of the integrand, which bounds memory.
_BLOCK = 2_000_000


def probability_at_most_zero(weights: Floats, counts: Floats) -> float:
    """Probability that ``sum(weights * G)`` is at most zero, where each G is Gamma(count, 1).

    A whole count stands for so many independent exponential variables of the same weight. The moment generating
    function is inverted along a vertical line through its saddle point, where the integrand falls fastest, so that
    small probabilities keep their relative accuracy (Rice 1980, "Distribution of quadratic forms in normal random
    variables: evaluation by numerical integration").

    Args:
        weights: shape (k,).
        counts: shape (k,), positive.
    """
    weights, counts = weights[weights != 0], counts[weights != 0]
    if not (weights > 0).any():
        return 1.0
    if not (weights < 0).any():
        return 0.0
    weights = weights / np.abs(weights).max()
    lowest, highest = 1 / weights.min(), 1 / weights.max()
    center = _saddle_point(weights, counts, lowest, highest)
    spread = 1 / np.sqrt(float(np.sum(counts * weights**2)))
    # The integrand has a pole at zero: a saddle point close by is left for a point at some distance.
    if abs(center) < 0.5 * spread:
        center = max(0.5 * lowest, -0.5 * spread) if center <= 0 else min(0.5 * highest, 0.5 * spread)
    tail = _integrate(weights, counts, center)
    return float(np.clip(tail if center < 0 else 1 - tail, 0, 1))


def _saddle_point(weights: Floats, counts: Floats, lowest: float, highest: float) -> float:
    """Root of the derivative of the cumulant generating function, between its two poles."""

    def slope(point: float) -> float:
        return float(np.sum(counts * weights / (1 - point * weights)))

    margin = 1e-12
    low, high = lowest * (1 - margin), highest * (1 - margin)
    return float(optimize.brentq(slope, low, high, xtol=1e-9 * min(-low, high), rtol=1e-8))


def _integrate(weights: Floats, counts: Floats, center: float) -> float:
    """Probability of the tail beyond zero on the side of the center: at most zero if the center is negative."""
    exponent = -float(np.sum(counts * np.log1p(-center * weights)))
    slopes = weights / (1 - center * weights)
    scale = 1 / np.sqrt(float(np.sum(counts * slopes**2)) + 1 / center**2)
    # t = scale * sinh(u): even steps where the integrand is like a Gaussian, wide ones where it is like a power.
    end = _end(slopes, counts, center, scale)
    points, step = np.linspace(0, end, _STEPS + 1, retstep=True)
    heights = scale * np.sinh(points)
    values = np.empty(len(points))
    block = max(1, _BLOCK // len(slopes))
    for start in range(0, len(points), block):
        products = np.outer(heights[start : start + block], slopes)
        size = np.exp(-0.5 * (np.log1p(products**2) @ counts))
        angle = np.arctan(products) @ counts
        line = center + 1j * heights[start : start + block]
        values[start : start + block] = (size * np.exp(1j * angle) / line).real
    values *= scale * np.cosh(points)
    values[[0, -1]] *= 0.5
    return float(np.sign(center) * np.exp(exponent) / np.pi * values.sum() * step)


def _end(slopes: Floats, counts: Floats, center: float, scale: float) -> float:
    """Position behind which the integrand is negligible."""

    def excess(position: float) -> float:
        height = scale * np.sinh(position)
        size = -0.5 * float(np.log1p((height * slopes) ** 2) @ counts)
        size += np.log(np.cosh(position)) - 0.5 * np.log1p((height / center) ** 2)
        return float(size - np.log(_NEGLIGIBLE))

    high = 1.0
    while excess(high) > 0 and high < 300:
        high *= 1.5
    return high
