"""Leaked items: found in the rows that sides were trained on, left out and counted, or said to be unknown."""

import errno
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from stages.stage_world import RowBuilders, World

from tunesmith_contract.evaluation import Suite
from tunesmith_contract.report import GateProblem
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_evaluation.stage.suites import sample_suite
from tunesmith_evaluation.stage.trained_rows import LeakReport, find_leaks
from tunesmith_evaluation.suites.loading import load_suite
from tunesmith_storage.errors import StorageError

TRAINED = "pvc://out/ns/uid/prepared/train.parquet"
LONG = "The delivery of the blue hinges to hall {} was two days late, and the customer asks for a refund of the postage"


def with_system(row: dict[str, Any]) -> dict[str, Any]:
    """The same question after a system message."""
    return {"messages": [{"role": "system", "content": "You sort."}, *row["messages"]]}


@pytest.fixture
def near(make: RowBuilders) -> tuple[dict[str, Any], dict[str, Any]]:
    """A question, and nearly the same one with another answer."""
    return make.row(LONG.format(4), "yes"), make.row(
        LONG.format(4).replace("two days", "two days or so"), "no"
    )


class Evaluation:
    """Configurations of evaluations of one suite."""

    def __init__(self, world: World) -> None:
        self.world = world

    def config(self, items: list[Any] | str, **more: Any) -> EvaluateConfig:
        """Evaluation of items, or of those at a URI."""
        uri = items if isinstance(items, str) else self.world.write_rows("items.jsonl", items)
        suite = {"name": "task", "dataset": uri, "metrics": ["ExactMatch"], "maxNewTokens": 2}
        sides = [{"name": "a"}, {"name": "b"}]
        settings: dict[str, Any] = {"sides": sides, "suites": [suite]} | more
        return self.world.evaluate_config(**settings)

    def leaks(self, config: EvaluateConfig, manifests: Any = None) -> LeakReport:
        """Leaks of a configuration."""
        suites = [
            sample_suite(load_suite(suite, config, self.world.storage, {}), config.seed)
            for suite in config.suites
        ]
        return find_leaks(config, manifests or {}, suites, self.world.storage)


@pytest.fixture
def evaluation(world: World) -> Evaluation:
    return Evaluation(world)


def trained(**more: Any) -> dict[str, Any]:
    return {"trainedRows": [{"side": "b", "uri": TRAINED, **more}]}


def test_leaked_items_are_left_out_for_all_sides_and_counted(
    world: World, make: RowBuilders, evaluation: Evaluation, near: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    rows = make.rows(30)
    world.prepare(world.prepare_config(world.write_rows("train.jsonl", [*rows[:20], near[0]]), validation={}))
    items = [
        with_system(rows[0]),
        near[1],
        make.row(rows[1]["messages"][0]["content"], "another"),
        *rows[20:26],
    ]
    report = world.evaluate(evaluation.config(items, **trained()))
    (counts,) = report.evaluation.suites
    assert (counts.items, counts.leaked, counts.broken) == (9, 3, 0)
    assert report.evaluation.results[0].items == 6
    path = world.root / "pvc" / report.evaluation.details.uri.removeprefix("pvc://")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["line"] for line in lines if line.get("excluded") == "Leaked"] == [1, 2, 3]
    assert not any(line.get("answers") for line in lines[:3])


def test_items_left_out_because_of_a_reference_are_in_the_policy(
    world: World, make: RowBuilders, evaluation: Evaluation
) -> None:
    rows = make.rows(30)
    world.prepare(world.prepare_config(world.write_rows("train.jsonl", rows[:20]), validation={}))
    sides = [{"name": name} for name in ("a", "b", "other")]

    def digest(side: str) -> str:
        trained_rows = [{"side": side, "uri": TRAINED}]
        config = evaluation.config(rows[18:26], sides=sides, trainedRows=trained_rows)
        report = world.evaluate(config).evaluation
        assert report.suites[0].leaked == 2
        return str(report.policy_digest)

    # Candidate and baseline are known by their own digests.
    assert digest("a") == digest("b") != digest("other")


def test_a_suite_that_was_trained_on_as_a_whole_is_skipped(
    world: World, make: RowBuilders, evaluation: Evaluation
) -> None:
    rows = make.rows(20)
    world.prepare(world.prepare_config(world.write_rows("train.jsonl", rows), validation={}))
    gate = {"suite": "task", "metric": "ExactMatch", "expect": "NotWorse", "margin": 0.5, "minItems": 1}
    report = world.evaluate(evaluation.config(rows[:5], **trained(), gates=[gate]))
    assert report.evaluation.results == ()
    assert report.evaluation.gates[0].problem is GateProblem.SKIPPED


