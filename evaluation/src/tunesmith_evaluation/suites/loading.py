"""Items of suites of all kinds: own data, the built-in safety suites, tasks of lm-evaluation-harness."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith_contract.evaluation import HarnessTask, Metric, Side, Suite
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.failures import DataError, UserError
from tunesmith_data.pod.storage import Storage
from tunesmith_evaluation.items.item import EvaluationItem, group_repeated_questions, make_item
from tunesmith_evaluation.items.reading import read_items
from tunesmith_evaluation.metrics.scorer import Scorer

from .safety import PLAIN_STOP, read_safety_items

if TYPE_CHECKING:
    from .harness.task_items import TaskItems, TaskQuestion


@dataclass(frozen=True, slots=True)
class SuiteItems:
    """Items of a suite.

    Attributes:
        suite: the suite; stop strings may have been added to its decoding.
        items: all items of its data, in their order, without repeated ones.
        scorers: scorers of its metrics by key; a metric ``ContainerScore`` has none.
        definition: digest of a task's definition; empty for other kinds.
        repeated: number of rows left out because they repeat another one.
        task: questions of a task, by the rows of its items; None for other kinds, whose items are the questions.
    """

    suite: Suite
    items: Sequence[EvaluationItem]
    scorers: Mapping[str, Scorer]
    definition: str = ""
    repeated: int = 0
    task: "TaskItems | None" = None

    @property
    def needs_likelihood(self) -> bool:
        """True if sides must give the likelihood of given answers, which endpoints of the chat API can't."""
        if self.task is not None:
            return self.task.needs_likelihood
        return any(scorer.needs_likelihood for scorer in self.scorers.values())

    def task_questions(
        self, side: Side, sampled: Sequence[EvaluationItem]
    ) -> "dict[str, tuple[TaskQuestion, ...]]":
        """Questions of a task to one side by the item's digest; the answers belong in their order.

        Worked examples are the task's own (``HarnessTask.few_shot``), the same for all sides. A side's number of
        examples and its column of passages are for own data.

        Args:
            side: the side that answers.
            sampled: all items that the suite asks, also those that other pods ask: examples are drawn in their order.
        """
        assert self.task is not None and self.suite.harness is not None
        chat = self.suite.harness.chat_template
        asked = self.task.requests(
            [item.line for item in sampled], chat=chat, system_prompt=side.system_prompt
        )
        arguments = dict(side.asked_switches) if chat else {}
        return {
            item.digest: tuple(question.with_template_arguments(arguments) for question in asked[item.line])
            for item in sampled
        }


def load_suite(
    suite: Suite,
    config: EvaluateConfig,
    storage: Storage,
    scorers: Mapping[str, Scorer],
    *,
    plain: bool = False,
) -> SuiteItems:
    """Items of a suite of any kind.

    Args:
        suite: the suite.
        config: the run.
        storage: access to its data.
        scorers: scorers of its metrics by key, without ``TaskScore`` and ``ContainerScore``.
        plain: a side's model has no chat template: built-in questions are asked in plain text.

    Raises:
        DataError: it has no rows, a row fails a check, or a metric can't score it.
        UserError: its data does not exist, or its task or a metric does not fit.
    """
    _check_metrics(suite)
    if suite.is_safety:
        items = read_safety_items(suite, plain=plain)
        return SuiteItems(_with_stop(suite) if plain else suite, items, scorers)
    if suite.harness is not None:
        return _load_task(suite, suite.harness, config, storage, scorers)
    if suite.dataset is None:
        message = f"suite {suite.name} names no items: write dataset, or the task of a harness"
        raise UserError("SuiteWithoutItems", message)
    contexts = list(dict.fromkeys(side.context_column for side in config.sides if side.context_column))
    read = read_items(storage.dataset_files(suite.dataset), suite, scorers, contexts)
    return SuiteItems(suite, read.items, scorers, repeated=read.repeated)


