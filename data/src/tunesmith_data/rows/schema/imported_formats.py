"""Conversion of ShareGPT and Alpaca rows, as LLaMA-Factory and Axolotl read them.

==========  ============================================  =====================================================
format      members of a row                              becomes
==========  ============================================  =====================================================
ShareGPT    ``conversations``, ``system``?, ``tools``?    ``messages``
            … and ``chosen``, ``rejected``: turns         ``prompt``, ``chosen``, ``rejected``
            … and ``kto_tag``: true or false              ``prompt``, ``completion``, ``label``
Alpaca      ``instruction``, ``input``?, ``output``,      ``messages``
            ``system``?, ``history``?: pairs of text
            … and ``chosen``, ``rejected``: text          ``prompt``, ``chosen``, ``rejected``
            … and ``kto_tag``: true or false              ``prompt``, ``completion``, ``label``
==========  ============================================  =====================================================

A turn of ShareGPT is ``{"from": …, "value": text}``, or a message as in ``Chat``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tunesmith_contract.sources import DataFormat
from tunesmith_data.rows.findings import Finding, quote
from tunesmith_data.rows.parsing.strict_json import load_text

from .formats import Purpose, Row

_SPEAKERS: Mapping[str, str] = MappingProxyType(
    {
        "human": "user",
        "user": "user",
        "gpt": "assistant",
        "assistant": "assistant",
        "chatgpt": "assistant",
        "model": "assistant",
        "system": "system",
        "function_call": "assistant",
        "observation": "tool",
        "tool": "tool",
        "tool_response": "tool",
        "function_response": "tool",
    }
)
_TURN = 'write {"from": "human" or "gpt", "value": …}'
_CALL = 'write the call as {"name": …, "arguments": {…}}'
_MESSAGE = re.compile(r"(\w+\[\d+\])(.*)")

#: A message, and the member that it was written as.
_Turn = tuple[Row, str]


@dataclass(slots=True)
class Imported:
    """Converted row, with findings about the original.

    Attributes:
        row: in the form of ``data_format``.
        original_members: member of the original row by the member, as a check names it, that was made of it.
    """

    data_format: DataFormat
    row: Row = field(default_factory=dict)
    original_members: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def place(self, member: str, turns: list[_Turn]) -> None:
        """Make a member of messages."""
        self.row[member] = [message for message, _ in turns]
        self.original_members |= {f"{member}[{index}]": path for index, (_, path) in enumerate(turns)}

    def original_member(self, member: str) -> str:
        """Member of the original row from which a member of the converted row was made."""
        if member in self.original_members:
            return self.original_members[member]
        match = _MESSAGE.match(member)
        if not match or match[1] not in self.original_members:
            return member
        path = self.original_members[match[1]]
        # A path that ends with a dot is that of a whole message, whose members have the same names. Other paths are
        # those of a text, from which the message was made.
        return (path + match[2].removeprefix(".")).removesuffix(".") if path.endswith(".") else path


def import_row(row: Row, data_format: DataFormat, purpose: Purpose) -> Imported:
    """A row of ShareGPT's or Alpaca's form, as the purpose reads it; other members than the table's are left out."""
    imported = Imported(_becomes(row, purpose))
    if data_format is DataFormat.SHAREGPT:
        turns = _read_conversation(row, imported)
    else:
        turns = _read_instruction(row, imported, answered=not purpose.prompts_only)
    turns = _with_system(turns, row, imported)
    match imported.data_format:
        case DataFormat.PREFERENCE:
            imported.place("prompt", turns)
            for key in ("chosen", "rejected"):
                imported.place(key, _read_answer(row, key, imported))
        case DataFormat.UNPAIRED_PREFERENCE:
            imported.place("prompt", turns[:-1])
            imported.place("completion", turns[-1:])
            imported.row["label"] = row.get("kto_tag")
            imported.original_members["label"] = "kto_tag"
        case _:
            imported.place("messages", turns)
            imported.original_members["messages"] = (
                "conversations" if data_format is DataFormat.SHAREGPT else "output"
            )
    if row.get("tools"):
        imported.row["tools"] = row["tools"]
    return imported


def _becomes(row: Row, purpose: Purpose) -> DataFormat:
    formats = purpose.formats
    if "kto_tag" in row and DataFormat.UNPAIRED_PREFERENCE in formats:
        return DataFormat.UNPAIRED_PREFERENCE
    pairs_only = DataFormat.CHAT not in formats
    if DataFormat.PREFERENCE in formats and (pairs_only or "chosen" in row):
        return DataFormat.PREFERENCE
    return DataFormat.CHAT


