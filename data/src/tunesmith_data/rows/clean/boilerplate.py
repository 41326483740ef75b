"""Boilerplate detection: passages that many rows share, such as instructions and footers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .byte_windows import Numbers, distinct, passages, without

#: Bytes of a passage that is counted: five or six words.
PASSAGE = 32
#: A passage is boilerplate in more rows than this, and than COMMON_SHARE of all.
COMMON_ROWS = 10
COMMON_SHARE = 0.001
#: A passage in more rows than this is a template, in which one word makes the difference.
TEMPLATE_ROWS = 4

_SLOT_BITS = 26
_SLOTS = 2**_SLOT_BITS
_MOST = np.iinfo(np.uint8).max


class Boilerplate:
    """Counter of rows per passage, in a hash table of 64 MiB.

    Passages that share a slot of the table are counted together; there are more slots than a million rows need.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_SLOTS, np.uint8)
        self._rows = 0

    def update(self, rows: Sequence[Sequence[bytes]]) -> None:
        """Count the passages of rows, each once per row."""
        self._rows += len(rows)
        numbers, _, texts = passages([text for row in rows for text in row], PASSAGE)
        owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])[texts]
        slots = np.sort(distinct((owners << _SLOT_BITS) | _slots(numbers)) & (_SLOTS - 1))
        begins = np.flatnonzero(np.diff(slots, prepend=-1))
        seen, counts = slots[begins], np.diff(begins, append=slots.size)
        self._counts[seen] = np.minimum(self._counts[seen] + counts, _MOST)

    def strip(self, texts: Sequence[bytes]) -> list[bytes]:
        """The texts without their boilerplate."""
        numbers, places, owners = passages(texts, PASSAGE)
        common = self._counts[_slots(numbers)] > common_limit(self._rows)
        stripped = list(texts)
        places, owners = places[common], owners[common]
        first = np.flatnonzero(np.diff(owners, prepend=-1))
        for begins, owner in zip(np.split(places, first)[1:], owners[first].tolist(), strict=True):
            stripped[owner] = without(texts[owner], begins, PASSAGE)
        return stripped

    def is_template(self, one: bytes, other: bytes) -> bool:
        """True if two texts mostly share passages that many rows contain."""
        shared = np.intersect1d(passages([one], PASSAGE)[0], passages([other], PASSAGE)[0])
        return bool(shared.size and np.median(self._counts[_slots(shared)]) > TEMPLATE_ROWS)


def common_limit(rows: int) -> float:
    """Number of rows from which a passage is boilerplate."""
    return min(max(COMMON_ROWS, COMMON_SHARE * rows), _MOST - 1)


def _slots(numbers: Numbers) -> NDArray[np.int64]:
    return (numbers & np.uint64(_SLOTS - 1)).astype(np.int64)
