"""Rows in a store, and their sides."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith_contract.run_config import ValidationSource
from tunesmith_data.rows.table.parquet import RowSchema, write_rows
from tunesmith_data.rows.table.record import RowSide
from tunesmith_data.rows.table.row_store import RowStore, StoredRow
from tunesmith_data.rows.table.split import SIDE_CODES, draw_validation, find_held_out, find_repeated


def store_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as prepare does."""
    schema = RowSchema()
    for row in rows:
        schema.update(row)
    write_rows(path, [rows] if rows else [], schema.build())


def fill(
    folder: Path, rows: Iterable[dict[str, Any]], *, held_out: Iterable[dict[str, Any]] = (), **fields: str
) -> RowStore:
    """A store of rows; ``group`` and ``stratum`` name the members that hold them, which are taken out."""
    store = RowStore(folder)
    for chosen, out in ((rows, False), (held_out, True)):
        store.append(_stored(number, dict(row), out, fields) for number, row in enumerate(chosen, start=1))
    return store


def _stored(line: int, row: dict[str, Any], held_out: bool, fields: dict[str, str]) -> StoredRow:
    values = {name: str(row.pop(member, "")) for name, member in fields.items()}
    return StoredRow("rows.jsonl", line, row, tokens=1, held_out=held_out, **values)


def divide(
    store: RowStore, source: ValidationSource, *, seed: int = 0, deduplicate: bool = True
) -> dict[RowSide, list[int]]:
    """The rows of each side, as prepare divides them."""
    sides = np.where(store.held_out, SIDE_CODES[RowSide.VALIDATION], SIDE_CODES[RowSide.TRAIN]).astype(
        np.uint8
    )
    if deduplicate:
        sides[find_repeated(store)] = SIDE_CODES[RowSide.DUPLICATE]
    sides[find_held_out(store, sides)] = SIDE_CODES[RowSide.LEAKED]
    candidates = np.flatnonzero(sides == SIDE_CODES[RowSide.TRAIN])
    sides[draw_validation(store, candidates, source, seed)] = SIDE_CODES[RowSide.VALIDATION]
    return {
        side: [int(index) for index in np.flatnonzero(sides == code)] for side, code in SIDE_CODES.items()
    }
