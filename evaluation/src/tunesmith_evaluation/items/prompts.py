"""Prompts of items: system prompt, worked examples, retrieved passages, question."""

from collections.abc import Iterable, Sequence

from tunesmith_contract.evaluation import Decoding, Side
from tunesmith_data.failures import UserError

from .item import EvaluationItem
from .requests import Message, Prompt

#: Texts between worked examples of plain text, which also end an answer: the first that no expected answer contains.
EXAMPLE_SEPARATORS = ("\n\n", "\n\n###\n\n")


def choose_separator(items: Iterable[EvaluationItem]) -> str:
    """Text between worked examples of plain text.

    Raises:
        UserError: the expected answers contain all that could separate them.
    """
    texts = [item.expected.text for item in items]
    for separator in EXAMPLE_SEPARATORS:
        if not any(separator in text for text in texts):
            return separator
    message = (
        "expected answers contain empty lines, so plain-text examples can't be told apart: write messages"
    )
    raise UserError("ExampleSeparator", message)


def decoding_of(decoding: Decoding, items: Sequence[EvaluationItem], examples: int) -> Decoding:
    """Decoding of a suite with its stop strings, the same for all sides.

    A model that is shown plain-text examples goes on with the next one: unless the suite names stop strings, an answer
    ends where the next example would begin.

    Args:
        decoding: decoding of the suite.
        items: its items.
        examples: largest number of worked examples of any side.
    """
    is_text = any(not item.messages for item in items)
    if decoding.stop or not examples or not is_text:
        return decoding
    return decoding.model_copy(update={"stop": (choose_separator(items),)})


def build_prompt(
    item: EvaluationItem, side: Side, examples: Sequence[EvaluationItem] = (), separator: str = "\n\n"
) -> Prompt:
    """Prompt of an item for one side.

    The side's system prompt replaces the item's own. Examples are turns before the question; retrieved passages stand
    right before it, with an empty line after each.

    Args:
        item: the question.
        side: the side that answers.
        examples: worked examples.
        separator: text between the examples of plain text.
    """
    passages = item.passages.get(side.context_column, ()) if side.context_column else ()
    context = "".join(f"{passage}\n\n" for passage in passages)
    if not item.messages:
        parts = [f"{example.text}{example.expected.text}" for example in examples]
        if side.system_prompt is not None:
            parts.insert(0, side.system_prompt)
        return Prompt(text=separator.join([*parts, f"{context}{item.text}"]))
    system = [message for message in item.messages if message["role"] == "system"]
    if side.system_prompt is not None:
        system = [{"role": "system", "content": side.system_prompt}]
    turns = [message for message in item.messages if message["role"] != "system"]
    shown = [turn for example in examples for turn in _turns(example)]
    messages = (*system, *shown, *_with_context(turns, context))
    return Prompt(messages, "", item.tools, dict(side.asked_switches))


def _with_context(turns: Sequence[Message], context: str) -> list[Message]:
    """Turns with passages before the user's last one."""
    users = [index for index, turn in enumerate(turns) if turn["role"] == "user"]
    if not context or not users:
        return list(turns)
    last = turns[users[-1]]
    asked = {**last, "content": f"{context}{last['content']}"}
    return [*turns[: users[-1]], asked, *turns[users[-1] + 1 :]]


def _turns(example: EvaluationItem) -> list[Message]:
    messages: Sequence[Message] = example.messages or ({"role": "user", "content": example.text},)
    return [*(message for message in messages if message["role"] != "system"), example.answer]
