"""Array types of the columns, and operations on columns of digests."""

import numpy as np
import numpy.typing as npt

#: Digests of 64 bits.
Digests = npt.NDArray[np.uint64]
#: Counts and lengths.
Counts = npt.NDArray[np.int64]
#: Positions of rows in the columns.
Positions = npt.NDArray[np.int64]
#: Scores from 0 to 1, and measures.
Scores = npt.NDArray[np.float64]
#: Boolean for each row.
Mask = npt.NDArray[np.bool_]


def conflicting(group: Digests, value: Digests) -> Mask:
    """Mask of rows in groups with more than one value; group 0 is no group."""
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
