"""The evaluate stage, from items to a committed report."""

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
from .items import Item, build_prompt, choose_examples, items_digest, limit_items, read_items
from .metrics import BINARY, score
from .sides import Contestants, load_contestants
from .statistics import difference_interval, difference_p_value, mean_interval

ITEMS_FILE = "items.jsonl"


@dataclass(frozen=True, slots=True)
class Questions:
    """A suite with the items that are asked."""

    suite: Suite
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Answered:
    """A suite with what each side answered: side name to item digest to text."""

    questions: Questions
    answers: dict[str, dict[str, str]]

    def scores(self, side: str, metric: Metric) -> list[float]:
        """A side's scores in the order of the items."""
        texts = self.answers[side]
        return [score(metric, texts[item.digest], item.expected) for item in self.questions.items]


def evaluate(
    config: EvaluateConfig, storage: Storage, workspace: Workspace, progress: ProgressReporter
) -> RunReport:
    """Run the stage.

    Raises:
        StageError: an artefact, the data or the model is not what the run needs.
    """
    suites = [_questions(suite, config.seed, storage) for suite in config.suites]
    pool = _example_pool(config, storage)
    contestants = load_contestants(config.base_model, config.sides, storage)
    answered = _answer_all(config, contestants, suites, pool, workspace, progress)
    report = _report(config, workspace, contestants.revision, answered)
    workspace.commit(report)
    return report


def _questions(suite: Suite, seed: int, storage: Storage) -> Questions:
    name = suite.dataset.rpartition("/")[2]
    items = read_items(storage.dataset_file(suite.dataset), name, suite.metrics)
    return Questions(suite, limit_items(items, suite, seed))


def _example_pool(config: EvaluateConfig, storage: Storage) -> list[Item]:
    if config.few_shot_from is None:
        return []
    return read_items(storage.dataset_file(config.few_shot_from), config.few_shot_from.rpartition("/")[2])


def _answer_all(
    config: EvaluateConfig,
    contestants: Contestants,
    suites: Sequence[Questions],
    pool: Sequence[Item],
    workspace: Workspace,
    progress: ProgressReporter,
) -> list[Answered]:
    """Every side's answer to every item."""
    tested = [item for questions in suites for item in questions.items]
    answered = [Answered(questions, {}) for questions in suites]
    total = len(config.sides) * len(tested)
    done = 0
    progress.update(done, total)
    for side in config.sides:
        examples = choose_examples(pool, tested, side.few_shot, config.seed)
        for each in answered:
            before = done

            def report_progress(count: int, before: int = before) -> None:
                progress.update(before + count, total)

            each.answers[side.name] = answer_suite(
                contestants, side, each.questions, examples, workspace.answers, report_progress
            )
            workspace.push(workspace.answers)
            done += len(each.questions.items)
    return answered


def answer_suite(
    contestants: Contestants,
    side: Side,
    questions: Questions,
    examples: Sequence[Item],
    folder: Path,
    on_progress: Callable[[int], None],
) -> dict[str, str]:
    """One side's answers to one suite by item digest; those already on disk are not asked again."""
    store = AnswerStore(folder / f"{_answers_key(contestants, side, questions, examples)}.jsonl")
    open_items = [item for item in questions.items if item.digest not in store.answers]
    prompts = [_encode(contestants, side, questions.suite, item, examples) for item in open_items]
    with contestants.as_side(side) as model:
        generator = Generator(model, contestants.renderer.tokenizer)
        for batch in generator.answer(prompts, questions.suite.max_new_tokens):
            store.add({open_items[index].digest: text for index, text in batch.items()})
            on_progress(len(store.answers))
    return store.answers


def _encode(
    contestants: Contestants, side: Side, suite: Suite, item: Item, examples: Sequence[Item]
) -> list[int]:
    prompt = build_prompt(item, side, examples, contestants.renderer)
    is_text = item.messages is None
    ids: list[int] = contestants.renderer.tokenizer(prompt, add_special_tokens=is_text)["input_ids"]
    room = contestants.context - suite.max_new_tokens
    if contestants.context and len(ids) > room:
        message = (
            f"suite {suite.name}, line {item.line}: the prompt of side {side.name} has {len(ids):,} tokens, "
            f"but the model has room for {max(room, 0):,} beside the answer: lower fewShot or maxNewTokens"
        )
        raise DataError("PromptTooLong", message)
    return ids


def _answers_key(contestants: Contestants, side: Side, questions: Questions, examples: Sequence[Item]) -> str:
    """What an answer depends on."""
    parts = {
        "revision": contestants.revision,
        "side": side.to_dict(),
        "suite": questions.suite.to_dict(),
        "examples": [example.digest for example in examples],
    }
    return sha256_digest(canonical_json(parts)).removeprefix("sha256:")


def _report(
    config: EvaluateConfig, workspace: Workspace, revision: str, answered: Sequence[Answered]
) -> RunReport:
    data_digests = {each.questions.suite.name: items_digest(each.questions.items) for each in answered}
    names = tuple(side.name for side in config.sides)
    evaluation = EvaluationReport(
        sides=names,
        results=tuple(
            _compare(each, metric, names, config)
            for each in answered
            for metric in each.questions.suite.metrics
        ),
        policy_digest=policy_digest(config.policy, data_digests),
        base_model_revision=revision,
        details=_place_details(workspace, answered, names),
    )
    return RunReport(stage="evaluate", outcome=Outcome.SUCCEEDED, evaluation=evaluation)


def _compare(each: Answered, metric: Metric, names: Sequence[str], config: EvaluateConfig) -> MetricResult:
    scores = [each.scores(name, metric) for name in names]
    binary = metric in BINARY
    return MetricResult(
        suite=each.questions.suite.name,
        metric=metric,
        items=len(each.questions.items),
        scores=tuple(mean_interval(values, config.confidence, binary=binary) for values in scores),
        delta=difference_interval(scores[0], scores[1], config.confidence, binary=binary),
        p_value=difference_p_value(scores[0], scores[1], binary=binary, seed=config.seed),
    )


def _place_details(workspace: Workspace, answered: Sequence[Answered], names: Sequence[str]) -> Artifact:
    """Write every item with all answers and scores below the digest of that file."""
    data = b"".join(
        canonical_json(_detail(each, item, names)) + b"\n"
        for each in answered
        for item in each.questions.items
    )
    digest = sha256_digest(data)
    uri = artifact_uri(workspace.work, digest).join(ITEMS_FILE)
    workspace.write(uri, data)
    return Artifact(uri=str(uri), digest=digest, size_bytes=len(data))


def _detail(each: Answered, item: Item, names: Sequence[str]) -> dict[str, object]:
    suite = each.questions.suite
    answers = {
        name: {
            "text": (text := each.answers[name][item.digest]),
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