def check_sides(suites: Iterable[SuiteItems], sides: Sequence[Side]) -> None:
    """Check that candidate and baseline can be asked what the suites need.

    Raises:
        UserError: a suite needs likelihoods, which endpoints and stored answers don't have.
    """
    for suite in suites:
        for side in sides[:2]:
            if suite.needs_likelihood and (side.endpoint or side.answers):
                kind = "an endpoint" if side.endpoint else "stored answers"
                message = (
                    f"suite {suite.suite.name} compares likelihoods of given answers, which side {side.name}, {kind}, "
                    "does not tell: choose a task that generates answers, metrics of text, or a side with weights"
                )
                raise UserError("LikelihoodUnavailable", message)


def _check_metrics(suite: Suite) -> None:
    """Check that metrics of special suites stand in such suites alone."""
    kinds = {
        Metric.SAFE_ANSWER: (
            suite.is_safety or suite.dataset is not None,
            "belongs to the built-in safety suites",
        ),
        Metric.TASK_SCORE: (suite.harness is not None, "needs a harness task: write harness"),
        Metric.CONTAINER_SCORE: (suite.container is not None, "needs a container: write container"),
    }
    for metric in suite.metrics:
        fits, advice = kinds.get(metric.type, (True, ""))
        if not fits:
            raise UserError("UnsuitableMetric", f"suite {suite.name}: metric {metric.key} {advice}")
    if suite.container is not None and all(metric.type != Metric.CONTAINER_SCORE for metric in suite.metrics):
        message = (
            f"suite {suite.name} has a container whose scores nothing uses: add the metric ContainerScore"
        )
        raise UserError("UnsuitableMetric", message)


def _with_stop(suite: Suite) -> Suite:
    decoding = suite.decoding.model_copy(update={"stop": (*suite.decoding.stop, PLAIN_STOP)})
    return suite.model_copy(update={"decoding": decoding})


def _load_task(
    suite: Suite,
    harness: HarnessTask,
    config: EvaluateConfig,
    storage: Storage,
    scorers: Mapping[str, Scorer],
) -> SuiteItems:
    """Items of a task. What its metrics don't score, such as the likelihood of choices, is no text of an answer."""
    # The library takes seconds to load, which suites of other kinds need not wait for.
    from .harness.definition import code_digest, load_task
    from .harness.task_items import TaskItems

    data, include = (uri and storage.file_or_folder(uri) for uri in (harness.data, harness.include))
    loaded = load_task(harness, data or None, include or None, config.seed, storage.scratch / "harness")
    code = code_digest(include or None)
    task = TaskItems(loaded, config.seed, suite.decoding.max_new_tokens, code)
    if task.needs_likelihood and scorers:
        message = (
            f"suite {suite.name}: task {harness.task} compares likelihoods, so there is no answer for "
            f"{', '.join(scorers)}: use TaskScore alone"
        )
        raise UserError("UnsuitableMetric", message)
    own = {
        metric.key: task.scorer(metric.task_metric)
        for metric in suite.metrics
        if metric.type == Metric.TASK_SCORE
    }
    items = [
        _task_item(suite, harness, task, line, digest)
        for line, digest in zip(task.lines, task.digests, strict=True)
    ]
    return SuiteItems(
        suite,
        group_repeated_questions(items),
        {**scorers, **own},
        task.definition_digest,
        task.repeated,
        task,
    )


def _task_item(
    suite: Suite, harness: HarnessTask, task: "TaskItems", line: int, digest: str
) -> EvaluationItem:
    question, expected = task.question(line), task.expected(line)
    item = make_item(
        {"prompt": question.text, "completion": expected.text},
        file=harness.task,
        line=line,
        group=_column(suite, task, line, suite.group_column) if suite.group_column else None,
        slices={column: _column(suite, task, line, column) for column in suite.slice_columns},
    )
    # Two rows may ask the same and differ in the answers to choose from.
    return replace(item, digest=digest, expected=expected)


def _column(suite: Suite, task: "TaskItems", line: int, column: str) -> str:
    value: Any = task.value(line, column)
    if value is None or isinstance(value, dict | list):
        message = f"suite {suite.name}: row {line} of the task has no text or number in {column}: write another column"
        raise DataError("MissingColumn", message)
    return str(value)
