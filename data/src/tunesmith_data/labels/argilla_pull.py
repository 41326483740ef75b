"""Items and answers read from an Argilla dataset."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunesmith_data.failures import DataError, UserError
from tunesmith_data.rows.findings import quote

from .argilla_push import ITEM_METADATA, DatasetName, find_dataset, find_workspace, require_questions
from .task_items import LabelItem, require_one_task
from .votes import LabelAnswers, Vote

if TYPE_CHECKING:
    import argilla

_BATCH = 250


def pull_answers(client: "argilla.Argilla", target: DatasetName) -> LabelAnswers:
    """Read a dataset with the answers of all annotators.

    Raises:
        UserError: there is no such dataset, or its questions don't fit its records.
        DataError: it holds records that were not pushed from here.
    """
    workspace = find_workspace(client, target.workspace)
    dataset = find_dataset(workspace, target.name)
    if dataset is None:
        there = ", ".join(sorted(dataset.name for dataset in workspace.datasets)) or "none"
        message = (
            f"there is no dataset {target.name}: name one of those there are ({there}), or push rows to it"
        )
        raise UserError("DatasetNotFound", message)
    items: dict[str, LabelItem] = {}
    votes: list[Vote] = []
    names = _AnnotatorNames(client, workspace)
    for record in _records(client, dataset):
        item = _item(record, target.name)
        items[item.id] = item
        votes += _votes(record, item, names)
    require_one_task(list(items.values()), f"dataset {target.name}")
    require_questions(dataset, next(iter(items.values())).task)
    return LabelAnswers(items, tuple(votes))


def _records(client: "argilla.Argilla", dataset: "argilla.Dataset") -> Iterator[Any]:
    """All records as the server sends them: ``dataset.records`` leaves out what people discarded."""
    offset = 0
    while batch := client.api.records.list(
        dataset.id, offset=offset, limit=_BATCH, with_suggestions=False, with_responses=True
    ):
        yield from batch
        offset += len(batch)


def _item(record: Any, dataset: str) -> LabelItem:
    text = next((member.value for member in record.metadata if member.name == ITEM_METADATA), None)
    try:
        return LabelItem.model_validate_json(text or "")
    except ValueError as error:
        description = (
            f"dataset {dataset} holds record {quote(str(record.external_id))}, which was not pushed from here"
        )
        raise DataError(
            "ForeignRecords", f"{description}: delete it, or push rows to a dataset of their own"
        ) from error


def _votes(record: Any, item: LabelItem, names: "_AnnotatorNames") -> Iterator[Vote]:
    for response in record.responses or []:
        if response.status.value == "draft":
            continue
        values = {name: answer["value"] for name, answer in (response.values or {}).items()}
        value = values.get(item.task.column)
        answered = response.status.value != "discarded" and value is not None and bool(str(value).strip())
        answer, comment = str(value) if answered else None, str(values.get("comment") or "").strip()
        yield Vote(item.id, names.of(response.user_id), answer, comment)


class _AnnotatorNames:
    """Names of annotators, or their ids where the key has no access to names."""

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
