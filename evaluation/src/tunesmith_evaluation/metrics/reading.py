"""Answers and expected answers read from text, and from messages of the OpenAI API."""

from collections.abc import Mapping, Sequence
from typing import Any

from .answers import Answer, Call, Expected, replace_surrogates
from .call_formats import find_calls
from .thinking import KNOWN_MARKS, ThinkingMarks, split_thinking


def read_answer(
    raw: str,
    *,
    marks: Sequence[ThinkingMarks] = KNOWN_MARKS,
    starts_inside: bool = False,
    tools: Sequence[Mapping[str, Any]] = (),
    truncated: bool = False,
) -> Answer:
    """Answer from generated text.

    Args:
        raw: the text, without end and padding tokens but with special tokens that are marks.
        marks: thinking marks that count.
        starts_inside: the prompt ended with an opening mark.
        tools: schemas of the tools that the model was offered; without any, no calls are looked for.
        truncated: the text was cut at the largest number of tokens.
    """
    raw = replace_surrogates(raw)
    split = split_thinking(raw, marks, starts_inside=starts_inside)
    answer = Answer(split.text, raw, split.thinking, split.complete, truncated)
    if not tools or not split.complete:
        return answer
    found = find_calls(split.text, tools, raw)
    return answer.with_usage(text=found.text, tool_calls=found.calls, malformed_calls=found.malformed)


def read_message(
    message: Mapping[str, Any],
    *,
    marks: Sequence[ThinkingMarks] = KNOWN_MARKS,
    tools: Sequence[Mapping[str, Any]] = (),
    truncated: bool = False,
) -> Answer:
    """Answer from a message of the OpenAI API, with structured calls and reasoning where the endpoint gives them.

    Args:
        message: ``choices[0].message``.
        marks: thinking marks that count in its text.
        tools: schemas of the tools that the model was offered.
        truncated: ``finish_reason`` is ``length``.
    """
    values = message.get("tool_calls")
    calls = [Call.read_openai(value) for value in values] if isinstance(values, list) else []
    answer = read_answer(
        _content_text(message.get("content")),
        marks=marks,
        tools=() if calls else tools,
        truncated=truncated,
    )
    reasoning = message.get("reasoning_content", message.get("reasoning"))
    if isinstance(reasoning, str) and reasoning.strip():
        # Cut in the thoughts, the endpoint gives no text at all.
        complete = answer.complete and bool(answer.text or calls or not truncated)
        answer = answer.with_usage(thinking=reasoning.strip(), complete=complete)
    if not calls:
        return answer
    good = tuple(call for call in calls if call is not None)
    return answer.with_usage(tool_calls=good, malformed_calls=len(calls) - len(good))


def read_expected(
    message: Mapping[str, Any] | str, *, marks: Sequence[ThinkingMarks] = KNOWN_MARKS, **reference: Any
) -> Expected:
    """Expected answer from the last turn of an item, or from text; thinking in it doesn't count either.

    Args:
        message: the assistant's message, or plain text.
        marks: thinking marks.
        **reference: further members of ``Expected``.

    Raises:
        ValueError: a call can't be read; the message says what to write.
    """
    if isinstance(message, str):
        return Expected(split_thinking(message, marks).text, **reference)
    calls = [Call.read_openai(value) for value in message.get("tool_calls") or ()]
    if None in calls:
        raise ValueError("a call has no name, or arguments that are not JSON: write both")
    good = tuple(call for call in calls if call is not None)
    return Expected(split_thinking(_content_text(message.get("content")), marks).text, good, **reference)


def _content_text(content: Any) -> str:
    """Text of a message's content, which is text, nothing, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))
