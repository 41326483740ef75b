"""Checks of rows, by the names of OpenAI's cookbook, and the canonical form of rows that pass.

A canonical row is ``{"messages": [{"role", "content", …}], "tools"?: […]}`` or ``{"prompt", "completion"}``.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.run_config import DataFormat

Row = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
_FOUND_LIMIT = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one row.

    Attributes:
        file: the file's name.
        line: where the row begins, counted from 1.
        check: the check's name.
        found: what was found.
        advice: what to write instead.
    """

    file: str
    line: int
    check: str
    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.check}: found {self.found}; {self.advice}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding before it has a place: the check's name, what was found, what to write instead."""

    check: str
    found: str
    advice: str


def detect_format(row: object) -> DataFormat | None:
    """The format that a row is written in; None if it is no known one."""
    if isinstance(row, dict) and "messages" in row:
        return DataFormat.CHAT
    if isinstance(row, dict) and "prompt" in row and "completion" in row:
        return DataFormat.PROMPT_COMPLETION
    return None


def check_row(row: object, data_format: DataFormat) -> list[Problem]:
    """All that is wrong with a row; an empty list for a good one."""
    if not isinstance(row, dict):
        return [Problem("data_type", quote(row), "write a JSON object per row")]
    if data_format is DataFormat.PROMPT_COMPLETION:
        return [problem for key in ("prompt", "completion") for problem in _check_text(row, key)]
    return _check_chat(row)


def canonical_row(row: Row, data_format: DataFormat) -> Row:
    """The canonical form of a row that passed its checks: other keys are left out."""
    if data_format is DataFormat.PROMPT_COMPLETION:
        return {"prompt": row["prompt"], "completion": row["completion"]}
    canonical: Row = {"messages": [_canonical_message(message) for message in row["messages"]]}
    if row.get("tools"):
        canonical["tools"] = row["tools"]
    return canonical


def row_digest(row: Row) -> str:
    """The digest of a row's content."""
    return sha256_digest(canonical_json(row))


def quote(value: object) -> str:
    """A value as JSON, cut to what fits a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _FOUND_LIMIT else text[: _FOUND_LIMIT - 1] + "…"


def _check_text(row: Row, key: str) -> Iterator[Problem]:
    if key not in row:
        yield Problem(f"missing_{key}", f"keys {quote(sorted(row))}", f'write a "{key}"')
    elif not isinstance(row[key], str):
        yield Problem(f"missing_{key}", f"{key} {quote(row[key])}", f'write "{key}" as a string')
    elif key == "completion" and not row[key].strip():
        yield Problem("missing_completion", "an empty completion", "write the answer to be learned")


def _check_chat(row: Row) -> list[Problem]:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        found = quote(messages) if "messages" in row else f"keys {quote(sorted(row))}"
        return [Problem("missing_messages_list", found, 'write "messages" as a list of {"role", "content"}')]
    problems = [problem for message in messages for problem in _check_message(message)]
    if not any(isinstance(message, dict) and message.get("role") == "assistant" for message in messages):
        roles = [message.get("role") for message in messages if isinstance(message, dict)]
        advice = "add the assistant's message that is to be learned"
        problems.append(Problem("example_missing_assistant_message", f"roles {quote(roles)}", advice))
    tools = row.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        problems.append(
            Problem("data_type", f"tools {quote(tools)}", 'write "tools" as a list of JSON schemas')
        )
    return problems


def _check_message(message: object) -> Iterator[Problem]:
    if not isinstance(message, dict):
        yield Problem("data_type", f"message {quote(message)}", 'write {"role": …, "content": …}')
        return
    calls = message.get("tool_calls")
    missing = [key for key in ("role", "content") if key not in message and not (key == "content" and calls)]
    if missing:
        keys = " and ".join(f'"{key}"' for key in missing)
        yield Problem("message_missing_key", f"keys {quote(sorted(message))}", f"add {keys}")
    unknown = sorted(set(message) - set(MESSAGE_KEYS))
    if unknown:
        advice = f"use only {', '.join(MESSAGE_KEYS)}"
        yield Problem("message_unrecognized_key", f"key {quote(unknown[0])}", advice)
    if "role" in message and message["role"] not in ROLES:
        yield Problem(
            "unrecognized_role", f"role {quote(message['role'])}", f"write one of {', '.join(ROLES)}"
        )
    yield from _check_content(message)
    yield from _check_tool_calls(calls)


def _check_content(message: Row) -> Iterator[Problem]:
    if "content" not in message:
        return
    content = message["content"]
    if content is None and message.get("tool_calls"):
        return
    if not isinstance(content, str):
        yield Problem("missing_content", f"content {quote(content)}", "write the content as a string")
    elif not content.strip() and message.get("role") == "assistant" and not message.get("tool_calls"):
        yield Problem("missing_content", "an empty answer", "write what the assistant is to say")


def _check_tool_calls(calls: object) -> Iterator[Problem]:
    if calls is None:
        return
    advice = 'write tool_calls as [{"type": "function", "function": {"name": …, "arguments": {…}}}]'
    if not isinstance(calls, list):
        yield Problem("data_type", f"tool_calls {quote(calls)}", advice)
        return
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(_arguments(function), dict):
            yield Problem("data_type", f"tool call {quote(call)}", advice)


def _arguments(function: Row) -> object:
    """Arguments as an object: templates need one, and OpenAI's files hold a string of JSON."""
    arguments = function.get("arguments", {})
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return None


def _canonical_message(message: Row) -> Row:
    canonical = {key: value for key, value in message.items() if value is not None}
    canonical.setdefault("content", "")
    if calls := canonical.pop("tool_calls", None):
        canonical["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _arguments(call["function"])}}
            for call in calls
        ]
    return canonical
