"""Removes repeated rows and divides the rest, so that the same row is always on the same side."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith_contract.base import canonical_json, sha256_digest

from .checks import row_digest
from .formats import Row

_HASH_RANGE = 2**64


@dataclass(frozen=True, slots=True)
class Split:
    """Rows in the order of their files. The rows that came in = train + validation + duplicates."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    duplicates: int


def split_rows(
    train: Sequence[Row], validation: Sequence[Row] | None, *, fraction: float, seed: int, exact_dedup: bool
) -> Split:
    """Deduplicate and split.

    Args:
        train: the rows to learn from.
        validation: rows of a set of their own; None takes ``fraction`` of the training rows.
        fraction: share of rows held out, chosen row by row from its content and the seed.
        seed: another seed holds out other rows.
        exact_dedup: remove rows of the same content. A row held out is never trained on, either way.
    """
    kept_train = _unique(train) if exact_dedup else list(train)
    if validation is None:
        held_out = [_is_held_out(row, fraction, seed) for row in kept_train]
        in_train = tuple(row for row, out in zip(kept_train, held_out, strict=True) if not out)
        kept_validation = tuple(row for row, out in zip(kept_train, held_out, strict=True) if out)
    else:
        kept_validation = tuple(_unique(validation) if exact_dedup else validation)
        known = {row_digest(row) for row in kept_validation}
        in_train = tuple(row for row in kept_train if row_digest(row) not in known)
    total = len(train) + len(validation or ())
    return Split(in_train, kept_validation, total - len(in_train) - len(kept_validation))


def dataset_digest(split: Split) -> str:
    """The digest of what is trained and validated on: contents and order, nothing of the run."""
    parts = {
        "train": [row_digest(row) for row in split.train],
        "validation": [row_digest(row) for row in split.validation],
    }
    return sha256_digest(canonical_json(parts))


def content_order(row: Row, seed: int) -> int:
    """A number in [0, 2**64) that depends on the row's content and the seed alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{row_digest(row)}".encode()).digest()[:8])


def _is_held_out(row: Row, fraction: float, seed: int) -> bool:
    return content_order(row, seed) < fraction * _HASH_RANGE


def _unique(rows: Sequence[Row]) -> list[Row]:
    return list({row_digest(row): row for row in reversed(rows)}.values())[::-1]
