"""Requests to sides, and their replies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.evaluation import Decoding
from tunesmith_evaluation.metrics.answers import Answer, JSONValue

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt of a request: a conversation, or plain text.

    Attributes:
        messages: conversation that the answer continues; empty for plain text.
        text: plain text that the answer continues; empty for a conversation.
        tools: schemas of the tools that the model may call.
        template_arguments: arguments of the chat template.
    """

    messages: tuple[Message, ...] = ()
    text: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    template_arguments: Mapping[str, JSONValue] = field(default_factory=dict)

    def to_json(self) -> JSONValue:
        """JSON members."""
        return {
            "messages": list(self.messages),
            "text": self.text,
            "tools": list(self.tools),
            "templateArguments": dict(self.template_arguments),
        }


@dataclass(frozen=True, slots=True)
class Request:
    """One question to one side.

    Attributes:
        side: name of the side.
        suite: name of the suite.
        item: digest of the item.
        repeat: number of the answer to the item, from 0.
        prompt: what the model sees.
        decoding: decoding of the answer; its stop strings are all that apply.
        seed: seed of sampling, the same for all sides, another for each item and repeat.
        expected: expected text whose likelihood is asked for; None if it isn't.
        generates: an answer is to be generated; False if only the likelihood is asked for.
    """

    side: str
    suite: str
    item: str
    repeat: int
    prompt: Prompt
    decoding: Decoding
    seed: int
    expected: str | None = None
    generates: bool = True

    def key(self, identity: JSONValue) -> str:
        """Digest of all that the answer depends on.

        Args:
            identity: ``Answerer.identity`` of the side.
        """
        parts = {
            "identity": identity,
            "item": self.item,
            "repeat": self.repeat,
            "prompt": self.prompt.to_json(),
            "decoding": self.decoding.model_dump(mode="json"),
            # Greedy answers are the same for every seed.
            "seed": self.seed if self.decoding.temperature > 0 else None,
            "expected": self.expected,
            "generates": self.generates,
        }
        return sha256_digest(canonical_json(parts))


class Problem(StrEnum):
    """Cause for which a request has no answer."""

    TOO_LONG = "TooLong"
    REFUSED_BY_TEMPLATE = "RefusedByTemplate"
    UNANSWERED = "Unanswered"
    BEYOND_BUDGET = "BeyondBudget"


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply to a request.

    Attributes:
        request: the request.
        answer: the answer with its tokens, seconds and likelihood; None if there is none.
        problem: cause for which there is none; None if there is one.
        message: explanation of the problem, for the report.
        prompt_tokens: number of tokens of the prompt; None if unknown.
    """

    request: Request
    answer: Answer | None
    problem: Problem | None = None
    message: str = ""
    prompt_tokens: int | None = None
