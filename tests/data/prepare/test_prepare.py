"""Prepare stage: errors before training, and results that do not depend on the run."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stages.stage_world import RowBuilders, World

from tunesmith_data.failures import DataError, StageError, UserError
from tunesmith_data.prepare import load_prepared

BAD = {"messages": [{"role": "bot", "content": "x"}]}


def test_counts_add_up_and_the_digest_is_of_the_content(world: World, make: RowBuilders) -> None:
    rows = make.rows(40)
    uri = world.write_rows("train.jsonl", [*rows, *rows[:3], BAD])
    config = {"onInvalidRow": "Drop", "maxInvalidFraction": 0.1}
    first, second = (world.prepare(world.prepare_config(uri, uid=uid, **config)) for uid in ("a", "b"))
    dataset = first.dataset
    assert dataset.digest == second.dataset.digest
    assert (dataset.rows, dataset.duplicates, dataset.dropped_rows) == (44, 3, 1)
    assert (
        dataset.rows
        == dataset.train_rows + dataset.validation_rows + dataset.duplicates + dataset.dropped_rows
    )
    assert dataset.format == "Chat"
    assert dataset.tokens.total >= 43 * dataset.tokens.p50 * 0.8
    split = load_prepared(world.output / "ns/a/prepared", dataset.digest)
    assert [row for row in rows if row in split.train or row in split.validation] == rows
    (dropped,) = (world.output / "ns/a/data-report/dropped.jsonl").read_text().splitlines()
    assert json.loads(dropped)["row"] == BAD
    assert "unrecognized_role" in json.loads(dropped)["reasons"][0]


def test_findings_fail_with_the_first_five_and_the_total(world: World, make: RowBuilders) -> None:
    uri = world.write_rows("train.jsonl", [*make.rows(3), *[BAD] * 7])
    with pytest.raises(DataError) as caught:
        world.prepare(world.prepare_config(uri))
    message = caught.value.message
    assert message.count("train.jsonl:") == 5
    assert "14 checks failed" in message
    assert "train.jsonl:4: unrecognized_role" in message
    with pytest.raises(DataError, match="7 of 10 rows are invalid"):
        world.prepare(world.prepare_config(uri, onInvalidRow="Drop", maxInvalidFraction=0.5))


def test_what_was_wrong_before_a_file_breaks_off_is_kept(world: World, make: RowBuilders) -> None:
    rows = [*make.rows(100), BAD, *make.rows(30_000)]
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    (world.data / "train.jsonl.gz").write_bytes(packed[: len(packed) * 2 // 3])
    with pytest.raises(DataError, match=r"train\.jsonl"):
        world.prepare(world.prepare_config("pvc://data/train.jsonl.gz", onInvalidRow="Drop"))
    found = (world.output / "ns/uid/data-report/findings.jsonl").read_text().splitlines()
    assert json.loads(found[0])["line"] == 101


def test_rows_held_out_by_the_user_are_never_trained_on(world: World, make: RowBuilders) -> None:
    rows = make.rows(30)
    train, validation = world.write_rows("a.jsonl", rows), world.write_rows("b.jsonl", rows[25:])
    report = world.prepare(world.prepare_config(train, validation={"uri": validation}))
    dataset = report.dataset
    assert (dataset.train_rows, dataset.validation_rows, dataset.leaked_rows) == (25, 5, 5)
    found = json.loads((world.output / "ns/uid/data-report/report.json").read_text())
    assert {(leak["row"]["line"], leak["other"]["line"]) for leak in found["leaks"]} == {
        (26 + number, 1 + number) for number in range(5)
    }


def test_long_rows_are_counted_and_lost_answers_are_findings(world: World, make: RowBuilders) -> None:
    long_answer, long_question = make.row("q", "word " * 300), make.row("word " * 300, "a")
    uri = world.write_rows("train.jsonl", [*make.rows(5), long_answer])
    report = world.prepare(world.prepare_config(uri))
    assert report.dataset.truncated_rows == 1
    assert any("maxLength" in warning for warning in report.dataset.warnings)
    with pytest.raises(DataError, match=r"other.jsonl:1: answer_truncated"):
        world.prepare(world.prepare_config(world.write_rows("other.jsonl", [long_question]), uid="other"))


@pytest.mark.parametrize("changed", [False, True])
def test_a_template_that_training_replaces_is_told(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    monkeypatch.setattr(
        "tunesmith_data.models.training_template.is_template_changed", lambda tokenizer: changed
    )
    uri = world.write_rows("train.jsonl", make.rows(30))
    assert world.prepare(world.prepare_config(uri)).model.template_changed is changed


def test_plain_text_rows(world: World) -> None:
    rows = [
        {"prompt": f"{number} plus one is ", "completion": str(number + 1), "id": number}
        for number in range(30)
    ]
    report = world.prepare(world.prepare_config(world.write_rows("t.jsonl", rows)))
    assert report.dataset.format == "PromptCompletion"
    assert report.dataset.rows == 30


def test_a_changed_model_has_another_revision(world: World, make: RowBuilders, models: Path) -> None:
    copy = world.root / "pvc/data/model"
    shutil.copytree(models / "llama", copy)
    uri = world.write_rows("train.jsonl", make.rows(10))

    def revision(uid: str) -> str:
        return world.prepare(world.prepare_config(uri, uid=uid, baseModel="pvc://data/model")).model.revision

    before = revision("a")
    assert before == world.prepare(world.prepare_config(uri, uid="b")).model.revision
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert revision("c") != before


def drop_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def drop_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def drop_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def become_classifier(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"architectures": ["LlamaForTokenClassification"]})
    )


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (drop_config, "ModelNotFound"),
        (drop_weights, "ModelUnreadable"),
        (drop_tokenizer, "TokenizerUnreadable"),
        (drop_template, "ChatTemplate"),
        (become_classifier, "NotACausalLM"),
        (shutil.rmtree, "ModelNotFound"),
    ],
)
def test_a_wrong_model_is_the_users_and_named(
    world: World, make: RowBuilders, models: Path, harm: Callable[[Any], None], reason: str
) -> None:
    copy = world.root / "pvc/data/model"
    shutil.copytree(models / "llama", copy)
    harm(copy)
    uri = world.write_rows("train.jsonl", make.rows(10))
    with pytest.raises(UserError) as caught:
        world.prepare(world.prepare_config(uri, baseModel="pvc://data/model"))
    assert caught.value.reason == reason


def test_a_missing_data_set(world: World) -> None:
    with pytest.raises(StageError, match=r"pvc://data/absent\.jsonl does not exist"):
        world.prepare(world.prepare_config("pvc://data/absent.jsonl"))


def test_changed_data_is_not_trained_on(world: World, make: RowBuilders) -> None:
    report = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(10))))
    folder = world.output / "ns/uid/prepared"
    shutil.copy(folder / "train.parquet", folder / "validation.parquet")
    with pytest.raises(DataError, match="not what was prepared"):
        load_prepared(folder, report.dataset.digest)
