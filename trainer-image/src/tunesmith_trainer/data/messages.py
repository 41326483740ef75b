"""Checks of messages, by the names of OpenAI's cookbook, and their canonical form."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .formats import Row

ROLES = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
_FOUND_LIMIT = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding before it has a place: the check's name, what was found, what to write instead."""

    check: str
    found: str
    advice: str


def quote(value: object) -> str:
    """A value as JSON, cut to what fits a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _FOUND_LIMIT else text[: _FOUND_LIMIT - 1] + "…"


def check_messages(messages: list[Any]) -> Iterator[Problem]:
    """All that is wrong with any of the messages."""
    for message in messages:
        yield from _check_message(message)


def role_of(message: object) -> object:
    """A message's role, whatever was written."""
    return message.get("role") if isinstance(message, dict) else None


def canonical_message(message: Row) -> Row:
    """A message that passed its checks, with its arguments as objects and a content."""
    canonical = {key: value for key, value in message.items() if value is not None}
    canonical.setdefault("content", "")
    if calls := canonical.pop("tool_calls", None):
        canonical["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _arguments(call["function"])}}
            for call in calls
        ]
    return canonical


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
