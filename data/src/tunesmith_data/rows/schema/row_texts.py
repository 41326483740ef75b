"""Texts of a canonical row: prompt, answer, rejected answer."""

from collections.abc import Iterator
from typing import Any

from .formats import Row


def prompt_text(row: Row) -> str:
    """Prompt of a row; of a conversation everything before its last answer."""
    if "messages" in row:
        messages = row["messages"]
        return _spoken(messages[:-1] if messages[-1]["role"] == "assistant" else messages)
    return _as_text(row.get("prompt", ""))


def answer_text(row: Row) -> str:
    """Answer of a row: last answer, completion, chosen answer or text; empty if there is none."""
    if "messages" in row:
        messages = row["messages"]
        return str(messages[-1]["content"]) if messages[-1]["role"] == "assistant" else ""
    for member in ("completion", "chosen", "text", "answer"):
        if member in row:
            return _as_text(row[member])
    return ""


def rejected_text(row: Row) -> str:
    """Rejected answer; empty if there is none."""
    return _as_text(row.get("rejected", ""))


def whole_text(row: Row) -> str:
    """All texts of a row, joined by newlines."""
    return "\n".join(part for part in texts(row) if part)


def texts(row: Row) -> Iterator[str]:
    """Every text of a row that a person wrote, one by one; arguments of tools are left out."""
    for member in ("messages", "prompt", "completion", "chosen", "rejected", "answer", "text"):
        value = row.get(member)
        if isinstance(value, list):
            yield from (message["content"] for message in value)
        elif isinstance(value, str):
            yield value


def turns(row: Row) -> int:
    """Number of messages without system messages; plain text counts as one."""
    members = [row[name] for name in ("messages", "prompt", "completion", "chosen", "text") if name in row]
    return sum(
        sum(message["role"] != "system" for message in value) if isinstance(value, list) else bool(value)
        for value in members
    )


def _spoken(messages: list[dict[str, Any]]) -> str:
    return "\n".join(message["content"] for message in messages if message["role"] != "system")


def _as_text(value: Any) -> str:
    return _spoken(value) if isinstance(value, list) else str(value)
