"""Index of passages: finds held-out texts that other texts quote, by windows of 48 bytes.

Benchmarks are searched for in this way: by three samples of 50 characters each, any of which tells (GPT-4's technical
report, appendix C), or by runs of eight words, 70 % of which have to be found (PaLM, Chowdhery et al. 2022, section 8).
Width and share here are this project's choice.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .boilerplate import common_limit
from .byte_windows import passages

Number = TypeVar("Number", np.int64, np.uint64)

#: Bytes of a window: eight or nine words of English, sixteen characters of Chinese.
WIDTH = 48
#: Share of a text's windows that another text must contain.
COVERAGE = 0.6

# A text of which all but a few windows are boilerplate is not identified by those few.
_LEAST_WINDOWS = 4
_MAX_WINDOWS = 4_000_000


class PassageIndex:
    """Index of texts by their windows, without windows that many texts share.

    Args:
        texts: normalized, each another one.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        windows, _, owners = passages(texts, WIDTH)
        # Of very many texts every second window, or every fourth, is enough.
        self._stride = np.uint64(2 ** max(0, int(np.ceil(np.log2(max(1, windows.size) / _MAX_WINDOWS)))))
        sampled = windows % self._stride == 0
        windows, owners = _distinct_pairs(windows[sampled], owners[sampled])
        all_windows = np.bincount(owners, minlength=len(texts))
        values, begins, counts = np.unique(windows, return_index=True, return_counts=True)
        rare = counts <= common_limit(len(texts))
        self._windows, self._begins, self._counts = values[rare], begins[rare], counts[rare]
        self._owners = owners
        self._totals = np.bincount(owners[np.repeat(rare, counts)], minlength=len(texts))
        self._totals[self._totals < np.minimum(all_windows, _LEAST_WINDOWS)] = 0

    def find(self, texts: Sequence[bytes]) -> Iterator[tuple[int, int, float]]:
        """Quotes as (text number, number in the index, quoted share)."""
        windows, _, rows = passages(texts, WIDTH)
        if not self._windows.size:
            return
        place = np.minimum(np.searchsorted(self._windows, windows), self._windows.size - 1)
        indexed = self._windows[place] == windows
        place, rows = _distinct_pairs(place[indexed], rows[indexed])
        for row, item, window_count in self._count(place, rows):
            if (total := self._totals[item]) and window_count / total >= COVERAGE:
                yield row, item, window_count / total

    def _count(self, place: NDArray[np.int64], rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
        """Number of windows of each item in each row."""
        counts = self._counts[place]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        items = self._owners[np.repeat(self._begins[place], counts) + within]
        pairs = np.repeat(rows, counts) * len(self._totals) + items
        values, window_counts = np.unique(pairs, return_counts=True)
        yield from zip(
            *(part.tolist() for part in (*np.divmod(values, len(self._totals)), window_counts)), strict=True
        )


def _distinct_pairs(
    numbers: NDArray[Number], owners: NDArray[np.int64]
) -> tuple[NDArray[Number], NDArray[np.int64]]:
    """Distinct pairs of number and owner, sorted by number."""
    order = np.lexsort((owners, numbers))
    numbers, owners = numbers[order], owners[order]
    first = np.ones(numbers.size, dtype=bool)
    first[1:] = (np.diff(owners) != 0) | (numbers[1:] != numbers[:-1])
    return numbers[first], owners[first]
