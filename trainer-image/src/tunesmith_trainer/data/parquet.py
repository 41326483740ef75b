"""The canonical rows as Parquet: TRL's conversational and prompt-completion forms.

Members whose shape differs from row to row (``tools``, ``tool_calls``) are stored as JSON text, since Parquet
would fill them up with nulls.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith_contract.base import canonical_json
from tunesmith_trainer.storage import write_atomically

from .checks import MESSAGE_KEYS, Row

_MESSAGE = pa.struct([pa.field(key, pa.string()) for key in MESSAGE_KEYS])
_CHAT = pa.schema([pa.field("messages", pa.list_(_MESSAGE)), pa.field("tools", pa.string())])
_PROMPT_COMPLETION = pa.schema([pa.field("prompt", pa.string()), pa.field("completion", pa.string())])


def write_rows(path: Path, rows: Sequence[Row], *, chat: bool) -> None:
    """Write rows, whole or not at all."""
    schema = _CHAT if chat else _PROMPT_COMPLETION
    table = pa.Table.from_pylist([_encode(row) for row in rows], schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())


def read_rows(path: Path) -> list[Row]:
    """The rows as they were written."""
    return [_decode(row) for row in pq.read_table(path).to_pylist()]


def _encode(row: Row) -> Row:
    if "messages" not in row:
        return row
    messages = [
        {**message, "tool_calls": canonical_json(message["tool_calls"]).decode()}
        if "tool_calls" in message
        else message
        for message in row["messages"]
    ]
    tools = {"tools": canonical_json(row["tools"]).decode()} if "tools" in row else {}
    return {"messages": messages, **tools}


def _decode(row: Row) -> Row:
    if "messages" not in row:
        return row
    messages = [
        {
            key: json.loads(value) if key == "tool_calls" else value
            for key, value in message.items()
            if value is not None
        }
        for message in row["messages"]
    ]
    tools = {"tools": json.loads(row["tools"])} if row.get("tools") is not None else {}
    return {"messages": messages, **tools}
