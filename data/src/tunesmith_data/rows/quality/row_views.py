"""A row as the checks of quality look at it: its texts and their digests, taken out once for all of them."""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text, rejected_text
from tunesmith_data.rows.table.record import Record


class Kind(StrEnum):
    """What a row teaches: an answer, which of two is better, whether one is good, a prompt to be tried, plain text."""

    ANSWER = "answer"
    PAIR = "pair"
    JUDGED = "judged"
    PROMPT = "prompt"
    TEXT = "text"


@dataclass(slots=True)
class RowView:
    """A row, taken apart; made once, never changed.

    Attributes:
        position: its number among the rows that were seen, from 0.
        question: the last message before the answer, or the prompt.
        learned: the text that the model is to imitate: empty where there is none, as for an answer that is judged bad.
        answer, rejected: the answers, imitated or not.
        label: whether an answer is judged good; None where answers aren't judged.
        system_key: a digest of the system's message; 0 where there is none.
        calls: the answer calls a tool.
        digest: of all texts.
        prompt_key: a digest of prompt, system message and tools, without regard to spaces; 0 where there is no prompt.
        answer_key, rejected_key: without regard to case, spaces and full stops at the end; 0 where there is none.
    """

    position: int
    record: Record
    kind: Kind
    question: str
    learned: str
    answer: str
    rejected: str
    label: bool | None
    system_key: int
    calls: bool
    digest: int
    prompt_key: int
    answer_key: int
    rejected_key: int


def view_of(record: Record, position: int = 0) -> RowView:
    """The row of a record, taken apart."""
    row = record.row
    kind = kind_of(row)
    prompt = "" if kind is Kind.TEXT else prompt_text(row)
    answer, rejected = answer_text(row), rejected_text(row)
    label = row.get("label")
    system, calls = _system(row), _calls(row)
    setting = f"{system}\0{_canonical(row['tools'])}" if "tools" in row else system
    return RowView(
        position=position,
        record=record,
        kind=kind,
        question=_question(row, prompt),
        learned="" if label is False or kind is Kind.TEXT else answer,
        answer=answer,
        rejected=rejected,
        label=label,
        system_key=_digest(system) if system else 0,
        calls=bool(calls),
        digest=_digest(f"{setting}\0{prompt}\0{answer}\0{rejected}\0{label}{calls}"),
        prompt_key=_digest(f"{setting}\0{' '.join(prompt.split())}") if prompt else 0,
        answer_key=_digest(normalised(answer).rstrip(" .!") + calls) if answer or calls else 0,
        rejected_key=_digest(normalised(rejected).rstrip(" .!")) if rejected else 0,
    )


def kind_of(row: Row) -> Kind:
    """What a canonical row teaches."""
    if "text" in row:
        return Kind.TEXT
    if "chosen" in row:
        return Kind.PAIR
    if "label" in row:
        return Kind.JUDGED
    return Kind.ANSWER if "messages" in row or "completion" in row else Kind.PROMPT


def normalised(text: str) -> str:
    """A text without regard to case and white space."""
    return " ".join(text.casefold().split())


def _digest(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _conversation(row: Row) -> list[dict[str, Any]]:
    """The messages before the answer, system's included."""
    if "messages" in row:
        messages: list[dict[str, Any]] = row["messages"]
        return messages[:-1] if messages[-1]["role"] == "assistant" else messages
    prompt = row.get("prompt")
    return prompt if isinstance(prompt, list) else []


def _question(row: Row, prompt: str) -> str:
    messages = _conversation(row)
    return str(messages[-1]["content"]) if messages else prompt


def _system(row: Row) -> str:
    messages = _conversation(row)
    return str(messages[0]["content"]) if messages and messages[0]["role"] == "system" else ""


def _calls(row: Row) -> str:
    """The calls of tools in the answer, as text; empty where there are none."""
    for member in ("messages", "completion", "chosen"):
        value = row.get(member)
        if isinstance(value, list) and value and value[-1].get("tool_calls"):
            return _canonical(value[-1]["tool_calls"])
    return ""
