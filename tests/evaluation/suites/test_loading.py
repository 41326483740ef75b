"""Suites of all kinds, loaded by one function."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith_contract.evaluation import HarnessTask, Metric, MetricSettings, Side, Suite, SuiteContainer
from tunesmith_contract.run_config import EvaluateConfig, Owner
from tunesmith_contract.safety import safety_suites
from tunesmith_data.failures import DataError, UserError
from tunesmith_data.pod.storage import Storage
from tunesmith_evaluation.metrics.text_scorers import ExactMatch
from tunesmith_evaluation.statistics.kinds import ScoreKind
from tunesmith_evaluation.suites.loading import SuiteItems, load_suite

DEFINITION = {
    "task": "colors",
    "output_type": "multiple_choice",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": "Color of {{thing}}?",
    "doc_to_target": "label",
    "doc_to_choice": ["blue", "green"],
    "num_fewshot": 1,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
TASK_SCORE = MetricSettings(type=Metric.TASK_SCORE)
EXACT = MetricSettings(type=Metric.EXACT_MATCH)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A claim with rows, a task's data and its definition."""
    claim = tmp_path / "pvc" / "data"
    (claim / "colors").mkdir(parents=True)
    (claim / "tasks").mkdir()
    (claim / "tasks" / "colors.yaml").write_text(yaml.safe_dump(DEFINITION))
    rows = {
        "train": [{"thing": "jade", "label": 1, "kind": "stone"}],
        # The third row asks the same as the first and has another answer.
        "test": [
            {"thing": "sky", "label": 0, "kind": "air"},
            {"thing": "grass", "label": 1, "kind": "plant"},
            {"thing": "sky", "label": 1, "kind": "air"},
        ],
    }
    for split, some in rows.items():
        (claim / "colors" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, some)))
    own = [{"prompt": f"{number} + 1 =", "completion": str(number + 1)} for number in range(3)]
    (claim / "own.jsonl").write_text("\n".join(map(json.dumps, own)))
    return Storage(tmp_path, scratch=tmp_path / "scratch")


def load(
    suite: Suite, storage: Storage, scorers: dict[str, Any] | None = None, **settings: Any
) -> SuiteItems:
    config = EvaluateConfig(
        owner=Owner(kind="EvalRun", namespace="team", name="run", uid="1"),
        base_model="pvc://models/base",
        sides=(Side(name="candidate"), Side(name="baseline")),
        suites=(suite,),
        seed=3,
        output="pvc://data/out",
    )
    return load_suite(suite, config, storage, scorers or {}, **settings)


def task_suite(**changes: Any) -> Suite:
    harness = HarnessTask(task="colors", data="pvc://data/colors", include="pvc://data/tasks")
    values: dict[str, Any] = {"name": "colors", "harness": harness, "metrics": (TASK_SCORE,), **changes}
    return Suite(**values)


def test_own_data(storage: Storage) -> None:
    suite = Suite(name="own", dataset="pvc://data/own.jsonl", metrics=(EXACT,))
    loaded = load(suite, storage, {"ExactMatch": ExactMatch()})
    assert [item.expected.text for item in loaded.items] == ["1", "2", "3"]
    assert (loaded.task, loaded.definition, loaded.needs_likelihood) == (None, "", False)


def test_task_of_the_harness(storage: Storage) -> None:
    suite = task_suite(slice_columns=("kind",), group_column="thing")
    loaded = load(suite, storage)
    assert [item.line for item in loaded.items] == [1, 2, 3]
    assert [item.expected.text for item in loaded.items] == ["blue", "green", "green"]
    assert [item.slices for item in loaded.items] == [{"kind": "air"}, {"kind": "plant"}, {"kind": "air"}]
    assert [item.group for item in loaded.items] == ["sky", "grass", "sky"]
    assert len({item.digest for item in loaded.items}) == 3
    assert loaded.needs_likelihood
    assert loaded.scorers["TaskScore"].kind is ScoreKind.BINARY
    assert loaded.definition.startswith("sha256:")


def test_rows_that_ask_the_same_share_a_group(storage: Storage) -> None:
    first, second, third = load(task_suite(), storage).items
    assert first.group == third.group is not None
    assert second.group is None


def test_questions_of_a_task_by_side(storage: Storage) -> None:
    harness = HarnessTask(
        task="colors", data="pvc://data/colors", include="pvc://data/tasks", chat_template=True
    )
    loaded = load(task_suite(harness=harness), storage)
    side = Side(name="candidate", system_prompt="Be brief.", template_arguments={"enable_thinking": False})
    first, second = loaded.task_questions(side, loaded.items)[loaded.items[0].digest]
    assert (first.expected, second.expected) == ("blue", "green")
    contents = [message["content"] for message in first.prompt.messages]
    assert contents == ["Be brief.", "Color of jade?", "green", "Color of sky?"]
    assert first.prompt.template_arguments == {"enable_thinking": False}
    plain = load(task_suite(), storage)
    (question, _) = plain.task_questions(Side(name="baseline"), plain.items)[plain.items[0].digest]
    assert question.prompt.text == "Color of jade? green\n\nColor of sky?"


def test_text_metrics_can_not_score_choices(storage: Storage) -> None:
    with pytest.raises(UserError, match=r"compares likelihoods.*ExactMatch: use TaskScore alone"):
        load(task_suite(metrics=(TASK_SCORE, EXACT)), storage, {"ExactMatch": ExactMatch()})


def test_unknown_column_of_a_task(storage: Storage) -> None:
    with pytest.raises(DataError, match="row 1 of the task has no text or number in place"):
        load(task_suite(group_column="place"), storage)


def test_data_that_does_not_exist(storage: Storage) -> None:
    harness = HarnessTask(task="colors", data="pvc://data/nowhere", include="pvc://data/tasks")
    with pytest.raises(UserError, match="pvc://data/nowhere does not exist"):
        load(task_suite(harness=harness), storage)


def test_safety(storage: Storage) -> None:
    harmful, harmless = safety_suites()
    assert {item.expected.refuses for item in load(harmful, storage).items} == {True}
    assert {item.expected.refuses for item in load(harmless, storage).items} == {False}
    plain = load(harmful, storage, plain=True)
    assert plain.suite.decoding.stop == ("\nQuestion:",)
    assert not plain.items[0].messages


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "pvc://data/own.jsonl", "metrics": (TASK_SCORE,)}, "TaskScore needs a harness task"),
        (
            {"dataset": "pvc://data/own.jsonl", "metrics": (MetricSettings(type=Metric.CONTAINER_SCORE),)},
            "ContainerScore needs a container",
        ),
        (
            {
                "dataset": "pvc://data/own.jsonl",
                "metrics": (EXACT,),
                "container": SuiteContainer(image="scorer"),
            },
            "add the metric ContainerScore",
        ),
        ({"metrics": (EXACT,)}, "names no items"),
    ],
    ids=["task", "container", "unused", "nothing"],
)
def test_suites_that_do_not_fit(fields: dict[str, Any], message: str, storage: Storage) -> None:
    with pytest.raises(UserError, match=message):
        load(Suite(name="suite", **fields), storage)
