"""Canonical form of rows that passed their checks; other keys are left out."""

import operator
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from tunesmith_contract.sources import DataFormat

from .formats import ANY, IMPORTED, Purpose, Row
from .imported_formats import import_row
from .messages import canonical_message, read_tools, role_of


def canonical_row(row: Row, data_format: DataFormat, purpose: Purpose = ANY) -> Row:
    """The canonical form of a row, as the purpose learns from it."""
    if data_format in IMPORTED:
        imported = import_row(row, data_format, purpose)
        row, data_format = imported.row, imported.data_format
    canonical = _members(row, data_format)
    if row.get("tools") and (tools := read_tools(row["tools"])):
        canonical["tools"] = tools
    return _as_prompt(canonical) if purpose.learned(data_format) is DataFormat.PROMPT else canonical


def preference_parts(row: Row) -> tuple[Any, Any, Any]:
    """Prompt, chosen and rejected of a row as it was written; a prompt that is only implied is taken out of both.

    Answers that are whole conversations imply their prompt, whether it is written beside them or not.
    """
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if isinstance(chosen, list) and isinstance(rejected, list):
        shared = min(common_length(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
        while shared > 0 and role_of(chosen[shared - 1]) == "assistant":
            shared -= 1
        if shared > 0 and _implies(prompt, chosen[:shared]):
            return chosen[:shared], chosen[shared:], rejected[shared:]
    elif prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        return _divide_text(chosen, rejected)
    return prompt, chosen, rejected


def common_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Length of the common prefix of two sequences."""
    return sum(takewhile(bool, map(operator.eq, first, second)))


def _members(row: Row, data_format: DataFormat) -> Row:
    match data_format:
        case DataFormat.CHAT:
            return {"messages": _canonical(row["messages"])}
        case DataFormat.TEXT:
            return {"text": row["text"]}
        case DataFormat.PREFERENCE:
            parts = zip(("prompt", "chosen", "rejected"), preference_parts(row), strict=True)
            return {key: _canonical(value) for key, value in parts}
        case DataFormat.PROMPT:
            answer = {"answer": row["answer"]} if row.get("answer") is not None else {}
            return {"prompt": _canonical(row["prompt"]), **answer}
    label = {"label": row["label"]} if data_format is DataFormat.UNPAIRED_PREFERENCE else {}
    return {"prompt": _canonical(row["prompt"]), "completion": _canonical(row["completion"]), **label}


def _as_prompt(canonical: Row) -> Row:
    """A canonical row as a prompt; its last answer becomes the reference answer of rewards."""
    tools = {"tools": canonical["tools"]} if "tools" in canonical else {}
    if "messages" in canonical:
        *before, last = canonical["messages"]
        if last["role"] == "assistant":
            return {"prompt": before, "answer": last["content"], **tools}
        return {"prompt": canonical["messages"], **tools}
    if "completion" in canonical:
        completion = canonical["completion"]
        answer = completion if isinstance(completion, str) else completion[-1]["content"]
        between = [] if isinstance(completion, str) else completion[:-1]
        return {
            "prompt": [*canonical["prompt"], *between] if between else canonical["prompt"],
            "answer": answer,
            **tools,
        }
    return canonical


def _canonical(value: Any) -> Any:
    return [canonical_message(message) for message in value] if isinstance(value, list) else value


def _implies(prompt: object, shared: list[Any]) -> bool:
    """True if a written prompt is contained in the common beginning of both answers."""
    if prompt is None or prompt == shared:
        return True
    return any(isinstance(message, dict) and message.get("content") == prompt for message in shared)


def _divide_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """The common beginning of two texts, up to the last space before they differ, and the rest of each."""
    shared = common_length(chosen, rejected)
    while shared > 0 and not chosen[shared - 1].isspace():
        shared -= 1
    while shared > 0 and chosen[shared - 1].isspace():
        shared -= 1
    return chosen[:shared], chosen[shared:], rejected[shared:]
