"""Candidate pairs of similar rows, found by locality-sensitive hashing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .byte_windows import distinct
from .minhash_signatures import MARGIN, SLOTS, Bands, Signatures

Places = NDArray[np.int64]

#: In larger groups, rows are compared only with the first ones.
MAX_GROUP = 64

_FIRSTS = 4
_LIKELIEST = 4
_EARLIEST = 2
_NEIGHBORS = 16
_SLICE = 65_536
_LOW = np.uint64(2**32 - 1)
_HIGH = np.uint64(32)


@dataclass(frozen=True, slots=True)
class CandidatePairs:
    """Candidate pairs, and rows in large groups.

    Attributes:
        pairs: an array of pairs x 2 of places, the earlier one first; by the later one, then the likeliest first.
        crowded: places of rows that share a band with more than CROWD others, in order.
    """

    pairs: Places
    crowded: Places


def find_candidates(signatures: Signatures, bands: Bands, threshold: float) -> CandidatePairs:
    """The pairs of signatures that agree in a band, and altogether about as much as the threshold."""
    pair_codes = np.empty(0, np.uint64)
    crowded = np.zeros(len(signatures), dtype=bool)
    for band in range(bands.count):
        order, first, size = _groups(bands.keys(signatures, band))
        crowded[order[size > MAX_GROUP]] = True
        codes = distinct(
            np.concatenate([_encode(*couple) for couple in _pairs_in_groups(order, first, size)])
        )
        likely = _agreeing_slots(signatures, _decode(codes)) >= (threshold - MARGIN) * SLOTS
        pair_codes = distinct(np.concatenate([pair_codes, codes[likely]]))
    return CandidatePairs(_select_pairs(signatures, _decode(pair_codes)), np.flatnonzero(crowded))


def sort_by_later_place(pairs: Places) -> Places:
    """Pairs sorted by their later place; the order of equal ones stays."""
    return pairs[np.argsort(pairs[:, 1], kind="stable")]


def slices(array: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """An array in parts."""
    return (array[begin : begin + size] for begin in range(0, len(array), size))


def _select_pairs(signatures: Signatures, pairs: Places) -> Places:
    """For each row the most similar pairs, and those with the earliest rows.

    Args:
        signatures: signatures of all rows.
        pairs: by the later place, then the earlier one.
    """
    likeliest = np.lexsort((-_agreeing_slots(signatures, pairs), pairs[:, 1]))
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 1], pairs[:, 1])
    chosen = rank < _EARLIEST
    chosen[likeliest[rank < _LIKELIEST]] = True
    return pairs[likeliest[chosen[likeliest]]]


def _agreeing_slots(signatures: Signatures, pairs: Places) -> NDArray[np.int64]:
    counts = [
        np.count_nonzero(signatures[part[:, 0]] == signatures[part[:, 1]], axis=1)
        for part in slices(pairs, _SLICE)
    ]
    return np.concatenate(counts) if counts else np.empty(0, np.int64)


def _groups(keys: NDArray[np.uint64]) -> tuple[Places, Places, Places]:
    """Sort order that groups equal keys; for each position the start and size of its group."""
    order = np.argsort(keys, kind="stable")
    differs = np.ones(keys.size, dtype=bool)
    differs[1:] = np.diff(keys[order]) != 0
    begins = np.flatnonzero(differs)
    sizes = np.diff(begins, append=keys.size)
    return order, np.repeat(begins, sizes), np.repeat(sizes, sizes)


def _pairs_in_groups(order: Places, first: Places, size: Places) -> Iterator[tuple[Places, Places]]:
    """Pairs within groups: each row with the first few, and in small groups with its neighbors."""
    place = np.arange(order.size)
    rank = place - first
    for step in range(_FIRSTS):
        chosen = place[rank > step]
        yield order[first[chosen] + step], order[chosen]
    for step in range(1, _NEIGHBORS + 1):
        chosen = place[(rank >= step + _FIRSTS) & (size <= MAX_GROUP)]
        yield order[chosen - step], order[chosen]


def _encode(earlier: Places, later: Places) -> NDArray[np.uint64]:
    return (later.astype(np.uint64) << _HIGH) | earlier.astype(np.uint64)


def _decode(codes: NDArray[np.uint64]) -> Places:
    return np.stack([codes & _LOW, codes >> _HIGH], axis=1).astype(np.int64)
