"""MinHash signatures (Broder 1997) with one byte per slot, and their bands.

A slot keeps the lowest byte of its minimum (b-bit minwise hashing, Li and König 2010): slots of unlike rows agree once
in 256, so that similarity is overestimated by less than 0.004.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .byte_windows import Numbers, mix, shingles
from .compared_text import RowParts

Signatures = NDArray[np.uint8]

#: Bytes of a signature.
SLOTS = 120
#: Minimum share of pairs at the threshold that share a band.
BAND_RECALL = 0.995

#: A little more than three standard errors of the estimate, which are 0.11 at a similarity of 0.8.
MARGIN = 0.12

_WIDEST_BAND = 8
_BATCH_BYTES = 500_000


@dataclass(frozen=True, slots=True)
class Bands:
    """Signatures cut into bands: rows that agree in one are candidates.

    Attributes:
        width: slots of a band.
        count: number of bands.
    """

    width: int
    count: int

    @classmethod
    def for_threshold(cls, threshold: float) -> "Bands":
        """The widest bands that bring together two rows of Jaccard similarity ``threshold`` with BAND_RECALL.

        They do so with probability 1 - (1 - threshold^width)^count (Leskovec et al., Mining of Massive Datasets, 3.4).
        """
        widths = range(1, _WIDEST_BAND + 1)
        return max(
            (cls(width, SLOTS // width) for width in widths if _recall(threshold, width) >= BAND_RECALL),
            key=lambda bands: bands.width,
        )

    def keys(self, signatures: Signatures, band: int) -> Numbers:
        """A band of each signature, as one number."""
        keys = np.zeros((len(signatures), 8), dtype=np.uint8)
        keys[:, : self.width] = signatures[:, band * self.width : (band + 1) * self.width]
        return keys.view("<u8").ravel()


class SignatureIndex:
    """Index of signatures in memory, searched by other signatures.

    Args:
        signatures: a few thousand of them.
        bands: bands into which they are divided.
        threshold: the similarity from which they are to be found.
    """

    def __init__(self, signatures: Signatures, bands: Bands, threshold: float) -> None:
        self._signatures, self._bands = signatures, bands
        self._least = (threshold - MARGIN) * SLOTS
        keys = [bands.keys(signatures, band) for band in range(bands.count)]
        self._orders = [np.argsort(band_keys, kind="stable") for band_keys in keys]
        self._keys = [band_keys[order] for band_keys, order in zip(keys, self._orders, strict=True)]

    def find(self, signatures: Signatures) -> list[tuple[int, int]]:
        """Pairs of (number here, number in the index) that agree in a band, and altogether about enough."""
        pairs: set[tuple[int, int]] = set()
        for band in range(self._bands.count):
            wanted = self._bands.keys(signatures, band)
            begins, ends = (np.searchsorted(self._keys[band], wanted, side) for side in ("left", "right"))
            for row in np.flatnonzero(ends > begins).tolist():
                pairs.update((row, item) for item in self._orders[band][begins[row] : ends[row]].tolist())
        return sorted(
            (row, item)
            for row, item in pairs
            if np.count_nonzero(signatures[row] == self._signatures[item]) >= self._least
        )


def sign(rows: Sequence[RowParts], seed: int) -> Signatures:
    """The signature of each row, in an array of rows x SLOTS."""
    batches = [_sign_batch(batch, seed) for batch in _batches(rows)]
    return np.concatenate(batches) if batches else np.empty((0, SLOTS), np.uint8)


def _recall(similarity: float, width: int) -> float:
    return 1 - (1 - similarity**width) ** (SLOTS // width)


def _sign_batch(rows: Sequence[RowParts], seed: int) -> Signatures:
    from rensa import RMinHash  # Not needed by those who only look at rows.

    numbers, counts = shingles([text for row in rows for text in row.texts])
    salts = [row.key ^ part for row in rows for part in range(len(row.texts))]
    numbers = mix(numbers ^ np.repeat(mix(np.array(salts, dtype=np.uint64)), counts))
    parts = np.cumsum([0, *(len(row.texts) for row in rows)])
    offsets = np.concatenate([[0], np.cumsum(counts)])[parts].astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(numbers, offsets, SLOTS, seed)
    return np.array(matrix.to_rows(), dtype=np.uint32).astype(np.uint8)


def _batches(rows: Sequence[RowParts]) -> Iterator[list[RowParts]]:
    """Batches of rows whose shingles fit into a few megabytes."""
    batch: list[RowParts] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, row.texts))
        if size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
