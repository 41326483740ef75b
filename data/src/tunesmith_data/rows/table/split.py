"""Split of rows into training and validation, by hashes of content or group.

It uses only numbers about rows (digests, groups, strata): the rows themselves are on disk.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith_contract.run_config import ValidationSource
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_checks import row_digest

from .record import RowSide
from .row_store import Indexes, RowStore

_HASH_RANGE = 2**64

#: Minimum expected number of drawn documents for passages of a document to stay together.
_DOCUMENTS_DRAWN = 5
Sides = npt.NDArray[np.uint8]

#: The number of each side in an array of sides.
SIDE_CODES = {side: code for code, side in enumerate(RowSide)}


@dataclass(frozen=True, slots=True)
class Split:
    """The rows that training reads, in the order of their files."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]


def find_repeated(store: RowStore) -> Indexes:
    """Rows that repeat another row of the same set.

    One of each content is kept: of several groups that of the group whose name comes first by hash, so that it does
    not depend on the order of the files; else the first.
    """
    names, groups = store.groups
    ranks = np.array([_hash(f"group:{name}") for name in names], dtype=np.uint64)[groups]
    order = np.lexsort((np.arange(len(store)), ranks, store.held_out, store.digests.view("S32")))
    digests, held_out = store.digests[order], store.held_out[order]
    again = np.zeros(len(store), dtype=np.bool_)
    again[1:] = (digests[1:] == digests[:-1]) & (held_out[1:] == held_out[:-1])
    return np.sort(order[again])


def find_held_out(store: RowStore, sides: Sides) -> Indexes:
    """Training rows that the validation set also contains."""
    validation = store.digests[sides == SIDE_CODES[RowSide.VALIDATION]].view("S32")
    in_train = np.flatnonzero(sides == SIDE_CODES[RowSide.TRAIN])
    return in_train[np.isin(store.digests[in_train].view("S32"), validation)]


def draw_validation(store: RowStore, candidates: Indexes, source: ValidationSource, seed: int) -> Indexes:
    """Rows drawn for validation from the candidates.

    Each row, or each group, is drawn by a hash of its content and the seed: what other rows there are does not matter.
    Passages of a document go together where there are documents enough for some of them to be drawn.
    With strata, each holds out the same share: the rows whose hashes are its lowest. So it changes sides for those few
    rows that are next to the limit when the stratum grows.
    """
    if source.fraction == 0 or len(candidates) == 0:
        return candidates[:0]
    hashes = _row_hashes(store, candidates, seed, grouped=_is_grouped(store, source))
    if source.stratify_field is None:
        return candidates[hashes < np.uint64(source.fraction * _HASH_RANGE)]
    strata = store.strata[1][candidates]
    if source.group_field is not None:
        strata = _strata_of_groups(store.groups[1][candidates], strata)
    chosen = [
        members[_lowest(hashes[members], source.fraction)]
        for members in (np.flatnonzero(strata == stratum) for stratum in np.unique(strata))
    ]
    return candidates[np.sort(np.concatenate(chosen))]


def content_order(row: Row, seed: int) -> int:
    """A number in [0, 2**64) that depends on the row's content and the seed alone."""
    return _hash(f"{seed}:{row_digest(row)}")


def dataset_digest(train: Iterable[bytes], validation: Iterable[bytes]) -> str:
    """Digest of training and validation rows: contents and order, independent of the run.

    Args:
        train, validation: SHA-256 of each row's canonical JSON.
    """
    hasher = hashlib.sha256()
    for digest in (b"train", *train, b"validation", *validation):
        hasher.update(digest)
    return f"sha256:{hasher.hexdigest()}"


def digests_of(rows: Sequence[Row]) -> Iterator[bytes]:
    """The SHA-256 of each row's canonical JSON."""
    return (bytes.fromhex(row_digest(row).removeprefix("sha256:")) for row in rows)


def _strata_of_groups(groups: Indexes, strata: Indexes) -> Indexes:
    """The stratum that most rows of each row's group are of, so that a group is drawn as a whole."""
    pairs, counts = np.unique(np.stack([groups, strata]), axis=1, return_counts=True)
    commonest = np.lexsort((pairs[1], -counts, pairs[0]))
    names, firsts = np.unique(pairs[0][commonest], return_index=True)
    drawn: Indexes = pairs[1][commonest][firsts][np.searchsorted(names, groups)]
    return drawn


def _lowest(hashes: npt.NDArray[np.uint64], fraction: float) -> Indexes:
    """Rows with the lowest hashes, up to a share; rounded, so that small strata hold out rows as well.

    Rows of one group have one hash, and stay together.
    """
    count = int(len(hashes) * fraction + 0.5)
    if count == 0:
        return np.flatnonzero(hashes < 0)
    return np.flatnonzero(hashes <= np.partition(hashes, count - 1)[count - 1])


def _is_grouped(store: RowStore, source: ValidationSource) -> bool:
    """True if groups stay together: configured groups always, documents if there are enough."""
    return source.group_field is not None or len(store.groups[0]) * source.fraction >= _DOCUMENTS_DRAWN


def _row_hashes(store: RowStore, indexes: Indexes, seed: int, *, grouped: bool) -> npt.NDArray[np.uint64]:
    names, groups = store.groups
    of_groups = [_hash(f"{seed}:group:{name}") if name and grouped else None for name in names]
    digests = store.digests
    return np.array(
        [
            of_group
            if (of_group := of_groups[groups[index]]) is not None
            else _hash(f"{seed}:sha256:{digests[index].tobytes().hex()}")
            for index in indexes
        ],
        dtype=np.uint64,
    )


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
