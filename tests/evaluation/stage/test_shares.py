"""Several pods share the items of an evaluation: the same report as one pod, and no item answered twice."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from stages.stage_world import RowBuilders, World

from tunesmith_contract.report import EvaluationReport, RunReport
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.failures import InfrastructureError
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.share import Share, read_share
from tunesmith_data.pod.workspace import Workspace
from tunesmith_evaluation.items.requests import Reply, Request
from tunesmith_evaluation.models.transformers_answerer import TransformersAnswerer
from tunesmith_evaluation.stage import evaluate as stage_room
from tunesmith_evaluation.stage.evaluate import evaluate
from tunesmith_evaluation.stage.shares import Shares


class Told(ProgressReporter):
    """Progress that is kept."""

    def __init__(self) -> None:
        super().__init__({})
        self.updates: list[tuple[int, int, dict[str, Any]]] = []

    def update(self, done: int, total: int, **metrics: float | int | str) -> None:
        self.updates.append((done, total, metrics))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Number of answers by side and item."""
    counted: Counter[tuple[str, str]] = Counter()
    answer = TransformersAnswerer.answer

    def counting(self: TransformersAnswerer, requests: Sequence[Request]) -> Iterator[Sequence[Reply]]:
        for batch in answer(self, requests):
            counted.update(
                (reply.request.side, reply.request.item) for reply in batch if reply.answer is not None
            )
            yield batch

    monkeypatch.setattr(TransformersAnswerer, "answer", counting)
    return counted


def config_of(world: World, make: RowBuilders, uid: str, shards: int) -> EvaluateConfig:
    """Twelve items, one of them too long for the model."""
    rows = [*make.rows(11), make.row("word " * 3000, "x")]
    return world.evaluate_config(
        uid=uid,
        sides=[{"name": "a"}, {"name": "b", "systemPrompt": "Sort."}],
        suites=[
            {
                "name": "task",
                "dataset": world.write_rows("shared.jsonl", rows),
                "metrics": ["ExactMatch", "TokenF1"],
                "maxNewTokens": 4,
            }
        ],
        gates=[{"suite": "task", "metric": "TokenF1", "expect": "NotWorse", "margin": 0.5}],
        shards=shards,
    )


def run_pod(
    world: World,
    config: EvaluateConfig,
    index: int,
    attempt: int = 1,
    progress: ProgressReporter | None = None,
) -> RunReport | None:
    """One pod of a run."""
    share = Share(index, config.shards, attempt)
    workspace = Workspace(world.storage, config, share=share)
    return evaluate(config, world.storage, workspace, progress or ProgressReporter({}))


def run_all(
    world: World, config: EvaluateConfig, attempt: int = 1, progress: ProgressReporter | None = None
) -> Any:
    """All pods of a run: another one runs each time the first one waits.

    They take turns in one thread, as models of one process can't be loaded side by side: a load sets torch's default
    dtype.
    """
    others = iter(range(1, config.shards))

    def run_another(seconds: float) -> None:
        assert run_pod(world, config, next(others), attempt) is None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_room, "Shares", partial(Shares, sleep=run_another))
        report = run_pod(world, config, 0, attempt, progress)
    assert list(others) == []
    return report


def without_times(evaluation: EvaluationReport) -> dict[str, Any]:
    """The report without what depends on the clock."""
    told = json.loads(evaluation.to_json())
    for usage in told["usage"]:
        usage[3] = None
    left_out = {"details", "reportDigest", "reportBytes"}
    return {name: value for name, value in told.items() if name not in left_out}


def items_of(world: World, evaluation: EvaluationReport) -> list[Any]:
    """Lines of the file of items without times."""
    lines = (world.root / "pvc" / evaluation.details.uri.removeprefix("pvc://")).read_text().splitlines()
    items = [json.loads(line) for line in lines]
    for item in items:
        for answers in item["answers"].values():
            for answer in answers:
                answer.pop("seconds", None)
    return items


