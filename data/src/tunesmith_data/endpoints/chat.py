"""Request and response bodies of the OpenAI chat completions API."""

import json
from collections.abc import Sequence
from typing import Any

from tunesmith_contract.methods import ChatEndpoint
from tunesmith_data.rows.schema.formats import Row

from .client import UnexpectedResponse
from .journal import NO_USAGE, ChatAnswer, TokenUsage

#: How long one answer may take.
TIMEOUT_SECONDS = 300.0


def completions_url(url: str) -> str:
    """URL of the chat completions API, from a base URL such as ``…/v1``."""
    base = url.rstrip("/")
    return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


def chat_body(
    endpoint: ChatEndpoint,
    messages: Sequence[Row],
    temperature: float,
    max_tokens: int,
    tools: list[Any] | None = None,
) -> dict[str, Any]:
    """The body of a request for one answer."""
    body = {
        "model": endpoint.model,
        "messages": [openai_message(message) for message in messages],
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    return body | ({"tools": tools} if tools else {})


def read_answer(response: Any, name: str, unknown: TokenUsage = NO_USAGE) -> ChatAnswer:
    """Answer in an endpoint's JSON response; its text is empty if there is none.

    Args:
        response: the JSON.
        name: the endpoint's name in messages.
        unknown: the usage to return if the response has none.

    Raises:
        UnexpectedResponse: the response does not follow OpenAI's protocol.
    """
    try:
        choice = response["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        message = f"{name} gives no choices[0].message.content: use an endpoint with the OpenAI API"
        raise UnexpectedResponse(message) from error
    text = content if isinstance(content, str) else ""
    return ChatAnswer(text, choice.get("finish_reason") != "length", _read_usage(response) or unknown)


def messages_of(prompt: str | list[Row]) -> list[Row]:
    """A canonical row's prompt as messages; plain text becomes a user message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def with_answer(row: Row, answer: str) -> Row:
    """A prompt with its answer: a conversation, or a prompt and a completion of plain text."""
    if isinstance(row["prompt"], str):
        return {"prompt": row["prompt"], "completion": answer}
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    return {"messages": [*row["prompt"], {"role": "assistant", "content": answer}], **tools}


def _read_usage(response: dict[str, Any]) -> TokenUsage | None:
    usage = response.get("usage")
    counts = [usage.get(f"{name}_tokens") if isinstance(usage, dict) else None for name in TokenUsage._fields]
    valid = [count for count in counts if isinstance(count, int) and count >= 0]
    return TokenUsage(*valid) if len(valid) == len(counts) else None


def openai_message(message: Row) -> Row:
    """Message in OpenAI's form, in which the arguments of calls are JSON text."""
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}
