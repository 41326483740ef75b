"""Sums over columns of digests."""

import numpy as np

from .array_types import Digests, Mask


def conflicts(group: Digests, value: Digests) -> Mask:
    """Which rows belong to a group (0: to none) that has more than one value."""
    order = np.lexsort((value, group))
    groups, values = group[order], value[order]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    sizes = np.diff(np.r_[starts, len(groups)])
    differ = (values[starts] != values[starts + sizes - 1]) & (groups[starts] != 0)
    mask = np.zeros(len(group), dtype=bool)
    mask[order] = np.repeat(differ, sizes)
    return mask


def mix(*keys: Digests) -> Digests:
    """A digest of several digests, in their order; the finalizer of splitmix64 (Steele et al. 2014)."""
    mixed = np.zeros_like(keys[0])
    for key in keys:
        mixed = (mixed ^ key) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed
