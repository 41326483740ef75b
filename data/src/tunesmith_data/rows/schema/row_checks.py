"""Format checks of rows, with advice for each finding."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.sources import DataFormat
from tunesmith_data.rows.findings import Finding, quote

from .canonical import preference_parts
from .formats import ANY, IMPORTED, Purpose, Row
from .imported_formats import import_row
from .messages import check_messages, read_tools, role_of

_MESSAGES = '[{"role": …, "content": …}, …]'


def check_row(row: object, data_format: DataFormat, purpose: Purpose = ANY) -> list[Finding]:
    """Findings for a row; empty if it is valid."""
    if not isinstance(row, dict):
        return [Finding("data_type", quote(row), "write a JSON object per row")]
    if data_format in IMPORTED:
        return _check_imported(row, data_format, purpose)
    match data_format:
        case DataFormat.CHAT:
            findings = list(_check_chat(row, answered=not purpose.prompts_only))
        case DataFormat.TEXT:
            findings = list(_check_text(row, "text", "write what is to be learned"))
        case DataFormat.PREFERENCE:
            findings = list(_check_preference(row))
        case DataFormat.PROMPT:
            findings = [*_check_prompt(row), *_check_answer(row)]
        case _:
            findings = list(_check_completion(row, labeled=data_format is DataFormat.UNPAIRED_PREFERENCE))
    return [*findings, *_check_tools(row)]


def _check_imported(row: Row, data_format: DataFormat, purpose: Purpose) -> list[Finding]:
    """Findings for an imported row, with members named as in the original."""
    imported = import_row(row, data_format, purpose)
    if imported.findings:
        return list(imported.findings)
    findings = check_row(imported.row, imported.data_format, purpose)
    return [replace(finding, member=imported.original_member(finding.member)) for finding in findings]


def row_digest(row: Row) -> str:
    """The digest of a row's content."""
    return sha256_digest(canonical_json(row))


def rows_digest(rows: Iterable[Row]) -> str:
    """Digest of a set of rows in canonical form; their order and repeated rows don't matter."""
    return sha256_digest(canonical_json(sorted({row_digest(row) for row in rows})))


def _check_chat(row: Row, *, answered: bool) -> Iterator[Finding]:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        found = quote(messages) if "messages" in row else f"keys {quote(sorted(row))}"
        advice = 'write "messages" as a list of {"role", "content"}'
        yield Finding("missing_messages_list", found, advice, "messages")
        return
    yield from check_messages(messages, "messages")
    roles = [role_of(message) for message in messages]
    if answered and "assistant" not in roles:
        advice = "add the assistant's message that is to be learned"
        yield Finding("example_missing_assistant_message", f"roles {quote(roles)}", advice, "messages")
    if roles == ["assistant"] and not answered:
        found, advice = "an answer without a question", "write what the user asks first"
        yield Finding("missing_prompt", found, advice, "messages")


def _check_tools(row: Row) -> Iterator[Finding]:
    if row.get("tools") is not None and read_tools(row["tools"]) is None:
        found = f"tools {quote(row['tools'])}"
        yield Finding("data_type", found, 'write "tools" as a list of JSON schemas', "tools")


def _check_text(row: Row, key: str, advice: str) -> Iterator[Finding]:
    """A member that has to be text with something in it."""
    if key not in row:
        yield Finding(f"missing_{key}", f"keys {quote(sorted(row))}", f'write a "{key}"', key)
    elif not isinstance(row[key], str):
        yield Finding(f"missing_{key}", f"{key} {quote(row[key])}", f'write "{key}" as a string', key)
    elif not row[key].strip():
        yield Finding(f"missing_{key}", f"an empty {key}", advice, key)


def _check_prompt(row: Row) -> Iterator[Finding]:
    """Findings of a prompt: it must be text, or messages that end before the assistant's turn."""
    prompt = row.get("prompt")
    if isinstance(prompt, list) and prompt:
        yield from check_messages(prompt, "prompt")
        if role_of(prompt[-1]) == "assistant":
            found = f"roles {quote([role_of(message) for message in prompt])}"
            advice = "end the prompt with the user's message"
            yield Finding("prompt_ends_with_answer", found, advice, f"prompt[{len(prompt) - 1}]")
    elif "prompt" not in row:
        yield Finding("missing_prompt", f"keys {quote(sorted(row))}", 'write a "prompt"', "prompt")
    elif not isinstance(prompt, str):
        advice = f'write "prompt" as a string or as {_MESSAGES}'
        yield Finding("missing_prompt", f"prompt {quote(prompt)}", advice, "prompt")


def _check_answer(row: Row) -> Iterator[Finding]:
    answer = row.get("answer")
    if answer is not None and not isinstance(answer, str):
        yield Finding("data_type", f"answer {quote(answer)}", 'write "answer" as a string', "answer")


def _check_completion(row: Row, *, labeled: bool) -> Iterator[Finding]:
    yield from _check_prompt(row)
    yield from _check_answer_member(row, "completion", row.get("prompt"))
    if labeled and not isinstance(row.get("label"), bool):
        found = f"label {quote(row['label'])}" if "label" in row else f"keys {quote(sorted(row))}"
        yield Finding("missing_label", found, 'write "label" as true (a good answer) or false', "label")


def _check_preference(row: Row) -> Iterator[Finding]:
    missing = [key for key in ("chosen", "rejected") if key not in row]
    if missing:
        for key in missing:
            yield Finding(f"missing_{key}", f"keys {quote(sorted(row))}", f'write a "{key}" answer', key)
        return
    prompt, chosen, rejected = preference_parts(row)
    parts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if prompt is None:
        found, advice = f"keys {quote(sorted(row))}", 'write a "prompt", or begin both answers with it'
        yield Finding("missing_prompt", found, advice, "prompt")
    else:
        yield from _check_prompt(parts)
    for key in ("chosen", "rejected"):
        yield from _check_answer_member(parts, key, prompt)
    if chosen == rejected:
        found, advice = f"chosen and rejected {quote(chosen)}", "write two different answers"
        yield Finding("same_answers", found, advice, "rejected")


def _check_answer_member(row: Row, key: str, prompt: Any) -> Iterator[Finding]:
    """Findings of an answer: it must be text if the prompt is, else messages with the assistant's first and last."""
    answer = row.get(key)
    if not isinstance(answer, list):
        yield from _check_text(row, key, "write the answer to be learned")
        if isinstance(prompt, list) and isinstance(answer, str):
            advice = f'write "{key}" as [{{"role": "assistant", "content": …}}], as the prompt is'
            yield Finding("mixed_forms", f"messages before {key} {quote(answer)}", advice, key)
        return
    yield from check_messages(answer, key)
    roles = [role_of(message) for message in answer]
    if not answer or roles[0] != "assistant" or roles[-1] != "assistant":
        advice = f'begin and end "{key}" with the assistant\'s message'
        yield Finding(f"missing_{key}", f"roles {quote(roles)}", advice, key)
    if isinstance(prompt, str):
        advice = f'write "prompt" as {_MESSAGES}, as "{key}" is, or both as strings'
        yield Finding("mixed_forms", f"prompt {quote(prompt)} before messages", advice, "prompt")