def test_three_pods_report_what_one_reports(
    world: World, make: RowBuilders, asked: Counter[tuple[str, str]]
) -> None:
    alone = world.evaluate(config_of(world, make, "alone", 1)).evaluation
    once = dict(asked)
    asked.clear()
    config, told = config_of(world, make, "shared", 3), Told()
    together = run_all(world, config, progress=told).evaluation
    assert without_times(together) == without_times(alone)
    assert items_of(world, together) == items_of(world, alone)
    assert together.suites[0].broken == 1
    assert asked == once
    assert set(asked.values()) == {1}
    done, total, metrics = told.updates[-1]
    assert (done, total) == (24, 24)
    assert metrics["completion_tokens"] == sum(usage.completion_tokens for usage in together.usage)
    assert metrics["prompt_tokens"] == sum(usage.prompt_tokens for usage in together.usage)


@pytest.mark.parametrize("later", [1, 2, 3])
def test_a_killed_attempt_is_continued_by_any_number_of_pods(
    world: World,
    make: RowBuilders,
    asked: Counter[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    later: int,
) -> None:
    config = config_of(world, make, "killed", 3)
    run_pod(world, config, 1)
    with monkeypatch.context() as patch:
        answer = TransformersAnswerer.answer

        def killed(self: TransformersAnswerer, requests: Sequence[Request]) -> Iterator[Sequence[Reply]]:
            for batch in answer(self, requests):
                yield [reply for reply in batch if reply.answer is not None][:3]
                if batch[0].answer is not None:
                    raise KeyboardInterrupt

        patch.setattr(TransformersAnswerer, "answer", killed)
        with pytest.raises(KeyboardInterrupt):
            run_pod(world, config, 0)
    journal = world.output / "ns/killed/answers/0/answers-00000.jsonl"
    with journal.open("ab") as stream:
        stream.write(b'["half a li')
    journals = world.output.glob("ns/killed/answers/*/answers-*.jsonl")
    kept = sum(line.endswith("]") for path in journals for line in path.read_text().split("\n"))
    assert kept > 4
    asked.clear()
    again = config.model_copy(update={"shards": later})
    found = run_all(world, again, attempt=2).evaluation
    assert sum(asked.values()) == 22 - kept, "no item is answered twice"
    alone = world.evaluate(config_of(world, make, "alone", 1)).evaluation
    assert without_times(found) == without_times(alone)


def test_the_first_pod_gives_up_on_a_silent_one(world: World, make: RowBuilders) -> None:
    config, now = config_of(world, make, "silent", 3), [0.0]
    told = Told()

    def sleep(seconds: float) -> None:
        now[0] += 600

    workspaces = [Workspace(world.storage, config, share=Share(index, 3)) for index in range(3)]
    Shares(config.sides, workspaces[1], ProgressReporter({})).finish([])
    first = Shares(config.sides, workspaces[0], told, clock=lambda: now[0], sleep=sleep)
    first.begin(8)
    with pytest.raises(InfrastructureError, match="for 30 minutes of pod 2 of 3") as raised:
        first.wait()
    assert "wait for a node" in str(raised.value)
    assert now[0] == 600 * 3, "it heard of pod 1 at first"
    assert told.updates, "SIGTERM is looked for while it waits"


def test_all_sides_of_an_item_are_in_one_share() -> None:
    items = [f"sha256:{number:064x}" for number in range(300)]
    parts = [[item for item in items if Share(index, 3).holds(item)] for index in range(3)]
    assert sorted(item for part in parts for item in part) == items
    assert all(70 < len(part) < 130 for part in parts)


def test_the_share_is_that_of_the_pod_in_its_job(world: World, make: RowBuilders) -> None:
    environment = {"JOB_COMPLETION_INDEX": "2", "TUNESMITH_ATTEMPT": "4"}
    assert read_share(config_of(world, make, "x", 3), environment).index == 2
    assert read_share(config_of(world, make, "x", 1), environment) == Share()
