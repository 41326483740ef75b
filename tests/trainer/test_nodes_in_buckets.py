"""Runs of several nodes whose only place in common is a bucket: each has a disk of its own."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from servers.held_uploads import hold_upload
from servers.storage_servers import BUCKET, S3Server
from stages.gangs import Pod, end_gang, kill, start_gang
from stages.ranks import run_ranks
from stages.stage_world import RowBuilders, World
from transformers import TrainerControl, TrainerState

from tunesmith_contract.checkpoint import CommitManifest
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.layout import ATTEMPT_ENV
from tunesmith_contract.run_config import Checkpoints, Parallelism, TrainConfig
from tunesmith_data.failures import InfrastructureError
from tunesmith_data.pod.storage import Storage, file_digest
from tunesmith_data.pod.work_mirror import WorkMirror
from tunesmith_data.pod.workspace import Workspace
from tunesmith_storage.errors import StorageUnavailable
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints
from tunesmith_trainer.checkpoints.digests import writer_of
from tunesmith_trainer.checkpoints.folder import CheckpointFolder, is_complete
from tunesmith_trainer.checkpoints.writer_lease import LeaseHolder, WriterLease
from tunesmith_trainer.train.callbacks.step_callbacks import CommitCheckpoints, UploadCheckpoints
from tunesmith_trainer.train.distributed.shared_digests import search_together

SECONDS = 240
#: With dropout the result depends on the random state of every rank.
LORA = {"rank": 4, "dropout": 0.1}
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


@pytest.mark.parametrize("parallelism", ["DDP", pytest.param("ZeRO3", marks=pytest.mark.long)])
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
        keys: dict[str, Any] = {**s3.secret(), "AWS_ENDPOINT_URL": upload.url, ATTEMPT_ENV: "1"}
        first = start_gang(world.root, config, nodes=2, disks=tmp_path / "first", **keys)
        assert upload.held.wait(SECONDS), first[0].output
        for process in (*first[1].workers(), first[1].process.pid):
            kill(process)
        assert first[0].end(SECONDS) == ExitCode.COMMUNICATION, first[0].output
        first[1].end(SECONDS)
    assert set(committed(folder)) == {2}
    assert (folder / "checkpoints/checkpoint-4").is_dir(), "the first node has uploaded its part"

    keys = {**s3.secret(), ATTEMPT_ENV: "2"}
    again = start_gang(world.root, config, nodes=2, disks=tmp_path / "second", **keys)
    assert end_gang(again, SECONDS) == [0, 0], again[0].output
    assert "resuming from checkpoint-2" in again[0].output
    assert adapter_of(world, again[0]) == expected
    assert set(committed(folder)) == {4, 6}
    assert {writer_of(file.path) for file in committed(folder)[6].files} == {0, 1}
    assert all(is_complete(path) for path in (folder / "checkpoints").glob("checkpoint-*"))
    kept = {path.name for path in (tmp_path / "second/1").rglob("checkpoint-*")}
    assert not kept, "the second node keeps no copies"


class Node:
    """One pod of a run of two, with a disk of its own; `rank` is that of its only worker."""

    def __init__(self, config: TrainConfig, root: Path, disk: Path, rank: int, attempt: int = 1) -> None:
        workspace = Workspace(Storage(root, root / "no-secrets", disk), config)
        self.bucket = BucketCheckpoints(workspace)
        lease = WriterLease(workspace.checkpoints, LeaseHolder(attempt=attempt, token=f"t{attempt}"))
        lease.take()
        self.folder = CheckpointFolder(workspace.checkpoints, workspace.work, lease)
        self.rank = rank
        self.state = TrainerState(is_world_process_zero=rank == 0, max_steps=9)

    def save(self, step: int) -> None:
        """What transformers and the callbacks do at a checkpoint."""
        for name in (f"rng_state_{self.rank}.pth", *(["model.safetensors"] if self.rank == 0 else [])):
            path = self.folder.staged(step) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode() * 100 * step)
        self.state.global_step = step
        arguments: Any = SimpleNamespace(world_size=2)
        for callback in (
            CommitCheckpoints(self.folder, Checkpoints(keep=2), Parallelism.DDP),
            UploadCheckpoints(self.bucket, self.folder),
        ):
            callback.on_save(arguments, self.state, TrainerControl())

    def find(self) -> str | None:
        """Name of the newest checkpoint that both nodes hold."""
        found = search_together(self.folder.open, self.folder.root, self.bucket.fetch)
        return found.name if found else None

    def here(self) -> dict[str, bool]:
        """Checkpoints on this disk, and if they are whole."""
        return {path.name: is_complete(path) for path in sorted(self.folder.root.glob("checkpoint-*"))}


class TestTwoNodes:
    """Checkpoints of two pods by the product's callbacks, without a model."""

    @pytest.fixture
    def run(
        self, plain: TrainConfig, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Node]:
        for name, value in s3.secret().items():
            monkeypatch.setenv(name, value)
        config = plain.model_copy(update={"workspace": f"s3://{BUCKET}/{uuid.uuid4().hex}"})
        self.stored = s3.root / BUCKET / str(config.workspace).rpartition("/")[2]

        def pod(rank: int, disk: str = "disk", attempt: int = 1) -> Node:
            return Node(config, tmp_path, tmp_path / f"{disk}-{rank}", rank, attempt)

        return pod

    def folder(self) -> Path:
        """The checkpoints in the bucket."""
        return next(self.stored.glob("*/*")) / "checkpoints"

    def test_each_uploads_its_part_and_a_new_pair_fetches_the_whole(self, run: Callable[..., Node]) -> None:
        def work(rank: int) -> tuple[dict[str, bool], str | None, dict[str, bool]]:
            node = run(rank)
            if rank == 0:
                node.bucket.take_lease()
            for step in (1, 2, 3):
                node.save(step)
            left = node.here()
            new = run(rank, "new", attempt=2)
            if rank == 0:
                new.bucket.pull()
            return left, new.find(), new.here()

        (first, found, has), (second, same, fetched) = run_ranks(work, nodes=2)
        # The first node lacks the other's part; the other keeps nothing.
        assert first == {"checkpoint-2": False, "checkpoint-3": False}
        assert second == {}
        assert found == same == "checkpoint-3"
        assert has == {"checkpoint-2": True, "checkpoint-3": True}
        assert fetched == {"checkpoint-3": True}
        assert sorted(path.name for path in self.folder().glob("checkpoint-*")) == [
            "checkpoint-2",
            "checkpoint-3",
        ]

    def test_the_best_one_is_whole_on_both_when_it_is_loaded(self, run: Callable[..., Node]) -> None:
        def work(rank: int) -> dict[str, bool]:
            node = run(rank)
            if rank == 0:
                node.bucket.take_lease()
            for step in (1, 2):
                node.save(step)
            root = node.folder.root

            def best(verify: Callable[[Path], bool]) -> Path | None:
                return root / "checkpoint-1" if verify(root / "checkpoint-1") else None

            assert search_together(best, root, node.bucket.fetch) == root / "checkpoint-1"
            return node.here()

        assert run_ranks(work, nodes=2) == [
            {"checkpoint-1": True, "checkpoint-2": False},
            {"checkpoint-1": True},
        ]

    def test_a_part_that_is_damaged_sends_both_to_the_one_before(self, run: Callable[..., Node]) -> None:
        def work(rank: int) -> tuple[str | None, list[str]]:
            node = run(rank)
            if rank == 0:
                node.bucket.take_lease()
            for step in (1, 2):
                node.save(step)
            new = run(rank, "new", attempt=2)
            if rank == 0:
                part = self.folder() / "checkpoint-2/rng_state_1.pth"
                part.write_bytes(part.read_bytes()[:-1] + b"x")
                new.bucket.pull()
            found = new.find()
            UploadCheckpoints(new.bucket, new.folder).on_train_begin(None, new.state, TrainerControl())  # type: ignore[arg-type]
            new.save(2)
            return found, sorted(committed_names(self.folder()))

        assert run_ranks(work, nodes=2) == [("checkpoint-1", ["checkpoint-1", "checkpoint-2"])] * 2
        assert is_complete(self.folder() / "checkpoint-2"), "the step is reached again, and saved again"

    def test_an_attempt_that_was_given_up_commits_nothing(self, run: Callable[..., Node]) -> None:
        """It passes the check of the lease, and sleeps before it writes the manifest."""
        old, new = run(0), run(0, "new", attempt=2)
        old.bucket.take_lease()
        old.save(1)
        write = WorkMirror.write_if

        def sleeping(self: WorkMirror, path: Path, data: bytes, version: Any) -> bool:
            if path.is_relative_to(old.folder.root) and path.name == "commit.json":
                new.bucket.take_lease()
                new.bucket.pull()
                new.save(2)
            return write(self, path, data, version)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WorkMirror, "write_if", sleeping)
            with pytest.raises(InfrastructureError, match="writes nothing more"):
                old.save(2)
        (manifest,) = [
            CommitManifest.model_validate_json(path.read_bytes())
            for path in self.folder().glob("checkpoint-2/commit.json")
        ]
        assert manifest.attempt == 2

    def test_a_later_attempt_keeps_the_lease(self, run: Callable[..., Node]) -> None:
        """The earlier one has read that nobody holds it, and writes after the later one."""
        old, new = run(0), run(0, "new", attempt=2)
        read = WorkMirror.read_current
        calls: list[object] = []

        def slow(self: WorkMirror, path: Path) -> Any:
            current = read(self, path)
            calls.append(current)
            if len(calls) == 1:
                new.bucket.take_lease()
            return current

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WorkMirror, "read_current", slow)
            with pytest.raises(InfrastructureError, match="attempt 2 has taken over"):
                old.bucket.take_lease()
        new.save(1)
        assert committed_names(self.folder()) == {"checkpoint-1"}

    def test_a_manifest_is_not_written_without_its_files(self, run: Callable[..., Node]) -> None:
        node = run(0)
        node.bucket.take_lease()
        upload = BucketCheckpoints.upload

        def partly(self: BucketCheckpoints, name: str) -> None:
            upload(self, name)
            (stored / "checkpoint-1/model.safetensors").unlink()

        stored = self.folder()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BucketCheckpoints, "upload", partly)
            with pytest.raises(StorageUnavailable, match=r"checkpoint-1 lacks model\.safetensors") as caught:
                node.save(1)
        assert caught.value.reason == "CheckpointIncomplete"
        assert committed_names(stored) == set()

    def test_a_disk_without_room_says_what_to_write(
        self, run: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node = run(0)
        node.bucket.take_lease()
        node.save(1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        with pytest.raises(InfrastructureError, match="ephemeral-storage") as caught:
            run(0, "new", attempt=2).bucket.pull()
        assert caught.value.reason == "StorageFull"


def committed_names(folder: Path) -> set[str]:
    """Names of the checkpoints of a bucket that count."""
    return {path.parent.name for path in folder.glob("*/commit.json")}
