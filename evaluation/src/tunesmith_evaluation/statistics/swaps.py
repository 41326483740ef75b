"""Permutation test of the hypothesis that the answers of two sides are exchangeable."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Up to so many groups that differ, all ways of swapping are counted.
_EXACT_GROUPS = 13
#: Ways that are drawn otherwise.
_DRAWS = 9_999
#: Numbers of one block, which bounds memory.
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
    differing = (differences != 0).any(axis=0)
    differences = differences[(differences != 0).any(axis=1)][:, differing]
    if not len(differences):
        return 1.0, 1.0

    def difference(swapped: Floats) -> Floats:
        """Candidate minus baseline where the sums of both differ by ``swapped``."""
        full = np.zeros((*swapped.shape[:-1], len(total)))
        full[..., differing] = swapped
        return statistic((total + full) / 2) - statistic((total - full) / 2)

    observed = difference(differences.sum(axis=0))
    tolerance = 1e-9 * max(float(np.abs(observed)), 1e-3)
    above = below = 0
    exact = len(differences) <= _EXACT_GROUPS
    for sums in _all_swaps(differences) if exact else _random_swaps(differences, seed):
        swapped = difference(sums)
        above += int((swapped >= observed - tolerance).sum())
        below += int((swapped <= observed + tolerance).sum())
    if exact:
        ways = 2 ** len(differences)
        return above / ways, below / ways
    return (above + 1) / (_DRAWS + 1), (below + 1) / (_DRAWS + 1)


def _all_swaps(differences: Floats) -> Iterator[Floats]:
    """Sums of the differences under all ways of swapping, shape (ways, k)."""
    ways = np.arange(2 ** len(differences))
    yield (1.0 - 2.0 * ((ways[:, np.newaxis] >> np.arange(len(differences))) & 1)) @ differences


def _random_swaps(differences: Floats, seed: int) -> Iterator[Floats]:
    """Sums of the differences under random ways of swapping, in blocks of shape (ways, k)."""
    generator = np.random.default_rng(seed)
    rows, counts = np.unique(differences, axis=0, return_counts=True)
    if 8 * len(rows) <= len(differences):
        block = max(1, _BLOCK // len(rows))
        for start in range(0, _DRAWS, block):
            kept = generator.binomial(counts, 0.5, size=(min(block, _DRAWS - start), len(rows)))
            yield (2.0 * kept - counts) @ rows
        return
    # Sums of eight groups each, looked up by random octets: many times faster than a product with random signs.
    table = _octet_sums(differences)
    block = max(1, _BLOCK // table[:, 0].size)
    for start in range(0, _DRAWS, block):
        ways = min(block, _DRAWS - start)
        octets = np.frombuffer(generator.bytes(ways * len(table)), np.uint8).reshape(ways, -1)
        yield table[np.arange(len(table)), octets].sum(axis=1)


def _octet_sums(differences: Floats) -> Floats:
    """Sums of eight groups each for all 256 ways of swapping them, shape (groups / 8, 256, k)."""
    padding = np.zeros((-len(differences) % 8, differences.shape[1]))
    eights = np.concatenate([differences, padding]).reshape(-1, 8, differences.shape[1])
    return np.asarray((1.0 - 2.0 * ((np.arange(256)[:, np.newaxis] >> np.arange(8)) & 1)) @ eights)
