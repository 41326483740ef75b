"""Checks of chat messages, by the names of OpenAI's cookbook; canonical form of messages and tools."""

from collections.abc import Iterator
from typing import Any

from tunesmith_data.rows.findings import Finding, quote
from tunesmith_data.rows.parsing.strict_json import load_text

from .formats import Row

ROLES = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")

_PLAIN_KEYS = frozenset({"role", "content"})
_CALLS_ADVICE = 'write tool_calls as [{"type": "function", "function": {"name": …, "arguments": {…}}}]'


def check_messages(messages: list[Any], member: str) -> Iterator[Finding]:
    """Findings for the messages of a member."""
    for index, message in enumerate(messages):
        if not _is_plain(message):
            yield from _check_message(message, f"{member}[{index}]")


def role_of(message: object) -> object:
    """Role of a message; None if it has none."""
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


def _is_plain(message: object) -> bool:
    """True if a message has the most frequent form and is valid; a fast path."""
    if not isinstance(message, dict) or message.keys() != _PLAIN_KEYS or message["role"] not in ROLES:
        return False
    content = message["content"]
    return isinstance(content, str) and (message["role"] != "assistant" or bool(content.strip()))


def _check_message(message: object, member: str) -> Iterator[Finding]:
    if not isinstance(message, dict):
        yield Finding("data_type", f"message {quote(message)}", 'write {"role": …, "content": …}', member)
        return
    calls = message.get("tool_calls")
    missing = [key for key in ("role", "content") if key not in message and not (key == "content" and calls)]
    if missing:
        keys = " and ".join(f'"{key}"' for key in missing)
        yield Finding("message_missing_key", f"keys {quote(sorted(message))}", f"add {keys}", member)
    unknown = sorted(set(message) - set(MESSAGE_KEYS))
    if unknown:
        advice = f"use only {', '.join(MESSAGE_KEYS)}"
        found = f"key {quote(unknown[0])}"
        yield Finding("message_unrecognized_key", found, advice, f"{member}.{unknown[0]}")
    if "role" in message and message["role"] not in ROLES:
        found, advice = f"role {quote(message['role'])}", f"write one of {', '.join(ROLES)}"
        yield Finding("unrecognized_role", found, advice, f"{member}.role")
    yield from _check_content(message, f"{member}.content")
    yield from _check_tool_calls(calls, f"{member}.tool_calls")
    yield from _check_names(message, member)


def _check_content(message: Row, member: str) -> Iterator[Finding]:
    if "content" not in message:
        return
    content = message["content"]
    if content is None and message.get("tool_calls"):
        return
    if not isinstance(content, str):
        found = f"content {quote(content)}"
        yield Finding("missing_content", found, "write the content as a string", member)
    elif not content.strip() and message.get("role") == "assistant" and not message.get("tool_calls"):
        yield Finding("missing_content", "an empty answer", "write what the assistant is to say", member)


def _check_names(message: Row, member: str) -> Iterator[Finding]:
    for key in ("name", "tool_call_id"):
        value = message.get(key)
        if value is not None and not isinstance(value, str):
            found, advice = f"{key} {quote(value)}", f'write "{key}" as a string'
            yield Finding("data_type", found, advice, f"{member}.{key}")


def _check_tool_calls(calls: object, member: str) -> Iterator[Finding]:
    if calls is None:
        return
    if not isinstance(calls, list):
        yield Finding("data_type", f"tool_calls {quote(calls)}", _CALLS_ADVICE, member)
        return
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            yield Finding("data_type", f"tool call {quote(call)}", _CALLS_ADVICE, f"{member}[{index}]")
        else:
            yield from _check_arguments(function, f"{member}[{index}].function.arguments")


def _check_arguments(function: Row, member: str) -> Iterator[Finding]:
    arguments = _arguments(function)
    if isinstance(arguments, Finding):
        found, advice = f"arguments {quote(function['arguments'])}", f"{_CALLS_ADVICE}: {arguments.found}"
        yield Finding("data_type", found, advice, member)
    elif not isinstance(arguments, dict):
        yield Finding("data_type", f"arguments {quote(arguments)}", _CALLS_ADVICE, member)


def _arguments(function: Row) -> Any:
    """Arguments as an object, parsed if they are JSON text as in OpenAI's files; or a Finding."""
    arguments = function.get("arguments", {})
    return load_text(arguments) if isinstance(arguments, str) else arguments


def read_tools(value: Any) -> list[Row] | None:
    """Tools as a list of schemas, parsed if they are JSON text as in tables and ShareGPT; None if invalid.

    A bare function is put into the form that templates know: ``{"type": "function", "function": …}``.
    """
    tools = load_text(value or "[]") if isinstance(value, str) else value
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return None
    return [_as_function(tool) for tool in tools]


def _as_function(tool: Row) -> Row:
    is_unwrapped = "function" not in tool and "type" not in tool and "name" in tool
    return {"type": "function", "function": tool} if is_unwrapped else tool
