"""Permutation test of two sides: are their answers exchangeable?"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Up to so many groups that differ, all ways of swapping are counted.
_EXACT_GROUPS = 13
#: Ways that are drawn otherwise.
_DRAWS = 9_999
#: Sums of one block, which bounds memory.
_BLOCK = 1_000_000


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
    table = _octet_sums(differences)
    exact = len(differences) <= _EXACT_GROUPS
    ways = 2 ** len(differences) if exact else _DRAWS
    tolerance = 1e-9 * float(np.abs(differences).sum())
    above = below = 0
    block = max(1, _BLOCK // table[:, 0].size)
    generator = np.random.default_rng(seed)
    for start in range(0, ways, block):
        rows = min(block, ways - start)
        if exact:
            octets = (
                np.arange(start, start + rows, dtype="<u2").view(np.uint8).reshape(rows, 2)[:, : len(table)]
            )
        else:
            octets = np.frombuffer(generator.bytes(rows * len(table)), np.uint8).reshape(rows, -1)
        signed = table[np.arange(len(table)), octets].sum(axis=1)
        swapped = _difference(total, signed, statistic)
        above += int((swapped >= observed - tolerance).sum())
        below += int((swapped <= observed + tolerance).sum())
    if exact:
        return above / ways, below / ways
    return (above + 1) / (ways + 1), (below + 1) / (ways + 1)


def _octet_sums(differences: Floats) -> Floats:
    """Sums of eight groups each for all 256 ways of swapping them, shape (groups / 8, 256, k).

    With random octets as indices that is many times faster than a product with random signs.
    """
    missing = -len(differences) % 8
    padded = np.concatenate([differences, np.zeros((missing, differences.shape[1]))])
    signs = 1.0 - 2.0 * ((np.arange(256)[:, np.newaxis] >> np.arange(8)) & 1)
    return np.asarray(signs @ padded.reshape(-1, 8, differences.shape[1]))


def _difference(total: Floats, swapped: Floats, statistic: Callable[[Floats], Floats]) -> Floats:
    """Candidate minus baseline where the sums of both differ by ``swapped``."""
    return statistic((total + swapped) / 2) - statistic((total - swapped) / 2)
