"""Byte windows over normalized texts, as numbers: shingles and passages.

Bytes suit every script: five of them are five letters of English and a little less than two of Chinese.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]

#: Bytes of a shingle; it fits into its number, so that similarity is counted, not estimated.
SHINGLE = 5

_WORD = 8
_SHINGLE_MASK = np.uint64(2 ** (8 * SHINGLE) - 1)
_LEAD_OF_THREE_BYTES = 0xE0
_SPACE = 0x20


def mix(numbers: Numbers) -> Numbers:
    """Spread numbers over 64 bits (the finalizer of SplitMix64, Steele et al. 2014)."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def shingles(texts: Sequence[bytes]) -> tuple[Numbers, NDArray[np.int64]]:
    """All shingles of texts, one text after the other, and how many each has: at least one, repeats included."""
    padded = [text.ljust(SHINGLE, b"\0") for text in texts]
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    buffer = b"".join(padded)
    begins = np.ones(len(buffer), dtype=bool)
    begins[(np.cumsum(lengths)[:, None] - np.arange(1, SHINGLE)).ravel()] = False
    return _words(buffer)[: len(buffer)][begins] & _SHINGLE_MASK, lengths - (SHINGLE - 1)


def shingle_set(text: bytes) -> Numbers:
    """The different shingles of a text, in order."""
    return distinct(shingles([text])[0])


def distinct(numbers: NDArray[Any]) -> NDArray[Any]:
    """The different numbers, in order; ``numpy.unique`` takes three times as long."""
    ordered = np.sort(numbers)
    first = np.ones(ordered.size, dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def jaccard(one: Numbers, other: Numbers) -> float:
    """Jaccard similarity of two sets, each in order and without repeats."""
    common = np.intersect1d(one, other, assume_unique=True).size
    return common / (one.size + other.size - common)


def passages(texts: Sequence[bytes], width: int) -> tuple[Numbers, NDArray[np.int64], NDArray[np.int64]]:
    """Windows of ``width`` bytes that begin with a word, where in its text each begins, and in which text.

    Characters of three bytes and more each count as words: most such scripts are written without spaces.

    Args:
        texts: normalized.
        width: a multiple of eight.
    """
    buffer = b" ".join(texts)
    letters = np.frombuffer(buffer, dtype=np.uint8)
    begins = letters >= _LEAD_OF_THREE_BYTES
    begins[:1] = True
    begins[1:] |= letters[:-1] == _SPACE
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    places = np.flatnonzero(begins)
    owners = np.searchsorted(starts, places, side="right") - 1
    whole = places + width <= starts[owners] + lengths[owners]
    places, owners = places[whole], owners[whole]
    words, numbers = _words(buffer), np.zeros(places.size, np.uint64)
    for offset in range(0, width, _WORD):
        numbers = mix(numbers ^ words[places + offset])
    return numbers, places - starts[owners], owners


def without(text: bytes, begins: NDArray[np.int64], width: int) -> bytes:
    """A text without the windows that begin in these places."""
    changes = np.zeros(len(text) + 1, dtype=np.int32)
    changes[begins] += 1
    np.add.at(changes, begins + width, -1)
    left: bytes = np.frombuffer(text, dtype=np.uint8)[np.cumsum(changes[:-1]) == 0].tobytes()
    return left.strip()


def _words(buffer: bytes) -> Numbers:
    """The eight bytes from each byte on, as a number; zeros follow the last."""
    padded = buffer + bytes(_WORD)
    return np.ndarray((len(buffer) + 1,), "<u8", padded, strides=(1,))
