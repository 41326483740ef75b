"""Rows with a new answer, label or preference, in their original format."""

from typing import Any

from tunesmith_data.rows.schema.formats import Row


def with_answer(row: Row, text: str) -> Row:
    """A row with ``text`` as its only answer: Chat stays Chat, all others become PromptCompletion."""
    prompt, _ = prompt_and_completion(row)
    if "messages" in row:
        return {**_tools(row), "messages": [*prompt, _message_text(text)]}
    return {**_tools(row), "prompt": prompt, "completion": _in_form_of(prompt, text)}


def with_label(row: Row, good: bool) -> Row:
    """UnpairedPreference row: the answer with the annotators' label."""
    prompt, completion = prompt_and_completion(row)
    return {**_tools(row), "prompt": prompt, "completion": completion, "label": good}


def without_label(row: Row) -> Row:
    """Approved row, without its earlier label."""
    return {name: value for name, value in row.items() if name != "label"}


def with_preference(row: Row, *, rejected: bool) -> Row:
    """Preference row with its answers in the preferred order.

    Args:
        row: a Preference.
        rejected: people prefer the rejected answer of the row.
    """
    if not rejected:
        return row
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def prompt_and_completion(row: Row) -> tuple[Any, Any]:
    """Prompt and answer of a row of one answer, as messages or text; no answer is an empty one."""
    if "messages" in row:
        messages = row["messages"]
        answered = messages[-1]["role"] == "assistant"
        return (messages[:-1], messages[-1:]) if answered else (messages, [])
    prompt = row["prompt"]
    if "completion" in row:
        return prompt, row["completion"]
    return prompt, _in_form_of(prompt, row.get("answer") or "")


def _in_form_of(prompt: Any, text: str) -> Any:
    if isinstance(prompt, str):
        return text
    return [_message_text(text)] if text else []


def _message_text(text: str) -> Row:
    return {"role": "assistant", "content": text}


def _tools(row: Row) -> Row:
    return {"tools": row["tools"]} if "tools" in row else {}
