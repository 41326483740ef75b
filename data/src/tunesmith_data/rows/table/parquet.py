"""Parquet files of canonical rows, in the forms that TRL expects.

Members whose shape differs from row to row (``tools``, ``tool_calls``) are stored as JSON text, since Parquet
would fill them up with nulls.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith_contract.base import canonical_json
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.messages import MESSAGE_KEYS
from tunesmith_storage.files import open_atomically

_MESSAGES = pa.list_(pa.struct([pa.field(key, pa.string()) for key in MESSAGE_KEYS]))
_SPOKEN = ("messages", "prompt", "completion", "chosen", "rejected")
_TYPES = {"text": pa.string(), "answer": pa.string(), "label": pa.bool_(), "tools": pa.string()}


class RowSchema:
    """A column per member that any row has."""

    def __init__(self) -> None:
        self._columns: dict[str, pa.DataType] = {}

    def update(self, row: Row) -> None:
        """Take a canonical row's members into account."""
        for name, value in row.items():
            if name not in self._columns:
                spoken = _MESSAGES if isinstance(value, list) else pa.string()
                self._columns[name] = _TYPES.get(name, spoken)

    def build(self) -> pa.Schema:
        """Schema of all rows so far."""
        return pa.schema(list(self._columns.items()))


def write_rows(path: Path, batches: Iterable[Sequence[Row]], schema: pa.Schema) -> None:
    """Write rows of one format, whole or not at all; each member is text, or messages, in all of them.

    Args:
        batches: the rows, a row group each.
        schema: schema of all rows, from ``RowSchema``.
    """
    with open_atomically(path) as stream, pq.ParquetWriter(stream, schema) as writer:
        for rows in batches:
            writer.write_table(pa.Table.from_pylist([_encode(row) for row in rows], schema=schema))


def read_rows(path: Path) -> list[Row]:
    """The rows as they were written."""
    return [_decode(row) for row in pq.read_table(path).to_pylist()]


def iterate_rows(path: Path, batch: int = 10_000) -> Iterator[list[Row]]:
    """The rows as they were written, in batches: memory does not grow with the file."""
    with pq.ParquetFile(path) as file:
        for table in file.iter_batches(batch):
            yield [_decode(row) for row in table.to_pylist()]


def _encode(row: Row) -> Row:
    encoded = {name: _encode_messages(row[name]) if name in _SPOKEN else row[name] for name in row}
    if "tools" in row:
        encoded["tools"] = canonical_json(row["tools"]).decode()
    return encoded


def _decode(row: Row) -> Row:
    decoded = {
        name: _decode_messages(value) if name in _SPOKEN else value
        for name, value in row.items()
        if value is not None
    }
    if "tools" in decoded:
        decoded["tools"] = json.loads(decoded["tools"])
    return decoded


def _encode_messages(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [
        {**message, "tool_calls": canonical_json(message["tool_calls"]).decode()}
        if "tool_calls" in message
        else message
        for message in value
    ]


def _decode_messages(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [
        {
            key: json.loads(part) if key == "tool_calls" else part
            for key, part in message.items()
            if part is not None
        }
        for message in value
    ]