def test_kinds_of_leaks_are_told_apart(
    world: World, make: RowBuilders, evaluation: Evaluation, near: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    rows = make.rows(20)
    world.prepare(world.prepare_config(world.write_rows("train.jsonl", [*rows, near[0]]), validation={}))
    config = evaluation.config([rows[0], near[1]], **trained())
    report = evaluation.leaks(config)
    found = sorted((leak.side, leak.overlap.kind, leak.overlap.similarity) for leak in report.leaks.values())
    assert [kind for _, kind, _ in found] == ["exact", "near"]
    assert found[0][2] == 1.0 > found[1][2] > 0.8
    assert [(check.side, check.problem) for check in report.checks] == [("b", "")]


def test_rows_that_are_gone_or_others_are_said(
    world: World, make: RowBuilders, evaluation: Evaluation, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make.rows(20)
    config = evaluation.config(rows[:3], **trained())
    assert "does not exist" in evaluation.leaks(config).checks[0].problem
    world.prepare(world.prepare_config(world.write_rows("train.jsonl", rows), validation={}))
    other = evaluation.config(rows[:3], **trained(digest="sha256:" + "0" * 64))
    assert "holds other rows than it was trained on" in evaluation.leaks(other).checks[0].problem
    assert not evaluation.leaks(other).leaks
    (world.output / "ns/uid/prepared/train.parquet").write_bytes(b"broken")
    assert "can't be read" in evaluation.leaks(config).checks[0].problem
    with caplog.at_level(logging.WARNING):
        world.evaluate(config)
    assert (
        "leaked items of side b are not known: pvc://out/ns/uid/prepared/train.parquet can't be read"
        in caplog.text
    )


def test_rows_out_of_reach_for_now_fail_the_attempt(
    world: World, make: RowBuilders, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_contract.exit_codes import FailureCategory
    from tunesmith_evaluation.stage import trained_rows

    def unreachable(path: Any) -> Any:
        raise StorageError(FailureCategory.INFRASTRUCTURE, "StorageUnavailable", "no answer")

    world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(20)), validation={}))
    monkeypatch.setattr(trained_rows, "iterate_rows", unreachable)
    with pytest.raises(StorageError, match="no answer"):
        evaluation.leaks(evaluation.config(make.rows(3), **trained()))


def test_a_tuned_side_without_known_rows_is_said(make: RowBuilders, evaluation: Evaluation) -> None:
    digest = "sha256:" + "1" * 64
    side = {"name": "b", "adapter": {"uri": "oci://registry/team/x:1", "digest": digest}}
    config = evaluation.config(make.rows(3), sides=[{"name": "a"}, side])
    lineage = SimpleNamespace(dataset_digest=digest, initial=None, namespace="ns", uid="uid")
    report = evaluation.leaks(config, {"b": SimpleNamespace(lineage=lineage)})
    assert [(check.side, check.digest, check.problem) for check in report.checks] == [
        ("b", digest, "the rows that it was trained on are not known")
    ]
    assert report.warnings == (
        "leaked items of side b are not known: the rows that it was trained on are not known",
    )


def test_rows_of_an_earlier_artifact_are_missed(
    world: World, make: RowBuilders, evaluation: Evaluation
) -> None:
    prepared = world.prepare(
        world.prepare_config(world.write_rows("train.jsonl", make.rows(20)), validation={})
    )
    assert prepared.dataset
    side = {"name": "b", "adapter": {"uri": "pvc://out/x", "digest": "sha256:" + "1" * 64}}
    config = evaluation.config(make.rows(3, seed=4), sides=[{"name": "a"}, side], **trained())
    lineage = SimpleNamespace(
        dataset_digest=prepared.dataset.digest, initial="sha256:" + "2" * 64, namespace="ns", uid="uid"
    )
    report = evaluation.leaks(config, {"b": SimpleNamespace(lineage=lineage)})
    assert [check.problem for check in report.checks] == [
        "",
        "it was trained further from another artifact, whose rows are not known",
    ]


def test_items_that_changed_since_they_were_held_out_are_said(
    world: World, make: RowBuilders, evaluation: Evaluation
) -> None:
    rows = make.rows(30)
    uri = world.write_rows("test.jsonl", rows[20:])
    held_out = [{"name": "task", "uri": uri}]
    world.prepare(
        world.prepare_config(world.write_rows("train.jsonl", rows[:20]), heldOut=held_out, validation={})
    )
    assert evaluation.leaks(evaluation.config(uri, **trained())).changed == ()
    world.write_rows("test.jsonl", rows[:19:-1])
    assert evaluation.leaks(evaluation.config(uri, **trained())).changed == (), "the order does not matter"
    world.write_rows("test.jsonl", [*rows[20:29], make.row("new", "x")])
    assert evaluation.leaks(evaluation.config(uri, **trained())).changed == (
        "the rows of suite task have changed since they were held out of the training of side b",
    )


