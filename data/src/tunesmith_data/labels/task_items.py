"""Labeling items: a row with its task, as people see it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith_contract.base import Digest, Document, canonical_json
from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import DataError
from tunesmith_data.rows.findings import Finding
from tunesmith_data.rows.reading import raise_findings, read_source
from tunesmith_data.rows.schema.formats import Row, describe_members
from tunesmith_data.rows.schema.row_checks import row_digest

from .row_answers import prompt_and_completion
from .tasks import TASK_FORMATS, LabelTask, TaskKind


class LabelItem(Document):
    """Row with its labeling task.

    Attributes:
        id: the digest of the row's content.
        task: task with the question to people.
        file, line: place of the row.
        flipped: answer A is the rejected answer of the row.
        row: in canonical form.
    """

    id: Digest
    task: LabelTask
    file: str
    line: int
    flipped: bool = False
    row: dict[str, Any]

    @property
    def prompt(self) -> str:
        """Prompt as annotators see it."""
        if self.task.kind is TaskKind.PREFERENCE:
            return _display_text(self.row["prompt"])
        return _display_text(prompt_and_completion(self.row)[0])

    @property
    def answers(self) -> dict[str, str]:
        """Answer or answers as annotators see them, by column name."""
        if self.task.kind is TaskKind.PREFERENCE:
            chosen, rejected = _display_text(self.row["chosen"]), _display_text(self.row["rejected"])
            first, second = (rejected, chosen) if self.flipped else (chosen, rejected)
            return {"answer_a": first, "answer_b": second}
        if self.task.kind is TaskKind.CLASSIFICATION:
            return {}
        return {"answer": self.answer}

    @property
    def answer(self) -> str:
        """Answer of a row with one answer; empty if it has none."""
        return _display_text(prompt_and_completion(self.row)[1])


@dataclass(frozen=True, slots=True)
class LabelItems:
    """The tasks of a file.

    Attributes:
        items: in the order of the file, each row once.
        repeated: rows that were left out because they say the same as an earlier one.
    """

    items: tuple[LabelItem, ...]
    repeated: int


def read_items(path: Path, data_format: DataFormat, task: LabelTask, seed: int) -> LabelItems:
    """Labeling items from a file; the order of a preference's answers depends only on row and seed.

    Raises:
        DataError: the file or one of its rows is invalid for the task; the message has the place.
    """
    source = read_source(path, data_format)
    if source.invalid:
        raise_findings(list(source.findings))
    _require_format(path.name, source.data_format, task)
    findings: list[Any] = []
    items: dict[str, LabelItem] = {}
    for source_row in source.rows:
        findings += [finding.at(source_row.file, source_row.line) for finding in _check(source_row.row, task)]
        item = build_item(source_row.row, task, source_row.file, source_row.line, seed)
        items.setdefault(item.id, item)
    if findings:
        raise_findings(findings)
    return LabelItems(tuple(items.values()), len(source.rows) - len(items))


def build_item(row: Row, task: LabelTask, file: str, line: int, seed: int) -> LabelItem:
    """A canonical row as a task."""
    digest = row_digest(row)
    flipped = task.kind is TaskKind.PREFERENCE and _is_flipped(digest, seed)
    return LabelItem(id=digest, task=task, file=file, line=line, flipped=flipped, row=row)


def write_items(items: Sequence[LabelItem]) -> bytes:
    """Tasks as JSON lines."""
    return b"".join(item.to_json().encode() + b"\n" for item in items)


def load_items(path: Path) -> dict[str, LabelItem]:
    """The tasks that were written, by their ids.

    Raises:
        DataError: the file holds something else.
    """
    try:
        items = [
            LabelItem.model_validate_json(line) for line in path.read_bytes().splitlines() if line.strip()
        ]
    except FileNotFoundError as error:
        message = f"{path} does not exist: name the file of rows that push wrote beside the sheet"
        raise DataError("RowsNotFound", message) from error
    except ValueError as error:
        message = f"{path} has no tasks: name the file of rows that push wrote beside the sheet"
        raise DataError("WrongRows", message) from error
    require_one_task(items, str(path))
    return {item.id: item for item in items}


def require_one_task(items: Sequence[LabelItem], where: str) -> None:
    """All tasks ask the same.

    Raises:
        DataError: there are none, or they differ.
    """
    if not items:
        raise DataError("NoTasks", f"{where} has no tasks: push rows first")
    other = next((item for item in items if item.task != items[0].task), None)
    if other:
        tasks = f"{items[0].task.to_json()} and {other.task.to_json()}"
        raise DataError("MixedTasks", f"{where} holds tasks of two kinds ({tasks}): pull them one by one")


def _require_format(name: str, data_format: DataFormat, task: LabelTask) -> None:
    formats = TASK_FORMATS[task.kind]
    if data_format in formats:
        return
    fitting = [kind.value for kind, others in TASK_FORMATS.items() if data_format in others]
    instead = f", or choose task {' or '.join(fitting)}" if fitting else ""
    raise DataError(
        "WrongFormat",
        f"task {task.kind} needs rows with {describe_members(formats)}: {name} holds {data_format} rows; "
        f"write such rows{instead}",
    )


def _check(row: Row, task: LabelTask) -> Iterator[Finding]:
    if task.kind in (TaskKind.PREFERENCE, TaskKind.CLASSIFICATION):
        return
    _, completion = prompt_and_completion(row)
    if not _display_text(completion).strip():
        yield Finding("missing_completion", "no answer to judge", "write the answer as well")


def _is_flipped(digest: str, seed: int) -> bool:
    return bool(hashlib.sha256(f"order:{seed}:{digest}".encode()).digest()[0] & 1)


def _display_text(value: Any) -> str:
    """Displayed text of a value: text, one message, or several with their roles."""
    if isinstance(value, str):
        return value
    if len(value) == 1:
        return _message_text(value[0])
    return "\n\n".join(f"{message['role'].capitalize()}: {_message_text(message)}" for message in value)


def _message_text(message: Row) -> str:
    """Text of a message; tool calls as JSON."""
    calls = message.get("tool_calls")
    return "\n".join(filter(None, [message["content"], canonical_json(calls).decode() if calls else ""]))
