"""Evaluate stage: suites in, answers of all sides, committed report out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.evaluation import Metric, Side, Suite
from tunesmith_contract.layout import artifact_uri
from tunesmith_contract.policy import policy_digest
from tunesmith_contract.report import Artifact, EvaluationReport, MetricResult, Outcome, RunReport
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.failures import DataError
from tunesmith_data.models.inspection import load_config
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_evaluation.items.items import (
    EvaluationItem,
    build_prompt,
    choose_examples,
    items_digest,
    limit_items,
    read_items,
)
from tunesmith_evaluation.metrics.text_metrics import BINARY_METRICS, score
from tunesmith_evaluation.models.model_processes import ModelProcesses
from tunesmith_evaluation.models.placement import choose_placements, gpu_sizes, measure_model
from tunesmith_evaluation.models.side_models import SideModels
from tunesmith_evaluation.models.sides import VerifiedSides, padded_tokenizer, verify_sides
from tunesmith_evaluation.statistics.kinds import ScoreKind

from .answers import AnswerStore

ITEMS_FILE = "items.jsonl"


@dataclass(frozen=True, slots=True)
class SuiteItems:
    """Suite with its sampled items."""

    suite: Suite
    items: list[EvaluationItem]


@dataclass(frozen=True, slots=True)
class SuiteAnswers:
    """Answers of all sides to a suite.

    Attributes:
        questions: the suite and its items.
        answers: text by name of the side and digest of the item.
    """

    questions: SuiteItems
    answers: dict[str, dict[str, str]]

    def scores(self, side: str, metric: Metric) -> list[float]:
        """Scores of one side in the order of the items."""
        texts = self.answers[side]
        return [score(metric, texts[item.digest], item.expected) for item in self.questions.items]


@dataclass(frozen=True, slots=True)
class SideQuestions:
    """Questions of a suite that one side has not answered yet.

    Attributes:
        side: name of the side.
        suite: the suite.
        store: answers of the side, those of earlier attempts included.
        answered: number of the suite's items with an answer of an earlier attempt.
        items: the items without one.
        prompts: their prompts, as token ids.
    """

    side: str
    suite: Suite
    store: AnswerStore
    answered: int
    items: list[EvaluationItem]
    prompts: list[list[int]]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and its answer."""
        return max(map(len, self.prompts), default=0) + self.suite.decoding.max_new_tokens


def evaluate(
    config: EvaluateConfig, storage: Storage, workspace: Workspace, progress: ProgressReporter
) -> RunReport:
    """Run the stage and commit its report.

    Raises:
        StageError: an artifact, the data or the base model do not fit the run.
        Preempted: the pod received SIGTERM; the answers so far are on disk.
    """
    suites = [
        SuiteItems(suite, limit_items(_read_suite(suite, storage), suite, config.seed))
        for suite in config.suites
    ]
    pool = _read_dataset(config.few_shot_from, storage) if config.few_shot_from is not None else []
    sides = verify_sides(config.base_model or "", config.sides, storage)
    questions = _collect_questions(config, sides, suites, pool, workspace.answers)
    _answer_all(config, sides, questions, workspace, progress)
    by_name = {(group.side, group.suite.name): group.store.answers for group in questions}
    all_answers = [
        SuiteAnswers(
            suite_items, {side.name: by_name[side.name, suite_items.suite.name] for side in config.sides}
        )
        for suite_items in suites
    ]
    report = _build_report(config, workspace, sides.revision, all_answers)
    workspace.commit(report)
    return report


def _read_suite(suite: Suite, storage: Storage) -> list[EvaluationItem]:
    assert suite.dataset is not None
    return _read_dataset(suite.dataset, storage, [metric.type for metric in suite.metrics])


def _read_dataset(uri: str, storage: Storage, metrics: Sequence[Metric] = ()) -> list[EvaluationItem]:
    return read_items(storage.dataset_file(uri), uri.rpartition("/")[2], metrics)


def _collect_questions(
    config: EvaluateConfig,
    sides: VerifiedSides,
    suites: Sequence[SuiteItems],
    pool: Sequence[EvaluationItem],
    folder: Path,
) -> list[SideQuestions]:
    """Questions of all sides and suites, in an order in which every model is loaded once.

    Args:
        config: configuration of the stage.
        sides: folders of the models.
        suites: the suites with their items.
        pool: items from which examples are drawn.
        folder: folder of the answer files.

    Raises:
        DataError: a prompt is longer than the model's context.
    """
    tested = [item for suite_items in suites for item in suite_items.items]
    renderer = Renderer(padded_tokenizer(sides.base))
    context_length = getattr(load_config(sides.base), "max_position_embeddings", None) or 0
    questions = []
    for side in sides.loading_order(config.sides):
        examples = choose_examples(pool, tested, side.few_shot, config.seed)
        for suite_items in suites:
            suite = suite_items.suite
            key = _answers_key(sides.revision, side, suite, examples)
            store = AnswerStore(folder / f"{key}.jsonl")
            items = [item for item in suite_items.items if item.digest not in store.answers]
            answered = len(suite_items.items) - len(items)
            prompts = [_encode(renderer, context_length, side, suite, item, examples) for item in items]
            questions.append(SideQuestions(side.name, suite, store, answered, items, prompts))
    return questions


