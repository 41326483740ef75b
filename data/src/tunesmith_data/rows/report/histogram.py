"""Histograms of whole numbers with round edges."""

from collections.abc import Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray

from .data_report import Histogram

#: Bars that can be distinguished on a small screen.
MAX_BINS = 24

#: Bins go this many times as far as the 95th percentile; what is beyond shares the last one.
_TAIL = 2.0

_ROUND = (1, 2, 5)


def build_histogram(values: NDArray[np.integer], max_bins: int = MAX_BINS) -> Histogram:
    """Histogram of whole numbers, such as tokens, characters or turns.

    Edges are multiples of 1, 2 or 5 times a power of ten. A long tail shares the last bin, which is wider than the
    others then and ends at the largest value. Percentiles are values that occur.

    Args:
        values: whole numbers from 0 on; may be empty.
        max_bins: at least 2.
    """
    if not values.size:
        return Histogram(edges=(0, 1), counts=(0,), p50=0, p95=0, max=0)
    p50, p95 = (int(value) for value in np.percentile(values, (50, 95), method="inverted_cdf"))
    low, high = int(values.min()), int(values.max())
    edges = _choose_edges(low, high, p95, max_bins)
    counts, _ = np.histogram(values, bins=np.asarray(edges, dtype=np.int64))
    return Histogram(
        edges=tuple(edges),
        counts=tuple(counts.tolist()),
        p50=p50,
        p95=p95,
        max=high,
        total=int(values.sum(dtype=np.int64)),
    )


def _choose_edges(low: int, high: int, p95: int, max_bins: int) -> list[int]:
    """Edges so that the lowest value is in the first bin and the highest in the last."""
    end = high if high <= _TAIL * p95 else int(_TAIL * p95)
    step = _choose_step(low, end, max_bins - 1)
    first = low // step * step
    edges = list(range(first, end + step + 1, step))
    if edges[-1] <= high:
        edges.append(high + 1)
    return edges


def _choose_step(low: int, high: int, max_bins: int) -> int:
    """Smallest round step with which at most ``max_bins`` bins cover the range."""
    steps: Iterator[int] = (digit * 10**power for power in count() for digit in _ROUND)
    return next(step for step in steps if high // step - low // step < max_bins)
