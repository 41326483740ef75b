"""Separation of an answer from the thinking before it.

Models write their thoughts between marks. What stands there is no answer: a draft in it must not count. The chat
template may write the opening mark itself, so that an answer begins inside. An answer that never closes its marks
has no answer at all: it is incomplete.

gpt-oss writes messages on channels (https://cookbook.openai.com/articles/openai-harmony): ``analysis`` and
``commentary`` are thinking, ``final`` is the answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThinkingMarks:
    """Marks around thinking."""

    opening: str
    closing: str


#: Marks of known models: DeepSeek, Qwen and most others; Claude-like data; Mistral; Cohere; Kimi; Seed; Gemma.
KNOWN_MARKS = (
    ThinkingMarks("<think>", "</think>"),
    ThinkingMarks("<thinking>", "</thinking>"),
    ThinkingMarks("[THINK]", "[/THINK]"),
    ThinkingMarks("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkingMarks("◁think▷", "◁/think▷"),
    ThinkingMarks("<seed:think>", "</seed:think>"),
    ThinkingMarks("<|channel>thought", "<channel|>"),
)

_CHANNEL = "<|channel|>"
_CHANNEL_MARKS = re.compile(r"<\|(start|channel|constrain|message|end|return|call)\|>")
_LONGEST_HEADER = 1000
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")


@dataclass(frozen=True, slots=True)
class SplitAnswer:
    """Answer and thinking apart.

    Attributes:
        text: the answer, trimmed; empty if it is incomplete.
        thinking: the text between marks, trimmed; None without marks.
        complete: False if thinking never ended.
    """

    text: str
    thinking: str | None = None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ChannelMessage:
    """Message of gpt-oss.

    Attributes:
        channel: ``analysis``, ``commentary`` or ``final``.
        recipient: name of the tool that it calls; empty without a call.
        text: its text.
    """

    channel: str
    recipient: str
    text: str


def split_thinking(
    raw: str, marks: Sequence[ThinkingMarks] = KNOWN_MARKS, *, starts_inside: bool = False
) -> SplitAnswer:
    """Split an answer into thinking and the answer proper.

    A closing mark without an opening one ends thinking that began before the text, whatever ``starts_inside`` says.
    Marks may repeat. Nested ones end with the last closing mark.

    Args:
        raw: the answer as generated, with special tokens that are marks.
        marks: the marks that count.
        starts_inside: the prompt ended with an opening mark.
    """
    if _CHANNEL in raw:
        return _split_channels(raw)
    thinking: list[str] = []
    answer: list[str] = []
    found = starts_inside
    inside = starts_inside
    closing: str | None = None
    position = 0
    by_mark = {mark: pair for pair in marks for mark in (pair.opening, pair.closing)}
    pattern = re.compile("|".join(map(re.escape, sorted(by_mark, key=len, reverse=True))), re.IGNORECASE)
    folded = {mark.casefold(): pair for mark, pair in by_mark.items()}
    for match in pattern.finditer(raw):
        pair, mark = folded[match[0].casefold()], match[0].casefold()
        opens = mark == pair.opening.casefold()
        if inside and (opens or closing not in (None, mark)):
            continue  # a mark that is mentioned in thoughts
        (thinking if inside else answer).append(raw[position : match.start()])
        if not inside and not opens:
            # No mark opened it: all that stood before was thinking.
            thinking += answer
            answer = []
        position, found, inside = match.end(), True, opens
        closing = pair.closing.casefold() if opens else None
    (thinking if inside else answer).append(raw[position:])
    if not found:
        return SplitAnswer(raw)
    text = "" if inside else "".join(answer).strip()
    return SplitAnswer(text, "".join(thinking).strip(), complete=not inside)


def channel_messages(raw: str) -> list[ChannelMessage]:
    """Messages of gpt-oss in their order; empty for other text."""
    messages: list[ChannelMessage] = []
    header, mark = "", "start"
    # Text and marks alternate; what follows ``message`` is text, all else before it belongs to its header.
    for index, part in enumerate(_CHANNEL_MARKS.split(raw)):
        if index % 2:
            mark = part
            header = "" if part == "start" else f"{header} channel=" if part == "channel" else header
            header = header[-_LONGEST_HEADER:]
        elif mark == "message":
            channel = re.search(r"channel=(\w*)", header)
            recipient = _RECIPIENT.search(header)
            messages.append(
                ChannelMessage(channel[1] if channel else "", recipient[1] if recipient else "", part)
            )
            header = ""
        else:
            header += part
    return messages


def _split_channels(raw: str) -> SplitAnswer:
    messages = channel_messages(raw)
    final = [message.text for message in messages if message.channel == "final"]
    called = any(message.recipient for message in messages)
    thinking = [message.text for message in messages if message.channel != "final" and not message.recipient]
    return SplitAnswer(
        "".join(final).strip(),
        "\n".join(thinking).strip() if thinking else None,
        complete=bool(final) or called,
    )
