"""Checks of rows: what is wrong with a row, and what to write instead."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.run_config import DataFormat
from tunesmith_data.rows.findings import Problem, quote

from .canonical import preference_parts
from .formats import ANY, IMPORTED, Purpose, Row
from .imported_formats import import_row
from .messages import check_messages, role_of
from .tools import read_tools

_MESSAGES = '[{"role": …, "content": …}, …]'


def check_row(row: object, data_format: DataFormat, purpose: Purpose = ANY) -> list[Problem]:
    """All that is wrong with a row; an empty list for a good one."""
    if not isinstance(row, dict):
        return [Problem("data_type", quote(row), "write a JSON object per row")]
    if data_format in IMPORTED:
        return _check_imported(row, data_format, purpose)
    match data_format:
        case DataFormat.CHAT:
            problems = list(_check_chat(row, answered=not purpose.prompts_only))
        case DataFormat.TEXT:
            problems = list(_check_text(row, "text", "write what is to be learned"))
        case DataFormat.PREFERENCE:
            problems = list(_check_preference(row))
        case DataFormat.PROMPT:
            problems = [*_check_prompt(row), *_check_answer(row)]
        case _:
            problems = list(_check_completion(row, labelled=data_format is DataFormat.UNPAIRED_PREFERENCE))
    return [*problems, *_check_tools(row)]


def _check_imported(row: Row, data_format: DataFormat, purpose: Purpose) -> list[Problem]:
    """What is wrong with a row as it is written, else with what becomes of it; members are named as written."""
    imported = import_row(row, data_format, purpose)
    if imported.problems:
        return list(imported.problems)
    problems = check_row(imported.row, imported.data_format, purpose)
    return [replace(each, member=imported.written_member(each.member)) for each in problems]


def row_digest(row: Row) -> str:
    """The digest of a row's content."""
    return sha256_digest(canonical_json(row))


def _check_chat(row: Row, *, answered: bool) -> Iterator[Problem]:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        found = quote(messages) if "messages" in row else f"keys {quote(sorted(row))}"
        advice = 'write "messages" as a list of {"role", "content"}'
        yield Problem("missing_messages_list", found, advice, "messages")
        return
    yield from check_messages(messages, "messages")
    roles = [role_of(message) for message in messages]
    if answered and "assistant" not in roles:
        advice = "add the assistant's message that is to be learned"
        yield Problem("example_missing_assistant_message", f"roles {quote(roles)}", advice, "messages")
    if roles == ["assistant"] and not answered:
        found, advice = "an answer without a question", "write what the user asks first"
        yield Problem("missing_prompt", found, advice, "messages")


def _check_tools(row: Row) -> Iterator[Problem]:
    if row.get("tools") is not None and read_tools(row["tools"]) is None:
        found = f"tools {quote(row['tools'])}"
        yield Problem("data_type", found, 'write "tools" as a list of JSON schemas', "tools")


def _check_text(row: Row, key: str, advice: str) -> Iterator[Problem]:
    """A member that has to be text with something in it."""
    if key not in row:
        yield Problem(f"missing_{key}", f"keys {quote(sorted(row))}", f'write a "{key}"', key)
    elif not isinstance(row[key], str):
        yield Problem(f"missing_{key}", f"{key} {quote(row[key])}", f'write "{key}" as a string', key)
    elif not row[key].strip():
        yield Problem(f"missing_{key}", f"an empty {key}", advice, key)


def _check_prompt(row: Row) -> Iterator[Problem]:
    """A prompt: text, or messages that end where the assistant is to speak."""
    prompt = row.get("prompt")
    if isinstance(prompt, list) and prompt:
        yield from check_messages(prompt, "prompt")
        if role_of(prompt[-1]) == "assistant":
            found = f"roles {quote([role_of(message) for message in prompt])}"
            advice = "end the prompt with the user's message"
            yield Problem("prompt_ends_with_answer", found, advice, f"prompt[{len(prompt) - 1}]")
    elif "prompt" not in row:
        yield Problem("missing_prompt", f"keys {quote(sorted(row))}", 'write a "prompt"', "prompt")
    elif not isinstance(prompt, str):
        advice = f'write "prompt" as a string or as {_MESSAGES}'
        yield Problem("missing_prompt", f"prompt {quote(prompt)}", advice, "prompt")


def _check_answer(row: Row) -> Iterator[Problem]:
    answer = row.get("answer")
    if answer is not None and not isinstance(answer, str):
        yield Problem("data_type", f"answer {quote(answer)}", 'write "answer" as a string', "answer")


def _check_completion(row: Row, *, labelled: bool) -> Iterator[Problem]:
    yield from _check_prompt(row)
    yield from _check_said(row, "completion", row.get("prompt"))
    if labelled and not isinstance(row.get("label"), bool):
        found = f"label {quote(row['label'])}" if "label" in row else f"keys {quote(sorted(row))}"
        yield Problem("missing_label", found, 'write "label" as true (a good answer) or false', "label")


def _check_preference(row: Row) -> Iterator[Problem]:
    missing = [key for key in ("chosen", "rejected") if key not in row]
    if missing:
        for key in missing:
            yield Problem(f"missing_{key}", f"keys {quote(sorted(row))}", f'write a "{key}" answer', key)
        return
    prompt, chosen, rejected = preference_parts(row)
    parts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if prompt is None:
        found, advice = f"keys {quote(sorted(row))}", 'write a "prompt", or begin both answers with it'
        yield Problem("missing_prompt", found, advice, "prompt")
    else:
        yield from _check_prompt(parts)
    for key in ("chosen", "rejected"):
        yield from _check_said(parts, key, prompt)
    if chosen == rejected:
        found, advice = f"chosen and rejected {quote(chosen)}", "write two different answers"
        yield Problem("same_answers", found, advice, "rejected")


def _check_said(row: Row, key: str, prompt: Any) -> Iterator[Problem]:
    """An answer: text where the prompt is, else messages from the assistant's on to the assistant's."""
    said = row.get(key)
    if not isinstance(said, list):
        yield from _check_text(row, key, "write the answer to be learned")
        if isinstance(prompt, list) and isinstance(said, str):
            advice = f'write "{key}" as [{{"role": "assistant", "content": …}}], as the prompt is'
            yield Problem("mixed_forms", f"messages before {key} {quote(said)}", advice, key)
        return
    yield from check_messages(said, key)
    roles = [role_of(message) for message in said]
    if not said or roles[0] != "assistant" or roles[-1] != "assistant":
        advice = f'begin and end "{key}" with the assistant\'s message'
        yield Problem(f"missing_{key}", f"roles {quote(roles)}", advice, key)
    if isinstance(prompt, str):
        advice = f'write "prompt" as {_MESSAGES}, as "{key}" is, or both as strings'
        yield Problem("mixed_forms", f"prompt {quote(prompt)} before messages", advice, "prompt")
