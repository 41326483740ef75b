"""Runs of several nodes whose only place in common is a bucket: each has a disk of its own."""

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from servers.held_uploads import hold_upload
from servers.storage_servers import BUCKET, S3Server
from stages.gangs import Pod, end_gang, kill, start_gang
from stages.stage_world import RowBuilders, World

from tunesmith_contract.checkpoint import CommitManifest
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.layout import ATTEMPT_ENV
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.pod.storage import file_digest
from tunesmith_trainer.checkpoints.digests import writer_of
from tunesmith_trainer.checkpoints.folder import is_complete

SECONDS = 240
LORA = {"rank": 4, "dropout": 0.0}
SETTINGS: dict[str, Any] = {
    "adapter": LORA,
    "hyperparameters": {"microBatchSize": 1, "maxSteps": 6},
    "checkpoints": {"everySteps": 2, "keep": 2},
}
ADAPTER = "adapter_model.safetensors"


def bucket_run(world: World, prepared: Any, s3: S3Server, **more: Any) -> tuple[TrainConfig, Path]:
    """A run with its work files in a folder of the bucket, where its rows are, and that folder."""
    name = uuid.uuid4().hex
    config = world.train_config(prepared, uid="run", **SETTINGS, **more)
    config = config.model_copy(update={"workspace": f"s3://{BUCKET}/{name}"})
    folder = s3.root / BUCKET / name / "ns/run"
    shutil.copytree(world.output / "ns/whole/prepared", folder / "prepared")
    return config, folder


def adapter_of(world: World, pod: Pod) -> str:
    """Digest of the weights that a gang has trained; their artifact is on the claim."""
    training = pod.report.training
    assert training
    return file_digest(world.output / "sha256" / training.artifact.digest.removeprefix("sha256:") / ADAPTER)


def committed(folder: Path) -> dict[int, CommitManifest]:
    """Checkpoints of the bucket that count, by step."""
    manifests = [
        CommitManifest.model_validate_json(path.read_bytes())
        for path in folder.glob("checkpoints/*/commit.json")
    ]
    return {manifest.step: manifest for manifest in manifests}


@pytest.mark.parametrize("parallelism", ["DDP", "ZeRO2"])
def test_a_node_that_is_lost_in_the_midst_of_an_upload(
    world: World, make: RowBuilders, s3: S3Server, tmp_path: Path, parallelism: str
) -> None:
    """The next attempt goes on from the newest whole checkpoint, and ends as a run on a shared folder, bit for bit."""
    prepared = world.prepare(
        world.prepare_config(world.write_rows("train.jsonl", make.rows(30)), uid="whole")
    )
    config, folder = bucket_run(world, prepared, s3, parallelism=parallelism)
    whole = world.train_config(prepared, uid="whole", **SETTINGS, parallelism=parallelism)
    pods = start_gang(world.root, whole, nodes=2)
    assert end_gang(pods, SECONDS) == [0, 0], pods[0].output
    expected = adapter_of(world, pods[0])

    with hold_upload(s3.url, "checkpoint-4/", "rng_state_1") as upload:
        keys = s3.secret() | {"AWS_ENDPOINT_URL": upload.url}
        first = start_gang(
            world.root, config, nodes=2, disks=tmp_path / "first", **keys, **{ATTEMPT_ENV: "1"}
        )
        assert upload.held.wait(SECONDS), first[0].output
        for process in (*first[1].workers(), first[1].process.pid):
            kill(process)
        assert first[0].end(SECONDS) == ExitCode.COMMUNICATION, first[0].output
        first[1].end(SECONDS)
    assert set(committed(folder)) == {2}
    assert (folder / "checkpoints/checkpoint-4").is_dir(), "the first node has uploaded its part"

    again = start_gang(
        world.root, config, nodes=2, disks=tmp_path / "second", **s3.secret(), **{ATTEMPT_ENV: "2"}
    )
    assert end_gang(again, SECONDS) == [0, 0], again[0].output
    assert "resuming from checkpoint-2" in again[0].output
    assert adapter_of(world, again[0]) == expected
    assert set(committed(folder)) == {4, 6}
    assert {writer_of(file.path) for file in committed(folder)[6].files} == {0, 1}
    assert all(is_complete(path) for path in (folder / "checkpoints").glob("checkpoint-*"))
    kept = {path.name for path in (tmp_path / "second/1").rglob("checkpoint-*")}
    assert not kept, "the second node keeps no copies"
