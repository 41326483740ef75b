"""Near-duplicate detection among millions of rows in bounded memory.

Signatures bring candidates together; each pair is then compared by its texts, fetched back from disk. A row is removed
only if it is itself similar to the row that is kept for it: similarity is not transitive.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tunesmith_data.rows.table.record import Record

from .boilerplate import Boilerplate
from .candidate_pairs import find_candidates, slices, sort_by_later_place
from .compared_text import RecordsOf, RowParts, row_parts
from .minhash_signatures import SLOTS, Bands, Signatures, sign
from .text_similarity import ComparableRow

_GROWTH = 65_536
_FETCH_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A row that is to be removed: ``index`` is its record's, ``similarity`` that to the row that is kept."""

    index: int
    similarity: float


@dataclass(frozen=True, slots=True)
class NearCluster:
    """Kept row with its near duplicates, in order."""

    kept: int
    removed: tuple[NearDuplicate, ...]


class NearDuplicates:
    """Finder of near duplicates, in one pass over all rows.

    It holds 128 bytes a row and a table of 64 MiB.

    Args:
        threshold: Jaccard similarity of shingles from which two texts are similar.
        seed: seed of the signatures; the same rows and seed give the same clusters.
    """

    def __init__(self, threshold: float = 0.8, seed: int = 0) -> None:
        self._threshold = threshold
        self._seed = seed
        self._bands = Bands.for_threshold(threshold)
        self._boilerplate = Boilerplate()
        self._signatures: Signatures = np.empty((0, SLOTS), np.uint8)
        self._indexes = np.empty(0, np.int64)
        self._size = 0

    def update(self, records: Sequence[Record]) -> None:
        """Add the next rows."""
        rows = [row_parts(record.row) for record in records]
        self._boilerplate.update([row.texts for row in rows])
        end = self._size + len(rows)
        while end > len(self._indexes):
            # In place, so that the memory is not needed twice.
            self._signatures.resize((len(self._signatures) + _GROWTH, SLOTS), refcheck=False)
            self._indexes.resize(len(self._indexes) + _GROWTH, refcheck=False)
        self._signatures[self._size : end] = sign(rows, self._seed)
        self._indexes[self._size : end] = [record.index for record in records]
        self._size = end

    def clusters(self, records_of: RecordsOf) -> tuple[NearCluster, ...]:
        """The rows that are nearly the same, in the order of those that are kept.

        Args:
            records_of: fetches records by their indexes, in the order asked for.
        """
        verdicts = _Removals()
        for some in slices(self._candidates(records_of), _FETCH_BATCH):
            batch = [pair for pair in some.tolist() if verdicts.is_open(pair)]
            parts = self._fetch(sorted({place for pair in batch for place in pair}), records_of)
            rows = {
                place: ComparableRow(place_parts, self._boilerplate) for place, place_parts in parts.items()
            }
            for pair in filter(verdicts.is_open, batch):
                one, other = (rows[place] for place in pair)
                if (similarity := one.similarity(other, self._threshold)) is not None:
                    verdicts.remove(pair, similarity)
        return tuple(self._cluster(kept, removed) for kept, removed in verdicts.clusters())

    def _cluster(self, kept: int, removed: list[tuple[int, float]]) -> NearCluster:
        rows = (NearDuplicate(int(self._indexes[place]), similarity) for place, similarity in removed)
        return NearCluster(int(self._indexes[kept]), tuple(rows))

    def _candidates(self, records_of: RecordsOf) -> NDArray[np.int64]:
        """Candidate pairs in order of the later row, most similar first."""
        candidates = find_candidates(self._signatures[: self._size], self._bands, self._threshold)
        if not candidates.crowded.size:
            return candidates.pairs
        # Large groups mostly share boilerplate: compare the rest of their texts.
        stripped = [
            self._sign_stripped(part, records_of) for part in slices(candidates.crowded, _FETCH_BATCH)
        ]
        beside = find_candidates(np.concatenate(stripped), self._bands, self._threshold)
        return sort_by_later_place(np.concatenate([candidates.crowded[beside.pairs], candidates.pairs]))

    def _sign_stripped(self, places: NDArray[np.int64], records_of: RecordsOf) -> Signatures:
        rows = self._fetch(places.tolist(), records_of).values()
        stripped = iter(self._boilerplate.strip([text for row in rows for text in row.texts]))
        return sign([RowParts(tuple(islice(stripped, len(row.texts))), row.key) for row in rows], self._seed)

    def _fetch(self, places: Sequence[int], records_of: RecordsOf) -> dict[int, RowParts]:
        records = records_of([int(self._indexes[place]) for place in places])
        return {place: row_parts(record.row) for place, record in zip(places, records, strict=True)}


class _Removals:
    """Removed rows, each with the row kept for it; pairs arrive in order of the later row."""

    def __init__(self) -> None:
        self._kept_for: dict[int, tuple[int, float]] = {}

    def is_open(self, pair: Sequence[int]) -> bool:
        """True if both rows are still kept."""
        return not any(place in self._kept_for for place in pair)

    def remove(self, pair: Sequence[int], similarity: float) -> None:
        """Remove the later row of a pair for the earlier one."""
        earlier, later = pair
        self._kept_for[later] = (earlier, similarity)

    def clusters(self) -> list[tuple[int, list[tuple[int, float]]]]:
        """Rows that are kept, each with those removed for it."""
        clusters: dict[int, list[tuple[int, float]]] = {}
        for removed, (kept, similarity) in sorted(self._kept_for.items()):
            clusters.setdefault(kept, []).append((removed, similarity))
        return sorted(clusters.items())
