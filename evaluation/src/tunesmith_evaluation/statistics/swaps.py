"""Permutation test of two sides: are their answers exchangeable?"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Up to so many groups that differ, all ways of swapping are counted.
_EXACT_GROUPS = 13
#: Ways that are drawn otherwise.
_DRAWS = 9_999
#: Signs of one block, which bounds memory.
_BLOCK = 4_000_000


def swap_p_values(
    candidate: Floats, baseline: Floats, statistic: Callable[[Floats], Floats], seed: int
) -> tuple[float, float]:
    """One-sided p-values of the hypothesis that candidate and baseline are exchangeable in each group.

    The sides of each group are swapped or not, in all ways or in random ones (Phipson and Smyth 2010: the observed way
    counts as one draw). Exact for any statistic and any number of groups.

    Args:
        candidate: sums of each group, shape (groups, k).
        baseline: the same of the baseline.
        statistic: value of a side, from sums over groups of shape (..., k).
        seed: seed of the draws.

    Returns:
        The p-values that speak for a candidate above, and for one below the baseline.
    """
    total = candidate.sum(axis=0) + baseline.sum(axis=0)
    differences = candidate - baseline
    differences = differences[(differences != 0).any(axis=1)]
    if not len(differences):
        return 1.0, 1.0
    observed = _difference(total, differences.sum(axis=0), statistic)
    exact = len(differences) <= _EXACT_GROUPS
    ways = 2 ** len(differences) if exact else _DRAWS
    tolerance = 1e-9 * float(np.abs(differences).sum())
    above = below = 0
    block = max(1, _BLOCK // len(differences))
    generator = np.random.default_rng(seed)
    for start in range(0, ways, block):
        rows = min(block, ways - start)
        if exact:
            signs = _numbered_signs(np.arange(start, start + rows), len(differences))
        else:
            signs = _random_signs(generator, rows, len(differences))
        swapped = _difference(total, signs @ differences, statistic)
        above += int((swapped >= observed - tolerance).sum())
        below += int((swapped <= observed + tolerance).sum())
    if exact:
        return above / ways, below / ways
    return (above + 1) / (ways + 1), (below + 1) / (ways + 1)


def _difference(total: Floats, swapped: Floats, statistic: Callable[[Floats], Floats]) -> Floats:
    """Candidate minus baseline where the sums of both differ by ``swapped``."""
    return statistic((total + swapped) / 2) - statistic((total - swapped) / 2)


def _numbered_signs(numbers: NDArray[np.int64], width: int) -> Floats:
    """Signs from the bits of numbers, shape (numbers, width)."""
    return 1.0 - 2.0 * ((numbers[:, np.newaxis] >> np.arange(width)) & 1)


def _random_signs(generator: np.random.Generator, rows: int, width: int) -> Floats:
    """Random signs, shape (rows, width)."""
    packed = np.frombuffer(generator.bytes(rows * ((width + 7) // 8)), np.uint8).reshape(rows, -1)
    return 1.0 - 2.0 * np.unpackbits(packed, axis=1)[:, :width]
