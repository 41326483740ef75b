"""Questions, expected answers and answers, as scorers see them."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

#: JSON value: None, bool, int, float, str, list or dict.
JSONValue = Any

_SURROGATES = re.compile("[\ud800-\udfff]")


def replace_surrogates(text: str) -> str:
    """The text with halves of surrogate pairs, which no encoding can write, replaced by U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


@dataclass(frozen=True, slots=True)
class Call:
    """Call of a tool. Arguments are an object, or any other value that the model wrote instead."""

    name: str
    arguments: JSONValue

    @classmethod
    def read(cls, name: Any, arguments: Any) -> "Call | None":
        """Call from what was written; JSON text becomes its value, no arguments an empty object.

        Returns:
            The call; None if the name is no text or the arguments are text that is not JSON.
        """
        if not isinstance(name, str) or not name.strip():
            return None
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments) if arguments.strip() else {}
            except (ValueError, RecursionError):
                return None
        return cls(name.strip(), {} if arguments is None else arguments)

    @classmethod
    def read_openai(cls, value: Any) -> "Call | None":
        """Call in OpenAI's form, or its function alone; None if it is no call."""
        function = value.get("function", value) if isinstance(value, Mapping) else None
        return (
            cls.read(function.get("name"), function.get("arguments"))
            if isinstance(function, Mapping)
            else None
        )


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Likelihood of the expected answer under a model.

    Attributes:
        log_probability: sum over its tokens, in nats.
        tokens: number of tokens that were summed.
        is_greedy: each of its tokens is the most probable one; None if unknown.
    """

    log_probability: float
    tokens: int
    is_greedy: bool | None = None

    @property
    def is_usable(self) -> bool:
        """True if it is a number (minus infinity is) over at least one token."""
        return self.tokens > 0 and not math.isnan(self.log_probability) and self.log_probability < math.inf


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer of a model.

    Attributes:
        text: the answer without thinking and without calls of tools.
        raw: the answer as generated.
        thinking: the text between thinking marks; None if there is none.
        complete: False if thinking never ended, so that there is no answer.
        truncated: it was cut at the largest number of tokens.
        tool_calls: calls of tools in their order.
        malformed_calls: number of calls that can't be read.
        thinking_tokens, answer_tokens: numbers of tokens; None if unknown.
        seconds: time from the request to the whole answer; None if unknown.
        likelihood: likelihood of the expected answer, where it was asked for.
    """

    text: str
    raw: str = ""
    thinking: str | None = None
    complete: bool = True
    truncated: bool = False
    tool_calls: tuple[Call, ...] = ()
    malformed_calls: int = 0
    thinking_tokens: int | None = None
    answer_tokens: int | None = None
    seconds: float | None = None
    likelihood: Likelihood | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", replace_surrogates(self.text))

    @property
    def tokens(self) -> int | None:
        """Number of all tokens, thinking included; None if unknown."""
        return None if self.answer_tokens is None else self.answer_tokens + (self.thinking_tokens or 0)

    @property
    def calls_tools(self) -> bool:
        """True if it calls a tool, or tries to."""
        return bool(self.tool_calls or self.malformed_calls)

    def with_usage(self, **usage: Any) -> "Answer":
        """The answer with measurements: ``truncated``, tokens, ``seconds`` or ``likelihood``."""
        return replace(self, **usage)


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected answer of an item, with the reference data that metrics may need.

    Attributes:
        text: expected text; empty if a call of a tool is expected.
        tool_calls: expected calls.
        row: number of the item's row, counted from 1, for messages.
        passages: passages that were retrieved for the question.
        tests: Python code that tests the answer's code.
        group: items with the same group are not independent, such as paraphrases of one question.
        json_schema: JSON schema of the answer, as JSON text; None for the one in the metric's settings.
        refuses: True if the answer should be a refusal, False if it should not; None if unknown.
        human_label: score of the item by people; None if there is none.
    """

    text: str = ""
    tool_calls: tuple[Call, ...] = ()
    row: int | None = None
    passages: tuple[str, ...] = ()
    tests: str | None = None
    group: str | None = None
    json_schema: str | None = None
    refuses: bool | None = None
    human_label: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", replace_surrogates(self.text))

    @property
    def subject(self) -> str:
        """Its name at the beginning of a message."""
        return "the expected answer" if self.row is None else f"the expected answer of row {self.row}"


@dataclass(frozen=True, slots=True)
class Question:
    """Question of an item.

    Attributes:
        text: the prompt of plain text, or the last message of the user.
        messages: the conversation before the answer; empty for plain text.
        tools: schemas of the tools that the model may call.
    """

    text: str
    messages: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_messages(
        cls, messages: tuple[Mapping[str, Any], ...], tools: tuple[Mapping[str, Any], ...] = ()
    ) -> "Question":
        """Question from a conversation."""
        users = (message["content"] for message in reversed(messages) if message["role"] == "user")
        return cls(str(next(users, "") or ""), messages, tools)
