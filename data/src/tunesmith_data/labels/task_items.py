"""A row as a task: what people see of it, and how it is found again when they have answered."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith_contract.base import Digest, Document, canonical_json
from tunesmith_contract.run_config import DataFormat
from tunesmith_data.failures import DataError
from tunesmith_data.rows.findings import Problem
from tunesmith_data.rows.reading import raise_findings, read_source
from tunesmith_data.rows.schema.formats import Row, describe_members
from tunesmith_data.rows.schema.row_checks import row_digest

from .row_answers import prompt_and_completion
from .tasks import TASK_FORMATS, Task, TaskKind


class Item(Document):
    """A row that people are asked about.

    Attributes:
        id: the digest of the row's content.
        task: what is asked.
        file, line: where the row was written.
        flipped: whether answer A is the one that the row rejects.
        row: in canonical form.
    """

    id: Digest
    task: Task
    file: str
    line: int
    flipped: bool = False
    row: dict[str, Any]

    @property
    def prompt(self) -> str:
        """What people see as the question."""
        if self.task.kind is TaskKind.PREFERENCE:
            return _shown(self.row["prompt"])
        return _shown(prompt_and_completion(self.row)[0])

    @property
    def answers(self) -> dict[str, str]:
        """What people see as the answer, or as the two of them, by the name of its column."""
        if self.task.kind is TaskKind.PREFERENCE:
            chosen, rejected = _shown(self.row["chosen"]), _shown(self.row["rejected"])
            first, second = (rejected, chosen) if self.flipped else (chosen, rejected)
            return {"answer_a": first, "answer_b": second}
        if self.task.kind is TaskKind.CLASSIFICATION:
            return {}
        return {"answer": self.answer}

    @property
    def answer(self) -> str:
        """The answer of a row of one answer; empty if it has none."""
        return _shown(prompt_and_completion(self.row)[1])


@dataclass(frozen=True, slots=True)
class Items:
    """The tasks of a file.

    Attributes:
        items: in the order of the file, each row once.
        repeated: rows that were left out because they say the same as an earlier one.
    """

    items: tuple[Item, ...]
    repeated: int


def read_items(path: Path, data_format: DataFormat, task: Task, seed: int) -> Items:
    """The rows of a file as tasks; which answer of a preference comes first depends on its row and the seed alone.

    Raises:
        DataError: the file or a row of it is wrong, or fits another task; the message says where.
    """
    source = read_source(path, data_format)
    if source.refused:
        raise_findings(list(source.findings))
    _require_format(path.name, source.data_format, task)
    findings: list[Any] = []
    items: dict[str, Item] = {}
    for each in source.rows:
        findings += [problem.at(each.file, each.line) for problem in _check(each.row, task)]
        item = build_item(each.row, task, each.file, each.line, seed)
        items.setdefault(item.id, item)
    if findings:
        raise_findings(findings)
    return Items(tuple(items.values()), len(source.rows) - len(items))


def build_item(row: Row, task: Task, file: str, line: int, seed: int) -> Item:
    """A canonical row as a task."""
    digest = row_digest(row)
    flipped = task.kind is TaskKind.PREFERENCE and _coin(digest, seed)
    return Item(id=digest, task=task, file=file, line=line, flipped=flipped, row=row)


def write_items(items: Sequence[Item]) -> bytes:
    """Tasks as JSON lines."""
    return b"".join(item.to_json().encode() + b"\n" for item in items)


def load_items(path: Path) -> dict[str, Item]:
    """The tasks that were written, by their ids.

    Raises:
        DataError: the file holds something else.
    """
    try:
        items = [Item.model_validate_json(line) for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError as error:
        message = f"{path} does not exist: name the file of rows that push wrote beside the sheet"
        raise DataError("RowsNotFound", message) from error
    except ValueError as error:
        message = f"{path} holds no tasks: name the file of rows that push wrote beside the sheet"
        raise DataError("WrongRows", message) from error
    require_one_task(items, str(path))
    return {item.id: item for item in items}


def require_one_task(items: Sequence[Item], where: str) -> None:
    """All tasks ask the same.

    Raises:
        DataError: there are none, or they differ.
    """
    if not items:
        raise DataError("NoTasks", f"{where} holds no tasks: push rows first")
    other = next((item for item in items if item.task != items[0].task), None)
    if other:
        found = f"{items[0].task.to_json()} and {other.task.to_json()}"
        raise DataError("MixedTasks", f"{where} holds tasks of two kinds ({found}): pull them one by one")


def _require_format(name: str, data_format: DataFormat, task: Task) -> None:
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


def _check(row: Row, task: Task) -> Iterator[Problem]:
    if task.kind in (TaskKind.PREFERENCE, TaskKind.CLASSIFICATION):
        return
    _, completion = prompt_and_completion(row)
    if not _shown(completion).strip():
        yield Problem("missing_completion", "no answer to judge", "write the answer as well")


def _coin(digest: str, seed: int) -> bool:
    return bool(hashlib.sha256(f"order:{seed}:{digest}".encode()).digest()[0] & 1)


def _shown(value: Any) -> str:
    """Text as it is; a lone message as what it says; several with who says it."""
    if isinstance(value, str):
        return value
    if len(value) == 1:
        return _said(value[0])
    return "\n\n".join(f"{message['role'].capitalize()}: {_said(message)}" for message in value)


def _said(message: Row) -> str:
    """What a message says; calls of tools as JSON."""
    calls = message.get("tool_calls")
    return "\n".join(filter(None, [message["content"], canonical_json(calls).decode() if calls else ""]))
