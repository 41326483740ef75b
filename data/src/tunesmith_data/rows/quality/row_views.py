"""Row view: texts of a row and their digests, extracted once for all quality checks; sampled rows."""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text, rejected_text
from tunesmith_data.rows.table.record import Record


class RowKind(StrEnum):
    """Kind of a row: an answer, a pair of answers, a judged answer, a prompt, or plain text."""

    ANSWER = "answer"
    PAIR = "pair"
    JUDGED = "judged"
    PROMPT = "prompt"
    TEXT = "text"


@dataclass(slots=True)
class RowView:
    """Texts and digests of a row; never changed.

    Attributes:
        position: its number among the rows that were seen, from 0.
        question: the last message before the answer, or the prompt.
        learned: the text that the model is to imitate: empty where there is none, as for an answer that is judged bad.
        answer, rejected: the answers, imitated or not.
        label: True for an answer that is judged good; None if answers aren't judged.
        system_key: a digest of the system's message; 0 where there is none.
        calls: the answer calls a tool.
        digest: digest of all texts.
        prompt_key: a digest of prompt, system message and tools, without regard to spaces; 0 where there is no prompt.
        answer_key, rejected_key: without regard to case, spaces and full stops at the end; 0 where there is none.
    """

    position: int
    record: Record
    kind: RowKind
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


def build_view(record: Record, position: int = 0) -> RowView:
    """Row view of a record."""
    row = record.row
    kind = row_kind(row)
    prompt = "" if kind is RowKind.TEXT else prompt_text(row)
    answer, rejected = answer_text(row), rejected_text(row)
    label = row.get("label")
    system, calls = _system(row), _calls(row)
    setting = f"{system}\0{_canonical(row['tools'])}" if "tools" in row else system
    return RowView(
        position=position,
        record=record,
        kind=kind,
        question=_question(row, prompt),
        learned="" if label is False or kind is RowKind.TEXT else answer,
        answer=answer,
        rejected=rejected,
        label=label,
        system_key=_digest(system) if system else 0,
        calls=bool(calls),
        digest=_digest(f"{setting}\0{prompt}\0{answer}\0{rejected}\0{label}{calls}"),
        prompt_key=_digest(f"{setting}\0{' '.join(prompt.split())}") if prompt else 0,
        answer_key=_digest(normalized(answer).rstrip(" .!") + calls) if answer or calls else 0,
        rejected_key=_digest(normalized(rejected).rstrip(" .!")) if rejected else 0,
    )


def row_kind(row: Row) -> RowKind:
    """Kind of a canonical row."""
    if "text" in row:
        return RowKind.TEXT
    if "chosen" in row:
        return RowKind.PAIR
    if "label" in row:
        return RowKind.JUDGED
    return RowKind.ANSWER if "messages" in row or "completion" in row else RowKind.PROMPT


def normalized(text: str) -> str:
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
    """Tool calls of the answer as text; empty if there are none."""
    for member in ("messages", "completion", "chosen"):
        value = row.get(member)
        if isinstance(value, list) and value and value[-1].get("tool_calls"):
            return _canonical(value[-1]["tool_calls"])
    return ""


#: Number of sampled rows, and characters kept of each text.
SAMPLE_ROWS = 20_000
SAMPLE_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class SampledRow:
    """Beginnings of a row's texts."""

    position: int
    question: str
    answer: str
    rejected: str
    label: bool | None


def sample_row(view: RowView) -> SampledRow:
    """Beginnings of a row's texts."""
    return SampledRow(
        view.position,
        _text_beginning(view.question),
        _text_beginning(view.answer),
        _text_beginning(view.rejected),
        view.label,
    )


def _text_beginning(text: str) -> str:
    """Beginning of a text; lone surrogates, which cannot be encoded, are replaced."""
    return text[:SAMPLE_CHARACTERS].encode("utf-8", "replace").decode()
