"""Train stage: artifact, probes, reruns, interruptions, runs without effect."""

import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from models.probe_log_probs import mean_log_prob
from peft import PeftModel
from safetensors.torch import load_file
from stages.stage_world import RowBuilders, TrainReport, World, narrow
from transformers import AutoModelForCausalLM

from tunesmith_contract.answer_formats import ChatFormat
from tunesmith_contract.artifact import Manifest
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.report import Outcome, parse_report
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import holds_files
from tunesmith_trainer.checkpoints.folder import newest_checkpoint


def prepared(world: World, make: RowBuilders, uid: str, rows: int = 44) -> Any:
    return world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(rows)), uid=uid))


def manifest_of(world: World, report: Any) -> tuple[Any, Manifest]:
    digest = report.training.artifact.digest
    folder = world.output / "sha256" / digest.removeprefix("sha256:")
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    assert manifest.digest == digest
    return folder, manifest


def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(world: World, make: RowBuilders) -> None:
    numbers = {"epochs": 2}
    whole = world.train(
        world.train_config(prepared(world, make, "whole"), uid="whole", hyperparameters=numbers)
    )

    config = world.train_config(prepared(world, make, "torn"), uid="torn", hyperparameters=numbers)
    pod = world.start(config)
    assert pod.stdout
    assert any("'loss'" in line for line in pod.stdout)
    pod.send_signal(signal.SIGTERM)
    pod.communicate(timeout=120)
    assert pod.returncode == ExitCode.PREEMPTED
    report = parse_report((world.root / "log").read_bytes())
    assert report
    assert report.outcome is Outcome.PREEMPTED
    newest = newest_checkpoint(world.output / "ns/torn/checkpoints")
    assert newest
    # A checkpoint that a killed pod left half written must not be resumed from.
    torn = newest.with_name("checkpoint-999")
    shutil.copytree(newest, torn)
    (torn / "commit.json").unlink()

    resumed = world.train(config)
    (_, left), (_, right) = manifest_of(world, whole), manifest_of(world, resumed)
    assert left.files == right.files
    assert left.probes == right.probes
    assert resumed.training.steps == whole.training.steps
    assert not torn.exists()


def test_artifact_probes_and_rerun(world: World, make: RowBuilders) -> None:
    config = world.train_config(prepared(world, make, "uid"), templateArguments={"enable_thinking": False})
    report = world.train(config)
    folder, manifest = manifest_of(world, report)
    assert manifest.chat == ChatFormat(switches={"enable_thinking": False})
    assert holds_files(folder, manifest.files)
    assert {file.path for file in manifest.files} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "metrics.jsonl",
    }
    assert manifest.lineage.dataset_digest == config.dataset_digest
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())
    assert "/mnt" not in (folder / "adapter_config.json").read_text()
    assert report.training.eval_loss
    assert report.training.precision == "float32"
    check_probes(world, folder, manifest)

    # Killed after the artifact was placed and before the report was committed: the same is found and left.
    (world.output / "ns/uid/reports/train.json").unlink()
    again = world.train(config)
    assert again.training.artifact == report.training.artifact
    assert len(list((world.output / "sha256").iterdir())) == 1

    pod = world.start(config)
    output, _ = pod.communicate(timeout=60)
    assert pod.returncode == 0, output
    assert narrow(TrainReport, parse_report((world.root / "log").read_bytes())) == again
    assert sorted(path.name for path in (world.output / "ns/uid").iterdir()) == [
        "data-report",
        "prepared",
        "reports",
        "tensorboard",
    ]


def check_probes(world: World, folder: Path, manifest: Manifest) -> None:
    """The probes hold for an adapter that is merged into its base, as for one beside it."""
    assert 4 <= len(manifest.probes) <= 8
    base = AutoModelForCausalLM.from_pretrained(world.root / "pvc/models/llama", dtype=torch.float32).eval()
    for probe in manifest.probes:
        assert len(probe.token_ids) <= 128
        assert mean_log_prob(base, probe) == pytest.approx(probe.base_log_prob, abs=1e-4)
        assert probe.tuned_log_prob > probe.base_log_prob
    merged = PeftModel.from_pretrained(base, folder).merge_and_unload().eval()
    for probe in manifest.probes:
        assert mean_log_prob(merged, probe) == pytest.approx(probe.tuned_log_prob, abs=1e-4)
    assert all(
        torch.isfinite(tensor).all() for tensor in load_file(folder / "adapter_model.safetensors").values()
    )


def test_one_times_four_equals_four_times_one(world: World, make: RowBuilders) -> None:
    losses = []
    for uid, micro in (("a", 1), ("b", 4)):
        numbers = {"microBatchSize": micro, "maxSteps": 4}
        adapter = {"rank": 4, "dropout": 0.0}
        report = world.train(
            world.train_config(prepared(world, make, uid), uid=uid, hyperparameters=numbers, adapter=adapter)
        )
        losses.append(report.training.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_two_workers_make_one_artifact(world: World, make: RowBuilders) -> None:
    config = world.train_config(prepared(world, make, "two"), uid="two", hyperparameters={"maxSteps": 4})
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pod = world.start(config, PET_NPROC_PER_NODE="2", PET_MASTER_PORT=str(port))
    output, _ = pod.communicate(timeout=240)
    assert pod.returncode == 0, output
    report = parse_report((world.root / "log").read_bytes())
    assert report
    assert report.training
    assert report.training.steps == 4
    manifest_of(world, report)
    assert len(list((world.output / "sha256").iterdir())) == 1


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"hyperparameters": {"learningRate": 1e30}}, "Diverged"),
        ({"hyperparameters": {"learningRate": 1e-12, "maxSteps": 1}}, "NoEffect"),
        ({"hyperparameters": {"batchSize": 3}}, "BatchSize"),
        ({"adapter": {"targetModules": ["absent"]}}, "TargetModules"),
        ({"baseModelRevision": "sha256:other"}, "ModelChanged"),
    ],
)
def test_runs_that_cannot_end_well_say_what_to_change(
    world: World, make: RowBuilders, more: dict[str, Any], reason: str
) -> None:
    config = world.train_config(prepared(world, make, "uid"), **more)
    with pytest.raises(UserError) as caught:
        world.train(config)
    assert caught.value.reason == reason
    assert not (world.output / "sha256").exists()