def _read_conversation(row: Row, imported: Imported) -> list[_Turn]:
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        found = quote(turns) if "conversations" in row else f"keys {quote(sorted(row))}"
        advice = 'write "conversations" as a list of {"from", "value"}'
        imported.findings.append(Finding("missing_messages_list", found, advice, "conversations"))
        return []
    return [_read_turn(turn, f"conversations[{index}]", imported) for index, turn in enumerate(turns)]


def _read_turn(turn: object, member: str, imported: Imported) -> _Turn:
    """Message for a turn; empty, with a finding, if the turn is invalid."""
    if isinstance(turn, dict) and "role" in turn:
        return turn, f"{member}."
    finding = _check_turn(turn, member)
    if finding:
        imported.findings.append(finding)
        return {}, member
    assert isinstance(turn, dict)
    role, member = _SPEAKERS[turn["from"]], f"{member}.value"
    if turn["from"] != "function_call":
        return {"role": role, "content": turn["value"]}, member
    calls = load_text(turn["value"])
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        imported.findings.append(Finding("data_type", f"function_call {quote(turn['value'])}", _CALL, member))
    return {
        "role": role,
        "content": "",
        "tool_calls": [{"type": "function", "function": call} for call in calls],
    }, member


def _check_turn(turn: object, member: str) -> Finding | None:
    if not isinstance(turn, dict):
        return Finding("data_type", f"turn {quote(turn)}", _TURN, member)
    if missing := [key for key in ("from", "value") if key not in turn]:
        keys = " and ".join(f'"{key}"' for key in missing)
        return Finding("message_missing_key", f"keys {quote(sorted(turn))}", f"add {keys}", member)
    if unknown := sorted(key for key in turn if key not in ("from", "value") and turn[key] is not None):
        found, advice = f"key {quote(unknown[0])}", "use only from, value"
        return Finding("message_unrecognized_key", found, advice, f"{member}.{unknown[0]}")
    if not isinstance(turn["from"], str) or turn["from"] not in _SPEAKERS:
        advice = f"write one of {', '.join(_SPEAKERS)}"
        return Finding("unrecognized_role", f"from {quote(turn['from'])}", advice, f"{member}.from")
    if not isinstance(turn["value"], str):
        found = f"value {quote(turn['value'])}"
        return Finding("missing_content", found, "write the value as a string", f"{member}.value")
    return None


def _read_instruction(row: Row, imported: Imported, *, answered: bool) -> list[_Turn]:
    """History, the question, and its answer where the row has one."""
    turns = _read_history(row.get("history"), imported)
    question = [
        _text(row, key, imported) for key in ("instruction", "input") if row.get(key) or key == "instruction"
    ]
    turns.append(({"role": "user", "content": "\n".join(question)}, "instruction"))
    if imported.data_format is not DataFormat.PREFERENCE and (answered or "output" in row):
        turns.append(({"role": "assistant", "content": _text(row, "output", imported)}, "output"))
    return turns


def _read_history(history: Any, imported: Imported) -> list[_Turn]:
    pairs = history or []
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        advice = 'write "history" as [[question, answer], …]'
        imported.findings.append(Finding("data_type", f"history {quote(history)}", advice, "history"))
        return []
    return [
        ({"role": role, "content": text}, f"history[{index}][{place}]")
        for index, pair in enumerate(pairs)
        for place, (role, text) in enumerate(zip(("user", "assistant"), pair, strict=True))
    ]


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)


def _with_system(turns: list[_Turn], row: Row, imported: Imported) -> list[_Turn]:
    """Conversation with the system message, which may be a separate member."""
    if not row.get("system"):
        return turns
    text = _text(row, "system", imported)
    if turns and turns[0][0].get("role") == "system":
        if turns[0][0].get("content") != text:
            found = "a system prompt beside the conversation, and another one in it"
            imported.findings.append(Finding("mixed_forms", found, "write one of them", "system"))
        return turns
    return [({"role": "system", "content": text}, "system"), *turns]


def _read_answer(row: Row, key: str, imported: Imported) -> list[_Turn]:
    """One of two answers: a turn or a message in ShareGPT, text in Alpaca."""
    answer = row.get(key)
    if isinstance(answer, str) and answer:
        return [({"role": "assistant", "content": answer}, key)]
    if isinstance(answer, dict):
        return [_read_turn(answer, key, imported)]
    found = f"{key} {quote(answer)}" if key in row else f"keys {quote(sorted(row))}"
    imported.findings.append(Finding(f"missing_{key}", found, f'write a "{key}" answer', key))
    return []


def _text(row: Row, key: str, imported: Imported) -> str:
    value = row.get(key)
    if isinstance(value, str):
        return value
    found = f"{key} {quote(value)}" if key in row else f"keys {quote(sorted(row))}"
    imported.findings.append(Finding(f"missing_{key}", found, f'write "{key}" as a string', key))
    return ""
