"""Bootstrap of statistics of whole corpora, which are functions of sums over items."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunesmith_contract.report import Interval

Floats = NDArray[np.float64]

_RESAMPLES = 4_999
#: Indices of one block, which bounds memory.
_BLOCK = 500_000


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Values of both sides for resampled groups, and with each group left out.

    Attributes:
        observed: value of candidate and baseline, shape (2,).
        resampled: shape (resamples, 2).
        left_out: shape (groups, 2).
    """

    observed: Floats
    resampled: Floats
    left_out: Floats

    def p_value(self, candidate: float, baseline: float, offset: float) -> float:
        """P-value of the hypothesis ``candidate * c + baseline * b + offset <= 0`` for the true values c and b.

        The larger one of two: the BCa bootstrap's (Efron 1987), and Student's t of the jackknife. Both hold for many
        groups alone; together they err less on skewed data.

        Args:
            candidate: factor of the candidate's value.
            baseline: factor of the baseline's value.
            offset: constant.
        """
        factors = np.array([candidate, baseline])
        observed = float(self.observed @ factors) + offset
        resampled = self.resampled @ factors + offset
        groups, error = len(self.left_out), self.standard_error(candidate, baseline)
        if groups < 2:
            return 1.0
        if error <= 1e-9 * max(1.0, abs(observed)):
            return 1 / (len(resampled) + 1) if observed > 0 else 1.0
        student = float(stats.t.sf(observed / error, groups - 1))
        below = float((resampled < observed).mean() + 0.5 * (resampled == observed).mean())
        bias = float(stats.norm.ppf(np.clip(below, 1e-4, 1 - 1e-4)))
        deviations = self._deviations(factors)
        acceleration = float(np.sum(deviations**3)) / (6 * float(np.sum(deviations**2)) ** 1.5)
        share = (int((resampled <= 0).sum()) + 1) / (len(resampled) + 2)
        position = float(stats.norm.ppf(share)) - bias
        corrected = position / (1 + acceleration * position) - bias
        return max(student, float(stats.norm.cdf(corrected)))

    def standard_error(self, candidate: float, baseline: float) -> float:
        """Jackknife's standard error of ``candidate * c + baseline * b``; 0 for one group."""
        groups = len(self.left_out)
        squares = float(np.sum(self._deviations(np.array([candidate, baseline])) ** 2))
        return float(np.sqrt(squares * (groups - 1) / groups))

    def _deviations(self, factors: Floats) -> Floats:
        """Mean of the values with one group left out, minus each of them."""
        left_out = self.left_out @ factors
        return np.asarray(left_out.mean() - left_out)

    def interval(self, side: int, confidence: float) -> Interval:
        """Value of one side with the percentile interval of the bootstrap.

        Args:
            side: 0 for the candidate, 1 for the baseline.
            confidence: confidence level, between 0 and 1.
        """
        low, high = np.quantile(self.resampled[:, side], [(1 - confidence) / 2, (1 + confidence) / 2])
        value = float(self.observed[side])
        return Interval(value, min(float(low), value), max(float(high), value))


def bootstrap(
    candidate: Floats, baseline: Floats, statistic: Callable[[Floats], Floats], seed: int
) -> Bootstrap:
    """Resample groups with replacement, the same for both sides.

    Args:
        candidate: sums of each group, shape (groups, k).
        baseline: the same of the baseline.
        statistic: value of a side, from sums over groups of shape (..., k).
        seed: seed of the draws.
    """
    groups, width = candidate.shape
    both = np.hstack([candidate, baseline])
    total = both.sum(axis=0)

    def values(sums: Floats) -> Floats:
        return np.stack([statistic(sums[..., :width]), statistic(sums[..., width:])], axis=-1)

    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // groups)
    parts = []
    for start in range(0, _RESAMPLES, block):
        rows = min(block, _RESAMPLES - start)
        drawn = generator.integers(groups, size=(rows, groups)) + groups * np.arange(rows)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)
        parts.append(values(counts.astype(np.float64) @ both))
    return Bootstrap(values(total), np.concatenate(parts), values(total - both))