def test_suites_are_held_out_as_they_are_evaluated(
    world: World, make: RowBuilders, evaluation: Evaluation
) -> None:
    """A suite with columns of its own is found in the training data by both."""
    rows = make.rows(30)
    questions = [{"input": {"question": row["messages"][0]["content"]}, "target": "x"} for row in rows[:4]]
    uri, columns = (
        world.write_rows("test.jsonl", questions),
        {"prompt": "input.question", "completion": "target"},
    )
    held_out = [{"name": "task", "uri": uri, "columns": columns}]
    train = world.write_rows("train.jsonl", rows)
    prepared = world.prepare(world.prepare_config(train, heldOut=held_out, validation={}))
    assert prepared.dataset
    assert prepared.dataset.leaked_rows == 4
    suite = Suite.model_validate(
        {"name": "task", "dataset": uri, "metrics": ["ExactMatch"], "columns": columns}
    )
    config = evaluation.config(uri, **trained()).model_copy(update={"suites": (suite,)})
    report = evaluation.leaks(config)
    assert (dict(report.leaks), report.changed) == ({}, ())
    world.prepare(world.prepare_config(train, uid="other", validation={}))
    other = evaluation.config(uri, trainedRows=[{"side": "a", "uri": TRAINED.replace("uid", "other")}])
    assert len(evaluation.leaks(other.model_copy(update={"suites": (suite,)})).leaks) == 4


def test_examples_come_from_prepared_rows(world: World, make: RowBuilders) -> None:
    rows = make.rows(30)
    test = world.write_rows("test.jsonl", rows[:3])
    world.prepare(world.prepare_config(world.write_rows("train.jsonl", rows), validation={}))
    config = world.evaluate_config(
        sides=[{"name": "a", "fewShot": 2}, {"name": "b"}],
        suites=[{"name": "task", "dataset": test, "metrics": ["ExactMatch"], "maxNewTokens": 2}],
        fewShotFrom=TRAINED,
    )
    report = world.evaluate(config)
    few, none = report.evaluation.usage
    assert few.prompt_tokens > none.prompt_tokens


def test_rows_beside_an_artifact_are_found_by_its_manifest(
    world: World, make: RowBuilders, evaluation: Evaluation
) -> None:
    rows = make.rows(20)
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", rows), validation={}))
    assert prepared.dataset
    artifact = {"uri": "pvc://out/sha256/1", "digest": "sha256:" + "1" * 64}
    config = evaluation.config(rows[:2], sides=[{"name": "a"}, {"name": "b", "adapter": artifact}])
    lineage = SimpleNamespace(dataset_digest=prepared.dataset.digest, initial=None, namespace="ns", uid="uid")
    report = evaluation.leaks(config, {"b": SimpleNamespace(lineage=lineage)})
    assert [check.problem for check in report.checks] == [""]
    assert len(report.leaks) == 2


def test_rows_beside_a_checkpoint_are_found_by_its_place(
    world: World, make: RowBuilders, evaluation: Evaluation
) -> None:
    rows = make.rows(20)
    world.prepare(world.prepare_config(world.write_rows("train.jsonl", rows), validation={}))
    digest = "sha256:" + "1" * 64
    for uri, leaks, problem in (
        ("pvc://out/ns/uid/checkpoints/checkpoint-2", 2, ""),
        ("pvc://out/copies/checkpoint-2", 0, "the rows that it was trained on are not known"),
    ):
        side = {"name": "b", "checkpoint": {"uri": uri, "digest": digest}}
        report = evaluation.leaks(evaluation.config(rows[:2], sides=[{"name": "a"}, side]))
        assert [check.problem for check in report.checks] == [problem]
        assert len(report.leaks) == leaks


def test_a_disk_that_fails_for_now_fails_the_attempt(
    world: World, make: RowBuilders, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_evaluation.stage import trained_rows

    def broken(path: Any) -> Any:
        raise OSError(errno.EIO, "input/output error")

    world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(20)), validation={}))
    monkeypatch.setattr(trained_rows, "iterate_rows", broken)
    with pytest.raises(OSError, match="input/output error"):
        evaluation.leaks(evaluation.config(make.rows(3), **trained()))
