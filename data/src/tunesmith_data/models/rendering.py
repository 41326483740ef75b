"""Rendering of rows into tokens, with a mask of the answer's tokens.

The answer's tokens are found, in this order: by the ``{% generation %}`` marks of the model's own template;
by the marks of TRL's training variant of a known template; by rendering the conversation up to each
assistant turn, which every template allows that renders a conversation as a continuation of its own
beginning. A template that allows none of these is refused, since training would silently learn the questions
too.

An answer in a field of its own (completions, preferences) begins where the prompt and the whole conversation,
both rendered by the model's own template, first differ; it ends with its end-of-turn token.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from tunesmith_data.failures import UserError
from tunesmith_data.rows.schema.canonical import common_length
from tunesmith_data.rows.schema.formats import Row

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]

#: What a template raises that refuses a conversation: on purpose, or by an operation that its values don't have.
_REFUSALS = (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)

#: Tokens that a template may put between a prompt and its answer.
_MAX_MARKS = 16

_PROBE_CONVERSATION: list[Message] = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four"},
]
_PROBE_COMPLETION: Row = {"prompt": _PROBE_CONVERSATION[:1], "completion": _PROBE_CONVERSATION[1:2]}


class RenderError(ValueError):
    """The chat template rejects this row."""


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """Row as token ids, with a mask of the answer's tokens."""

    ids: list[int]
    answer: list[bool]

    def labels(self, answers_only: bool, ignore: int = -100) -> list[int]:
        """Labels for the loss; ``ignore`` for tokens that do not count."""
        if not answers_only:
            return list(self.ids)
        return [token if answer else ignore for token, answer in zip(self.ids, self.answer, strict=True)]

    @property
    def start(self) -> int:
        """Index of the answer's first token; the number of tokens if there is no answer."""
        return self.answer.index(True) if True in self.answer else len(self.ids)

    @property
    def answered(self) -> list[int]:
        """Token ids up to the end of the answer, without the template's trailing text."""
        return (
            self.ids[: len(self.answer) - self.answer[::-1].index(True)] if True in self.answer else self.ids
        )


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A prompt and two answers to it, as token ids; either answer follows the prompt."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class Renderer:
    """Renders rows by a model's tokenizer and template.

    Args:
        tokenizer: a fast tokenizer.
        answers_only: reject a template whose answers cannot be located; else the whole row counts.
        arguments: arguments of the template for all rows, such as ``enable_thinking``.

    Raises:
        UserError: on the first use, when the tokenizer has no chat template or one whose answers can't be
            located.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        answers_only: bool = True,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._answers_only = answers_only
        self._arguments = dict(arguments or {})

    def tokens(self, row: Row) -> TokenizedRow:
        """A whole canonical row: of a preference, the prompt with the chosen answer; of a prompt, no answer.

        Raises:
            RenderError: the template refuses the row.
        """
        try:
            if "messages" in row:
                render = self._prefix_tokens if self._marked_template is None else self._marked_tokens
                return render(row["messages"], row.get("tools"))
            if "text" in row:
                return self._text_tokens("", row["text"])
            answer = row["chosen"] if "chosen" in row else row.get("completion")
            if isinstance(row["prompt"], list):
                return self._turn_tokens(row["prompt"], answer, row.get("tools"))
            return self._text_tokens(row["prompt"], answer)
        except TemplateError as error:
            raise RenderError(str(error)) from error

    def lengths(self, rows: Sequence[Row]) -> list[int | RenderError]:
        """Token count of each row, as by ``tokens``, or its error; faster for many rows.

        Raises:
            UserError: the answers of a row can't be located by the template.
        """
        counted: list[int | RenderError] = [0] * len(rows)
        wholes: dict[bool, list[tuple[int, str]]] = {False: [], True: []}
        for number, row in enumerate(rows):
            try:
                text = self._whole(row)
                if text is None:
                    counted[number] = len(self.tokens(row).ids)
                else:
                    wholes[_is_plain(row)].append((number, text))
            except (RenderError, TemplateError) as error:
                counted[number] = RenderError(str(error))
        for plain, texts in wholes.items():
            for number, encoding in self._encode_all(texts, special_tokens=plain):
                counted[number] = len(encoding) + (plain and self._lacks_end(rows[number], encoding.ids))
        return counted

    def begins_within(self, row: Row, limit: int) -> bool:
        """True if the first answer of a row begins within the limit.

        Raises:
            RenderError: the template refuses the row.
        """
        messages = row.get("messages", ())
        first = next((n for n, message in enumerate(messages) if message["role"] == "assistant"), 0)
        if first:
            # The text before the answer is nearly always enough, and cheaper than a whole long row.
            before = self.prompt(messages[:first], row.get("tools"))
            if len(self._encode(before, [], special_tokens=False).ids) < limit - _MAX_MARKS:
                return True
        return self.tokens(row).start < limit

    def pair(self, row: Row) -> TokenizedPair:
        """A row of a preference.

        Raises:
            RenderError: the template refuses the row.
        """
        chosen = self.tokens(row)
        rejected = self.tokens(row | {"chosen": row["rejected"]})
        # Where a token reaches from the prompt into an answer, both answers begin with it.
        shared = common_length(chosen.ids, rejected.ids)
        start = min(chosen.start, rejected.start, shared)
        return TokenizedPair(chosen.ids[:start], chosen.answered[start:], rejected.answered[start:])

    def prompt(
        self,
        messages: Sequence[Message],
        tools: list[Row] | None = None,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """Text of a conversation up to the beginning of the assistant's next turn.

        Args:
            messages: the conversation.
            tools: schemas of the tools.
            arguments: further arguments of the template, such as ``enable_thinking``.

        Raises:
            RenderError: the template refuses the conversation.
        """
        try:
            return self._render(messages, tools, add_generation_prompt=True, arguments=arguments)
        except _REFUSALS as error:
            raise RenderError(str(error)) from error

    def require_arguments(self, names: Iterable[str]) -> None:
        """Check that the template takes arguments: one that it ignores would change nothing, silently.

        Raises:
            UserError: it doesn't.
        """
        template = str(self.tokenizer.chat_template or "")
        own = inspect.signature(self.tokenizer.apply_chat_template).parameters
        for name in names:
            if name in own or name == "messages" or not re.search(rf"\b{re.escape(name)}\b", template):
                message = (
                    f"the model's chat template takes no argument {name}: remove it from templateArguments"
                )
                raise UserError("TemplateArgument", message)

    def require_chat(self, *, every_turn: bool = True) -> None:
        """Check that conversations can be rendered and their answers located.

        Args:
            every_turn: each turn of the assistant is an answer; else only what follows a prompt.

        Raises:
            UserError: they can't.
        """
        self.require_arguments(self._arguments)
        try:
            marked = self.tokens({"messages": _PROBE_CONVERSATION} if every_turn else _PROBE_COMPLETION)
        except RenderError as error:
            message = (
                f"the model's chat template refuses a plain conversation ({error}): correct the template"
            )
            raise UserError("ChatTemplate", message) from error
        if not any(marked.answer):
            message = (
                "the model's chat template marks no tokens as the assistant's: correct its generation marks"
            )
            raise UserError("ChatTemplate", message)

    def _whole(self, row: Row) -> str | None:
        """Row as one text to tokenize; None if its turns have to be rendered one by one."""
        if _is_plain(row):
            return str(row["text"] if "text" in row else row["prompt"] + row.get("completion", ""))
        tools = row.get("tools")
        if "messages" in row:
            messages = row["messages"]
            if self._marked_template is not None:
                return self._render(messages, tools, template=self._marked_template)
            answers = sum(message["role"] == "assistant" for message in messages)
            return self._render(messages, tools) if answers == 1 else None
        answer = row.get("completion", [])
        if "chosen" in row or len(answer) > 1:
            return None
        return self._render([*row["prompt"], *answer], tools, add_generation_prompt=not answer)

    def _encode_all(
        self, texts: Sequence[tuple[int, str]], *, special_tokens: bool
    ) -> "Iterator[tuple[int, Encoding]]":
        """The tokens of numbered texts, without their offsets: finding those takes a third of the time."""
        backend = self.tokenizer.backend_tokenizer
        # A tokenizer.json may ask for either, and what was called before may have.
        backend.no_truncation()
        backend.no_padding()
        encoded = backend.encode_batch_fast([text for _, text in texts], add_special_tokens=special_tokens)
        for (number, _), encoding in zip(texts, encoded, strict=True):
            yield number, encoding

    def _lacks_end(self, row: Row, ids: list[int]) -> bool:
        """True if plain text needs an end token; a prompt alone does not."""
        end = self.tokenizer.eos_token_id
        return ("text" in row or "completion" in row) and end is not None and ids[-1:] != [end]

    def _require_template(self) -> None:
        if self.tokenizer.chat_template:
            return
        message = (
            "the base model's tokenizer has no chat template: choose an instruction-tuned model, "
            "add chat_template.jinja to its folder, or write rows of plain text"
        )
        raise UserError("ChatTemplate", message)

    @cached_property
    def _marked_template(self) -> str | None:
        self._require_template()
        # Transformers takes time and memory, which a reader of rows alone doesn't need.
        from .training_template import find_marked_template

        return find_marked_template(self.tokenizer)

    def _turn_tokens(
        self, prompt: Sequence[Message], answer: Sequence[Message] | None, tools: list[Row] | None
    ) -> TokenizedRow:
        """Tokens of a prompt and its answer messages; only the assistant's messages count as answer."""
        text = self._render(prompt, tools, add_generation_prompt=True)
        if answer is None:
            return self._encode(text, [], special_tokens=False)
        messages = [*prompt, *answer]
        if len(answer) > 1:
            return self._prefix_tokens(messages, tools, begin=len(prompt))
        whole = self._render(messages, tools)
        start = len(text) if whole.startswith(text) else common_length(text, whole)
        span = (start, _end_of_turn(whole, start, self.tokenizer.eos_token))
        return self._encode(whole, [span], special_tokens=False)

    def _marked_tokens(self, messages: Sequence[Message], tools: list[Row] | None) -> TokenizedRow:
        encoded: Any = self.tokenizer.apply_chat_template(
            list(messages),
            tools=[*tools] if tools is not None else None,
            chat_template=self._marked_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            **self._arguments,
        )
        return TokenizedRow(list(encoded["input_ids"]), [bool(bit) for bit in encoded["assistant_masks"]])

    def _prefix_tokens(
        self, messages: Sequence[Message], tools: list[Row] | None, begin: int = 0
    ) -> TokenizedRow:
        text = self._render(messages, tools)
        spans = [
            self._answer_span(messages, index, tools, text)
            for index, message in enumerate(messages)
            if index >= begin and message["role"] == "assistant"
        ]
        return self._encode(text, spans, special_tokens=False)

    def _answer_span(
        self, messages: Sequence[Message], index: int, tools: list[Row] | None, text: str
    ) -> tuple[int, int]:
        before = self._render(messages[:index], tools, add_generation_prompt=True) if index else ""
        through = self._render(messages[: index + 1], tools)
        if not text.startswith(through) or not through.startswith(before):
            if not self._answers_only:
                return 0, len(text)
            message = (
                "the model's chat template renders earlier turns differently once later ones follow, so the "
                "assistant's tokens cannot be located: add {% generation %} marks to the template, "
                "or set assistantOnlyLoss to false"
            )
            raise UserError("ChatTemplate", message)
        return len(before), _end_of_turn(through, len(before), self.tokenizer.eos_token)

    def _text_tokens(self, prompt: str, answer: str | None) -> TokenizedRow:
        """Plain text with the tokenizer's own marks of beginning and end; a prompt alone has no end."""
        text = prompt + (answer or "")
        spans = [] if answer is None else [(len(prompt), len(text))]
        tokens = self._encode(text, spans, special_tokens=True)
        end = self.tokenizer.eos_token_id
        if answer is not None and end is not None and tokens.ids[-1:] != [end]:
            return TokenizedRow([*tokens.ids, end], [*tokens.answer, True])
        return tokens

    def _render(
        self,
        messages: Sequence[Message],
        tools: list[Row] | None,
        *,
        add_generation_prompt: bool = False,
        template: str | None = None,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        self._require_template()
        rendered = self.tokenizer.apply_chat_template(
            list(messages),
            tools=[*tools] if tools is not None else None,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **{**self._arguments, **arguments},
        )
        return str(rendered)

    def _encode(self, text: str, spans: list[tuple[int, int]], *, special_tokens: bool) -> TokenizedRow:
        encoded = self.tokenizer(
            text, add_special_tokens=special_tokens, return_offsets_mapping=True, verbose=False
        )
        answer = [
            any(start >= low and end <= high and end > start for low, high in spans)
            for start, end in encoded["offset_mapping"]
        ]
        return TokenizedRow(list(encoded["input_ids"]), answer)


def _is_plain(row: Row) -> bool:
    """True if a row is plain text without a chat template, and no pair of answers."""
    return "text" in row or (isinstance(row.get("prompt"), str) and "chosen" not in row)


def _end_of_turn(text: str, start: int, eos_token: str | None) -> int:
    """End of an answer, including its end-of-turn token if the template writes one."""
    position = text.rfind(eos_token, start) if eos_token else -1
    return position + len(eos_token) if eos_token and position >= 0 else len(text)
