"""What people answered on an Argilla server."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith_data.failures import DataError, UserError
from tunesmith_data.rows.findings import quote

from .argilla_push import ITEM_MEMBER, DatasetName, find_dataset, find_workspace, require_questions
from .task_items import Item, require_one_task
from .tasks import Task
from .votes import Vote

if TYPE_CHECKING:
    import argilla

_BATCH = 250


@dataclass(frozen=True)
class Answered:
    """The tasks of a dataset, by id, in the order in which they were pushed, and all answers to them.

    Drafts are no answers; what a person discarded counts as skipped.
    """

    items: dict[str, Item]
    votes: tuple[Vote, ...]


def pull_answers(client: "argilla.Argilla", target: DatasetName) -> Answered:
    """Read a dataset with the answers of all annotators.

    Raises:
        UserError: there is no such dataset, or its questions don't fit its records.
        DataError: it holds records that were not pushed from here.
    """
    workspace = find_workspace(client, target.workspace)
    dataset = find_dataset(workspace, target.name)
    if dataset is None:
        there = ", ".join(sorted(each.name for each in workspace.datasets)) or "none"
        message = (
            f"there is no dataset {target.name}: name one of those there are ({there}), or push rows to it"
        )
        raise UserError("DatasetNotFound", message)
    items: dict[str, Item] = {}
    votes: list[Vote] = []
    names = _Names(client, workspace)
    for record in _records(client, dataset):
        item = _item(record, target.name)
        items[item.id] = item
        votes += _votes(record, item, names)
    require_one_task(list(items.values()), f"dataset {target.name}")
    require_questions(dataset, next(iter(items.values())).task)
    return Answered(items, tuple(votes))


def _records(client: "argilla.Argilla", dataset: "argilla.Dataset") -> Iterator[Any]:
    """All records as the server sends them: ``dataset.records`` leaves out what people discarded."""
    offset = 0
    while batch := client.api.records.list(
        dataset.id, offset=offset, limit=_BATCH, with_suggestions=False, with_responses=True
    ):
        yield from batch
        offset += len(batch)


def _item(record: Any, dataset: str) -> Item:
    text = next((member.value for member in record.metadata if member.name == ITEM_MEMBER), None)
    try:
        return Item.model_validate_json(text or "")
    except ValueError as error:
        found = (
            f"dataset {dataset} holds record {quote(str(record.external_id))}, which was not pushed from here"
        )
        raise DataError(
            "ForeignRecords", f"{found}: delete it, or push rows to a dataset of their own"
        ) from error


def _votes(record: Any, item: Item, names: "_Names") -> Iterator[Vote]:
    for response in record.responses or []:
        if response.status.value == "draft":
            continue
        said = {name: answer["value"] for name, answer in (response.values or {}).items()}
        value = None if response.status.value == "discarded" else _value(said, item.task)
        yield Vote(item.id, names.of(response.user_id), value, str(said.get("comment") or "").strip())


def _value(said: dict[str, Any], task: Task) -> str | None:
    value = said.get(task.column)
    return None if value is None or not str(value).strip() else str(value)


class _Names:
    """Names of annotators, as far as the key may know them; else their ids."""

    def __init__(self, client: "argilla.Argilla", workspace: "argilla.Workspace") -> None:
        from argilla._exceptions import ForbiddenError  # the client exports its errors nowhere else

        try:
            users = client.users.list()
        except ForbiddenError:
            # An admin may list the users of the workspace alone; an owner may answer in any.
            users = client.users.list(workspace=workspace)
        self._names = {user.id: user.username for user in users}

    def of(self, user: Any) -> str:
        """The name of a user."""
        return str(self._names.get(user, user))
