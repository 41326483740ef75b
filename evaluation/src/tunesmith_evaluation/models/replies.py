"""Replies from generated answers."""

from typing import Any

from tunesmith_evaluation.items.requests import Reply
from tunesmith_evaluation.metrics.answers import Likelihood
from tunesmith_evaluation.metrics.reading import read_answer

from .encoding import EncodedRequest
from .generation import Generated


def build_reply(
    tokenizer: Any, encoded: EncodedRequest, generated: Generated, likelihood: Likelihood | None
) -> Reply:
    """Reply with an answer that was generated.

    Args:
        tokenizer: tokenizer of the model.
        encoded: the request.
        generated: its answer.
        likelihood: likelihood of the expected answer, if it was asked for.
    """
    answer = read_answer(
        # With the mark that the prompt ends with, the text can be read again without the prompt.
        encoded.opening + generated.text,
        tools=encoded.request.prompt.tools,
        truncated=generated.truncated,
    )
    thinking = 0
    if answer.thinking:
        ids = tokenizer(answer.thinking, add_special_tokens=False)["input_ids"]
        thinking = min(len(ids), generated.tokens)
    answer = answer.with_usage(
        thinking_tokens=thinking,
        answer_tokens=generated.tokens - thinking,
        seconds=generated.seconds,
        likelihood=likelihood,
    )
    return Reply(encoded.request, answer, prompt_tokens=encoded.prompt_tokens)
