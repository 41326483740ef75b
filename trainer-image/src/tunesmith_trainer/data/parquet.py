"""The canonical rows as Parquet: TRL's forms, with messages as lists of structs and plain text as strings.

Members whose shape differs from row to row (``tools``, ``tool_calls``) are stored as JSON text, since Parquet
would fill them up with nulls.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith_contract.base import canonical_json
from tunesmith_trainer.storage import write_atomically

from .formats import Row
from .messages import MESSAGE_KEYS

_MESSAGES = pa.list_(pa.struct([pa.field(key, pa.string()) for key in MESSAGE_KEYS]))
_SPOKEN = ("messages", "prompt", "completion", "chosen", "rejected")
_TYPES = {"text": pa.string(), "answer": pa.string(), "label": pa.bool_(), "tools": pa.string()}


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of one format, whole or not at all; each member is text, or messages, in all of them."""
    table = pa.Table.from_pylist([_encode(row) for row in rows], schema=_schema(rows))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())


def read_rows(path: Path) -> list[Row]:
    """The rows as they were written."""
    return [_decode(row) for row in pq.read_table(path).to_pylist()]


def _schema(rows: Sequence[Row]) -> pa.Schema:
    """A column per member that any row has."""
    columns: dict[str, pa.DataType] = {}
    for row in rows:
        for name, value in row.items():
            spoken = _MESSAGES if isinstance(value, list) else pa.string()
            columns.setdefault(name, _TYPES.get(name, spoken))
    return pa.schema(list(columns.items()))


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