def _answer_all(
    config: EvaluateConfig,
    sides: VerifiedSides,
    questions: Sequence[SideQuestions],
    workspace: Workspace,
    progress: ProgressReporter,
) -> None:
    """Answer all open questions.

    Raises:
        Preempted: the pod received SIGTERM; the answers so far are on disk.
        StageError: memory does not suffice.
    """
    done = sum(group.answered for group in questions)
    total = done + sum(len(group.items) for group in questions)
    progress.update(done, total)
    if done == total:
        return
    with _open_models(config.gpus, sides, questions) as models:
        for group in filter(lambda group: group.items, questions):
            for batch in models.answer(group.side, group.prompts, group.suite.decoding.max_new_tokens):
                group.store.add({group.items[index].digest: text for index, text in batch.items()})
                done += len(batch)
                progress.update(done, total)
            workspace.push(workspace.answers)


@contextmanager
def _open_models(
    gpus: int, sides: VerifiedSides, questions: Sequence[SideQuestions]
) -> Iterator[SideModels | ModelProcesses]:
    """Models that answer, in this process or in one process per GPU.

    Raises:
        StageError: a model does not fit on the GPUs.
    """
    memory = measure_model(sides.base)
    longest = max(group.longest for group in questions if group.items)
    placements = choose_placements(memory, longest, gpu_sizes(gpus))
    # No process without work, where there are fewer items than GPUs.
    placements = placements[: max(len(group.items) for group in questions)]
    if len(placements) == 1:
        yield SideModels(sides, memory, placements[0])
        return
    with ModelProcesses(sides, memory, placements) as processes:
        yield processes


def _encode(
    renderer: Renderer,
    context_length: int,
    side: Side,
    suite: Suite,
    item: EvaluationItem,
    examples: Sequence[EvaluationItem],
) -> list[int]:
    """Token ids of a prompt.

    Args:
        renderer: renderer with the model's chat template.
        context_length: maximum number of positions; 0 if the model's configuration names none.
        side: the side that answers.
        suite: the suite of the item.
        item: the question.
        examples: few-shot examples.

    Raises:
        DataError: prompt and answer do not fit into the model's context.
    """
    prompt = build_prompt(item, side, examples, renderer)
    is_text = item.messages is None
    ids: list[int] = renderer.tokenizer(prompt, add_special_tokens=is_text)["input_ids"]
    limit = context_length - suite.decoding.max_new_tokens
    if context_length and len(ids) > limit:
        message = (
            f"suite {suite.name}, line {item.line}: the prompt of side {side.name} has {len(ids):,} tokens, "
            f"but the model has room for {max(limit, 0):,} beside the answer: lower fewShot or maxNewTokens"
        )
        raise DataError("PromptTooLong", message)
    return ids


def _answers_key(revision: str, side: Side, suite: Suite, examples: Sequence[EvaluationItem]) -> str:
    """Digest of all that an answer depends on: base model, side, suite and examples."""
    parts = {
        "revision": revision,
        "side": side.to_dict(),
        "suite": suite.to_dict(),
        "examples": [example.digest for example in examples],
    }
    return sha256_digest(canonical_json(parts)).removeprefix("sha256:")


def _build_report(
    config: EvaluateConfig, workspace: Workspace, revision: str, all_answers: Sequence[SuiteAnswers]
) -> RunReport:
    suites = [answers.questions for answers in all_answers]
    data_digests = {questions.suite.name: items_digest(questions.items) for questions in suites}
    names = tuple(side.name for side in config.sides)
    evaluation = EvaluationReport(
        sides=names,
        results=tuple(
            _compare(answers, metric.type, names, config)
            for answers in all_answers
            for metric in answers.questions.suite.metrics
        ),
        policy_digest=policy_digest(config.policy, data_digests),
        base_model_revision=revision,
        details=_write_details(workspace, all_answers, names),
    )
    return RunReport(stage="evaluate", outcome=Outcome.SUCCEEDED, evaluation=evaluation)


def _compare(
    answers: SuiteAnswers, metric: Metric, names: Sequence[str], config: EvaluateConfig
) -> MetricResult:
    scores = [answers.scores(name, metric) for name in names]
    binary = metric in BINARY_METRICS
    return MetricResult(
        suite=answers.questions.suite.name,
        metric=str(metric),
        items=len(answers.questions.items),
        scores=tuple(mean_interval(values, config.confidence, binary=binary) for values in scores),
        delta=difference_interval(scores[0], scores[1], config.confidence, binary=binary),
        p_value=difference_p_value(scores[0], scores[1], binary=binary, seed=config.seed),
    )


def _write_details(
    workspace: Workspace, all_answers: Sequence[SuiteAnswers], names: Sequence[str]
) -> Artifact:
    """Write a JSONL file of all items with answers and scores, under the digest of its content."""
    data = b"".join(
        canonical_json(_describe_item(answers, item, names)) + b"\n"
        for answers in all_answers
        for item in answers.questions.items
    )
    digest = sha256_digest(data)
    uri = artifact_uri(workspace.work, digest).join(ITEMS_FILE)
    workspace.write(uri, data)
    return Artifact(uri=str(uri), digest=digest, size_bytes=len(data))


def _describe_item(
    suite_answers: SuiteAnswers, item: EvaluationItem, names: Sequence[str]
) -> dict[str, object]:
    suite = suite_answers.questions.suite
    answers = {
        name: {
            "text": (text := suite_answers.answers[name][item.digest]),
            "scores": {metric.key: score(metric.type, text, item.expected) for metric in suite.metrics},
        }
        for name in names
    }
    question = {"prompt": item.text} if item.messages is None else {"messages": list(item.messages)}
    return {
        "suite": suite.name,
        "line": item.line,
        "digest": item.digest,
        **question,
        "expected": item.expected,
        "answers": answers,
    }
