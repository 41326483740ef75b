"""Argilla dataset with a record for each labeling task.

A record carries its task in its metadata, which no annotator sees. Its id is the item's, so pushing again changes what
is there, adds what is new, and leaves all answers as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith_data.failures import UserError

from .task_items import LabelItem
from .tasks import NO, TIE, YES, A, B, LabelTask, TaskKind

if TYPE_CHECKING:
    import argilla

#: The member of a record's metadata that holds its task.
ITEM_METADATA = "item"
_GUIDELINES_LIMIT = 10_000
_BATCH = 100
_SHOWN = {A: "Answer A is better", B: "Answer B is better", TIE: "Both are equal", YES: "Yes", NO: "No"}
_TITLES = {
    TaskKind.APPROVE: "Is this a good answer?",
    TaskKind.RATING: "How good is this answer? (1 is the worst)",
    TaskKind.PREFERENCE: "Which answer is better?",
    TaskKind.CLASSIFICATION: "Which label fits?",
    TaskKind.CORRECTION: "Write the answer as it should be",
}


@dataclass(frozen=True, slots=True)
class DatasetName:
    """A dataset on a server.

    Attributes:
        name: the dataset's.
        workspace: None for the only workspace that there is.
    """

    name: str
    workspace: str | None = None


@dataclass(frozen=True, slots=True)
class PushOptions:
    """Presentation of tasks to annotators.

    Attributes:
        guidelines: what people read before they begin; Markdown.
        min_submitted: answers after which an item counts as done.
        suggest: annotators see the row's own answer; it biases them.
    """

    guidelines: str = ""
    min_submitted: int = 1
    suggest: bool = False


def push_items(
    client: "argilla.Argilla", target: DatasetName, items: Sequence[LabelItem], options: PushOptions
) -> None:
    """Send tasks, into a dataset that is made unless it is there already.

    Raises:
        UserError: the dataset that is there asks something else; the workspace is missing.
    """
    task = items[0].task
    workspace = find_workspace(client, target.workspace)
    dataset = find_dataset(workspace, target.name)
    if dataset is None:
        dataset = _create(client, workspace, target.name, task, options)
    else:
        require_questions(dataset, task)
    dataset.records.log([_record(item, options) for item in items], batch_size=_BATCH)


def find_workspace(client: "argilla.Argilla", name: str | None) -> "argilla.Workspace":
    """The workspace of that name, or the only one.

    Raises:
        UserError: it isn't there, or there are several and none is named.
    """
    there = {workspace.name: workspace for workspace in client.workspaces}
    if name is None and len(there) == 1:
        return next(iter(there.values()))
    if name in there:
        return there[name]
    description = f"no workspace {name}" if name else f"{len(there)} workspaces"
    names = ", ".join(sorted(there)) or "none"
    raise UserError(
        "WorkspaceNotFound", f"the Argilla server has {description}: name one of those there are ({names})"
    )


def find_dataset(workspace: "argilla.Workspace", name: str) -> "argilla.Dataset | None":
    """The dataset with its settings; None if it isn't there."""
    dataset = next((dataset for dataset in workspace.datasets if dataset.name == name), None)
    return dataset.get() if dataset else None


def require_questions(dataset: "argilla.Dataset", task: LabelTask) -> None:
    """Check that the dataset has the question of the task.

    Raises:
        UserError: it has other questions.
    """
    question = dataset.settings.questions[task.column]
    choices = _choices(question) if question is not None else None
    if choices != task.choices:
        names = ", ".join(question.name for question in dataset.settings.questions)
        wanted = f"one of {', '.join(task.choices)}" if task.choices else "text"
        raise UserError(
            "LabelsDontFit",
            f"dataset {dataset.name} doesn't ask for a {task.kind} (its questions: {names}): "
            f'it needs a question "{task.column}" with {wanted}; push to a new dataset',
        )


def _choices(question: Any) -> tuple[str, ...]:
    """Choices of a question, as the task names them; empty for text."""
    if question.type in ("label_selection", "multi_label_selection"):
        return tuple(question.labels)
    return tuple(str(value) for value in question.values) if question.type == "rating" else ()


def _create(
    client: "argilla.Argilla",
    workspace: "argilla.Workspace",
    name: str,
    task: LabelTask,
    options: PushOptions,
) -> "argilla.Dataset":
    import argilla

    settings = argilla.Settings(
        guidelines=_guidelines(options.guidelines),
        fields=_fields(task),
        questions=[_question(task), argilla.TextQuestion("comment", required=False)],
        metadata=[
            argilla.TermsMetadataProperty("file", visible_for_annotators=False),
            argilla.IntegerMetadataProperty("line", visible_for_annotators=False),
        ],
        # The task itself: stored, neither searched nor shown.
        allow_extra_metadata=True,
        distribution=argilla.TaskDistribution(min_submitted=options.min_submitted),
    )
    return argilla.Dataset(name, workspace=workspace, settings=settings, client=client).create()


def _guidelines(text: str) -> str | None:
    if len(text) > _GUIDELINES_LIMIT:
        length = f"{len(text):,} characters of guidelines"
        raise UserError(
            "GuidelinesTooLong", f"{length} are more than Argilla's {_GUIDELINES_LIMIT:,}: shorten them"
        )
    return text or None


def _fields(task: LabelTask) -> "list[argilla.TextField]":
    import argilla

    names = {
        TaskKind.PREFERENCE: ("prompt", "answer_a", "answer_b"),
        TaskKind.CLASSIFICATION: ("prompt",),
    }.get(task.kind, ("prompt", "answer"))
    titles = {"answer_a": "Answer A", "answer_b": "Answer B"}
    # Not required: a prompt may be empty. No Markdown: a row must not load pictures from anywhere.
    return [
        argilla.TextField(name, title=titles.get(name, name.capitalize()), required=False, use_markdown=False)
        for name in names
    ]


def _question(task: LabelTask) -> Any:
    import argilla

    title = _TITLES[task.kind]
    match task.kind:
        case TaskKind.CORRECTION:
            return argilla.TextQuestion(task.column, title=title)
        case TaskKind.RATING:
            return argilla.RatingQuestion(task.column, [int(choice) for choice in task.choices], title=title)
    return argilla.LabelQuestion(
        task.column, {choice: _SHOWN.get(choice, choice) for choice in task.choices}, title=title
    )


def _record(item: LabelItem, options: PushOptions) -> "argilla.Record":
    import argilla

    suggested = _suggestion(item) if options.suggest or item.task.kind is TaskKind.CORRECTION else None
    return argilla.Record(
        id=item.id,
        fields={"prompt": item.prompt, **item.answers},
        metadata={"file": item.file, "line": item.line, ITEM_METADATA: item.to_json()},
        suggestions=[argilla.Suggestion(item.task.column, suggested)] if suggested else [],
    )


def _suggestion(item: LabelItem) -> str | None:
    """Answer that the row already has."""
    match item.task.kind:
        case TaskKind.PREFERENCE:
            return B if item.flipped else A
        case TaskKind.CLASSIFICATION:
            return item.answer if item.answer in item.task.labels else None
        case TaskKind.CORRECTION:
            return item.answer
        case TaskKind.APPROVE if "label" in item.row:
            return YES if item.row["label"] else NO
    return None
