"""Evaluate stage: suites in, answers of all sides, committed report out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.layout import artifact_uri
from tunesmith_contract.policy import policy_digest
from tunesmith_contract.report import Artifact, EvaluationReport, MetricResult, Outcome, RunReport
from tunesmith_contract.run_config import EvaluateConfig, Metric, Side, Suite
from tunesmith_data.failures import DataError
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace

from .answers import AnswerStore
from .generation import Generator
from .items import EvaluationItem, build_prompt, choose_examples, items_digest, limit_items, read_items
from .metrics import BINARY_METRICS, score
from .sides import LoadedSides, load_sides
from .statistics import difference_interval, difference_p_value, mean_interval

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


def evaluate(
    config: EvaluateConfig, storage: Storage, workspace: Workspace, progress: ProgressReporter
) -> RunReport:
    """Run the stage and commit its report.

    Raises:
        StageError: an artifact, the data or the base model do not fit the run.
        Preempted: the pod received SIGTERM; the answers so far are on disk.
    """
    suites = [
        SuiteItems(
            suite, limit_items(_read_dataset(suite.dataset, storage, suite.metrics), suite, config.seed)
        )
        for suite in config.suites
    ]
    pool = _read_dataset(config.few_shot_from, storage) if config.few_shot_from is not None else []
    sides = load_sides(config.base_model, config.sides, storage)
    suite_answers = _answer_all(config, sides, suites, pool, workspace, progress)
    report = _build_report(config, workspace, sides.revision, suite_answers)
    workspace.commit(report)
    return report


def _read_dataset(uri: str, storage: Storage, metrics: Sequence[Metric] = ()) -> list[EvaluationItem]:
    return read_items(storage.dataset_file(uri), uri.rpartition("/")[2], metrics)


def _answer_all(
    config: EvaluateConfig,
    sides: LoadedSides,
    suites: Sequence[SuiteItems],
    pool: Sequence[EvaluationItem],
    workspace: Workspace,
    progress: ProgressReporter,
) -> list[SuiteAnswers]:
    """Answers of all sides to all items."""
    tested = [item for questions in suites for item in questions.items]
    all_answers = [SuiteAnswers(questions, {}) for questions in suites]
    total = len(config.sides) * len(tested)
    done = 0
    progress.update(done, total)
    for side in config.sides:
        examples = choose_examples(pool, tested, side.few_shot, config.seed)
        for suite_answers in all_answers:
            before = done

            def report_progress(count: int, before: int = before) -> None:
                progress.update(before + count, total)

            suite_answers.answers[side.name] = answer_suite(
                sides, side, suite_answers.questions, examples, workspace.answers, report_progress
            )
            workspace.push(workspace.answers)
            done += len(suite_answers.questions.items)
    return all_answers


def answer_suite(
    sides: LoadedSides,
    side: Side,
    questions: SuiteItems,
    examples: Sequence[EvaluationItem],
    folder: Path,
    on_progress: Callable[[int], None],
) -> dict[str, str]:
    """Answers of one side to one suite by item digest; those already on disk are not generated again.

    Args:
        sides: the loaded models.
        side: the side that answers.
        questions: the suite and its items.
        examples: few-shot examples.
        folder: folder of the answer files.
        on_progress: receives the number of answers of this suite so far.

    Raises:
        DataError: a prompt is longer than the model's context.
        Preempted: raised by ``on_progress``; the answers so far are on disk.
    """
    store = AnswerStore(folder / f"{_answers_key(sides, side, questions, examples)}.jsonl")
    unanswered = [item for item in questions.items if item.digest not in store.answers]
    prompts = [_encode(sides, side, questions.suite, item, examples) for item in unanswered]
    with sides.activate(side) as model:
        generator = Generator(model, sides.renderer.tokenizer)
        for batch in generator.answer(prompts, questions.suite.max_new_tokens):
            store.add({unanswered[index].digest: text for index, text in batch.items()})
            on_progress(len(store.answers))
    return store.answers


def _encode(
    sides: LoadedSides, side: Side, suite: Suite, item: EvaluationItem, examples: Sequence[EvaluationItem]
) -> list[int]:
    """Token ids of a prompt.

    Raises:
        DataError: prompt and answer do not fit into the model's context.
    """
    prompt = build_prompt(item, side, examples, sides.renderer)
    is_text = item.messages is None
    ids: list[int] = sides.renderer.tokenizer(prompt, add_special_tokens=is_text)["input_ids"]
    limit = sides.context_length - suite.max_new_tokens
    if sides.context_length and len(ids) > limit:
        message = (
            f"suite {suite.name}, line {item.line}: the prompt of side {side.name} has {len(ids):,} tokens, "
            f"but the model has room for {max(limit, 0):,} beside the answer: lower fewShot or maxNewTokens"
        )
        raise DataError("PromptTooLong", message)
    return ids


def _answers_key(
    sides: LoadedSides, side: Side, questions: SuiteItems, examples: Sequence[EvaluationItem]
) -> str:
    """Digest of all that an answer depends on: base model, side, suite and examples."""
    parts = {
        "revision": sides.revision,
        "side": side.to_dict(),
        "suite": questions.suite.to_dict(),
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
            _compare(answers, metric, names, config)
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
        metric=metric,
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
            "scores": {str(metric): score(metric, text, item.expected) for metric in suite.metrics},
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
