"""Rows with another answer, in the form in which they were written."""

from typing import Any

from tunesmith_data.rows.schema.formats import Row


def with_answer(row: Row, text: str) -> Row:
    """A row with ``text`` as its only answer: Chat stays Chat, all others become PromptCompletion."""
    prompt, _ = prompt_and_completion(row)
    if "messages" in row:
        return {**_tools(row), "messages": [*prompt, _said(text)]}
    return {**_tools(row), "prompt": prompt, "completion": _in_form_of(prompt, text)}


def as_unpaired(row: Row, good: bool) -> Row:
    """A row as UnpairedPreference: its answer with what people think of it."""
    prompt, completion = prompt_and_completion(row)
    return {**_tools(row), "prompt": prompt, "completion": completion, "label": good}


def as_approved(row: Row) -> Row:
    """A row that people approve of: what was said of its answer before counts no more."""
    return {name: value for name, value in row.items() if name != "label"}


def with_preferred(row: Row, *, rejected: bool) -> Row:
    """A Preference with its answers in the order of what people prefer.

    Args:
        row: a Preference.
        rejected: whether people prefer what the row rejects.
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
    return [_said(text)] if text else []


def _said(text: str) -> Row:
    return {"role": "assistant", "content": text}


def _tools(row: Row) -> Row:
    return {"tools": row["tools"]} if "tools" in row else {}
