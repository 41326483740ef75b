"""Token ids of requests, by the tokenizer and chat template of the model that answers."""

from dataclasses import replace
from typing import Any, NamedTuple

from tunesmith_data.models.rendering import Renderer, RenderError
from tunesmith_evaluation.items.requests import Problem, Prompt, Reply, Request
from tunesmith_evaluation.metrics.thinking import KNOWN_MARKS

from .generation import EncodedPrompt
from .likelihood import EncodedAnswer

#: Arguments of the function that renders templates, which are no switches of a template.


class EncodedRequest(NamedTuple):
    """Request as token ids.

    Attributes:
        prompt: prompt of the answer; None if none is to be generated.
        expected: prompt with the expected answer; None if its likelihood is not asked for.
        opening: the opening mark of thinking with which the prompt ends; else empty.
        prompt_tokens: number of tokens of the prompt.
    """

    request: Request
    prompt: EncodedPrompt | None
    expected: EncodedAnswer | None
    opening: str
    prompt_tokens: int


class RequestEncoder:
    """Encoder of one model's requests.

    Args:
        tokenizer: its tokenizer.
        context_length: maximum number of positions; 0 if the model's configuration names none.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self._renderer = Renderer(tokenizer)
        self._context_length = context_length

    def encode(self, request: Request) -> EncodedRequest | Reply:
        """Token ids of a request; a reply that says why it can't be answered.

        Raises:
            UserError: the model has no chat template, or one without an argument that the side sets.
        """
        try:
            text = self._render(request.prompt)
            if request.prompt.tools and text == self._render(replace(request.prompt, tools=())):
                raise RenderError("it does not show the tools")
        except RenderError as error:
            return Reply(request, None, Problem.REFUSED_BY_TEMPLATE, f"the model's chat template: {error}")
        ids = self._tokenize(request.prompt, text)
        prompt = EncodedPrompt(ids, request.seed) if request.generates else None
        expected = None if request.expected is None else self._answered(request, text)
        needed = max(
            len(ids) + request.decoding.max_new_tokens if prompt else 0, len(expected.ids) if expected else 0
        )
        if self._context_length and needed > self._context_length:
            message = (
                f"prompt ({len(ids):,} tokens) and answer need {needed:,} tokens, but the model's context has "
                f"{self._context_length:,}: lower fewShot or maxNewTokens"
            )
            return Reply(request, None, Problem.TOO_LONG, message, len(ids))
        return EncodedRequest(request, prompt, expected, find_opening(text), len(ids))

    def _render(self, prompt: Prompt) -> str:
        if not prompt.messages:
            return prompt.text
        self._renderer.require_arguments(prompt.template_arguments)
        tools = [dict(tool) for tool in prompt.tools] or None
        messages = [dict(message) for message in prompt.messages]
        return self._renderer.prompt(messages, tools, prompt.template_arguments)

    def _tokenize(self, prompt: Prompt, text: str) -> list[int]:
        ids: list[int] = self._renderer.tokenizer(text, add_special_tokens=not prompt.messages)["input_ids"]
        return ids

    def _answered(self, request: Request, text: str) -> EncodedAnswer | None:
        """Prompt and expected answer; None for an empty one. A token of both counts as the answer's."""
        encoded = self._renderer.tokenizer(
            text + (request.expected or ""),
            add_special_tokens=not request.prompt.messages,
            return_offsets_mapping=True,
        )
        ends = [end for _, end in encoded["offset_mapping"]]
        start = next((index for index, end in enumerate(ends) if end > len(text)), None)
        if start is None:
            return None
        # A tokenizer may end a text with tokens of its own, which belong to no character.
        last = max(index for index, end in enumerate(ends) if end > len(text))
        ids = encoded["input_ids"][: last + 1]
        return EncodedAnswer(ids, start) if start else self._after_start_token(ids)

    def _after_start_token(self, ids: list[int]) -> EncodedAnswer | None:
        """Answer without anything before it: a start token gives its first token a probability, as in lm-eval."""
        tokenizer = self._renderer.tokenizer
        first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if first is not None and ids[0] != first:
            return EncodedAnswer([first, *ids], 1)
        return EncodedAnswer(ids, 1) if len(ids) > 1 else None


def find_opening(prompt: str) -> str:
    """Opening mark of thinking with which a prompt ends, as some templates write it; else empty."""
    text = prompt.rstrip()
    return next((marks.opening for marks in KNOWN_MARKS if text.endswith(marks.opening)), "")
