"""Checkpoints whose bytes are read by all ranks together, on disks that are slower than a step may be."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stages.ranks import run_ranks
from stages.stage_world import RowBuilders, World
from transformers import TrainerControl, TrainerState

from tunesmith_contract.checkpoint import CommitManifest
from tunesmith_contract.run_config import Checkpoints, Parallelism
from tunesmith_contract.uris import parse_uri
from tunesmith_data.models import inspection
from tunesmith_data.pod.storage import file_digest, sync
from tunesmith_trainer.checkpoints import digests
from tunesmith_trainer.checkpoints.digests import matching_files, split_evenly, writer_of
from tunesmith_trainer.checkpoints.folder import CheckpointFolder, is_complete, read_commit, step_of
from tunesmith_trainer.checkpoints.writer_lease import LeaseHolder, WriterLease
from tunesmith_trainer.train.callbacks.step_callbacks import CommitCheckpoints, UploadCheckpoints
from tunesmith_trainer.train.distributed import shared_digests
from tunesmith_trainer.train.distributed.control_group import WAIT_SECONDS_ENV
from tunesmith_trainer.train.distributed.parallel import any_worker, is_first_rank
from tunesmith_trainer.train.distributed.rendezvous import SILENCE_SECONDS_ENV
from tunesmith_trainer.train.distributed.shared_digests import search_together
from tunesmith_trainer.train.methods.trainer_mixins import SavedCheckpoints
from tunesmith_trainer.train.starting_point import find_starting_point

SILENCE = 1.0
SLOW = 2.5

MODEL, OPTIMIZER = "model.safetensors", "optimizer.pt"
SIZES = {MODEL: 3000, OPTIMIZER: 2000, "trainer_state.json": 10}
PART = "global_step3/bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt"


class Run:
    """What the ranks of a run share: a folder of checkpoints, each rank's own files, and the digests made."""

    def __init__(
        self,
        root: Path,
        uri: str = "pvc://out/checkpoints",
        fetch: Callable[[str], bool] | None = None,
    ) -> None:
        self.fetch = fetch
        lease = WriterLease(root, LeaseHolder(attempt=0, token="t"))
        lease.take()
        self.folder = CheckpointFolder(root, parse_uri(uri), lease)

    def save(self, rank: int, step: int) -> None:
        """What transformers and DeepSpeed write on a rank."""
        names = {f"rng_state_{rank}.pth": 5, PART.format(rank): 4000} | (SIZES if rank == 0 else {})
        for name, size in names.items():
            path = self.folder.staged(step) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([step]) * size)

    def commit(self, step: int, world: int = 2) -> None:
        """The callback that every rank calls after it has saved."""
        commit = CommitCheckpoints(self.folder, Checkpoints(), Parallelism.ZERO2)
        first = is_first_rank()
        state = TrainerState(global_step=step, max_steps=9, is_world_process_zero=first)
        arguments: Any = SimpleNamespace(world_size=world)
        commit.on_save(arguments, state, TrainerControl())

    def newest(self) -> int | None:
        """Step that all ranks would resume from."""
        found = search_together(self.folder.open, self.folder.root, self.fetch)
        return step_of(found) if found else None

    def step_folder(self, step: int) -> Path:
        return self.folder.root / f"checkpoint-{step}"


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that this process has digested."""
    names: list[str] = []

    def record(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(digests, "file_digest", record)
    return names


def slow_on_first(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function on a disk or in a bucket that takes longer than a step may, for the first rank alone."""

    def wait(*arguments: Any, **options: Any) -> Any:
        if is_first_rank():
            time.sleep(SLOW)
        return function(*arguments, **options)

    return wait


def commit_slowly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "sync", slow_on_first(sync))
    run.save(0 if is_first_rank() else 1, 3)
    run.commit(3)


def verify_slowly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_digests, "matching_files", slow_on_first(matching_files))
    assert run.newest() == 2


def save_model_slowly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        save_model = slow_on_first(lambda *_: None)

    class PatientTrainer(SavedCheckpoints, Trainer):
        pass

    PatientTrainer().save_model("folder", _internal_call=True)


def upload_slowly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket: Any = SimpleNamespace(upload=slow_on_first(lambda _: None), commit=slow_on_first(lambda: None))
    upload = UploadCheckpoints(bucket, run.folder)
    state = TrainerState(is_world_process_zero=is_first_rank())
    upload.on_save(None, state, TrainerControl())  # type: ignore[arg-type]


@pytest.mark.parametrize("act", [commit_slowly, verify_slowly, save_model_slowly, upload_slowly])
def test_ranks_wait_longer_for_a_disk_than_for_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Run, pytest.MonkeyPatch], None]
) -> None:
    run = Run(tmp_path)
    run.save(0, 2)
    run.folder.commit(2, 2, Parallelism.ZERO2, None)

    def work(rank: int) -> bool:
        act(run, monkeypatch)
        # The next step finds all ranks together again.
        return any_worker(rank == 0)

    assert run_ranks(work, environment={SILENCE_SECONDS_ENV: str(SILENCE)}) == [True, True]
    if act is commit_slowly:
        assert is_complete(run.step_folder(3))
        limited = {SILENCE_SECONDS_ENV: str(SILENCE), WAIT_SECONDS_ENV: str(SILENCE)}
        with pytest.raises(AssertionError, match="Timed out waiting"):
            run_ranks(work, environment=limited)


@pytest.mark.parametrize("nodes", [1, 2])
def test_each_file_is_read_once_where_it_was_written(tmp_path: Path, digested: list[str], nodes: int) -> None:
    run = Run(tmp_path)

    def work(rank: int) -> tuple[list[str], list[str], int | None]:
        run.save(rank, 3)
        run.commit(3)
        written = digested.copy()
        digested.clear()
        return written, digested, run.newest()

    (first, first_verified, newest), (second, second_verified, same) = run_ranks(work, nodes=nodes)
    files = sorted(
        [*SIZES, *(Path(PART).name.format(rank) for rank in (0, 1)), "rng_state_0.pth", "rng_state_1.pth"]
    )
    assert sorted(first + second) == sorted(first_verified + second_verified) == files
    if nodes == 2:
        assert sorted(second) == [Path(PART).name.format(1), "rng_state_1.pth"]
    else:
        # Both hold the files in the memory of one node: the largest are divided.
        assert len({Path(PART).name.format(rank) for rank in (0, 1)} & set(first)) == 1
    assert newest == same == 3
    assert is_complete(run.step_folder(3))


def test_a_damaged_checkpoint_is_found_by_whoever_reads_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in (2, 3):
        for rank in (0, 1):
            run.save(rank, step)
        run.folder.commit(step, 2, Parallelism.ZERO2, None)
    damaged = run.step_folder(3) / PART.format(1)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert run_ranks(lambda _: run.newest(), nodes=2) == [2, 2]
    assert not run.step_folder(3).exists()


def test_what_another_node_does_not_see_yet_is_read_by_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.save(0, 3)
    run.folder.commit(3, 2, Parallelism.ZERO2, None)

    def work(rank: int) -> int | None:
        if rank == 1:
            monkeypatch.setattr(shared_digests, "matching_files", lambda *_: set())
        return run.newest()

    assert run_ranks(work, nodes=2) == [3, 3]


def test_each_node_completes_its_copy_before_a_checkpoint_counts(tmp_path: Path) -> None:
    """The second node can't complete the newest one: all go back to the one before."""

    def work(rank: int) -> tuple[int | None, list[str], bool]:
        root, fetched = tmp_path / f"disk-{rank}", list[str]()

        def fetch(name: str) -> bool:
            fetched.append(name)
            return rank == 0 or name != "checkpoint-3"

        run = Run(root, "s3://bucket/checkpoints", fetch)
        for step in (2, 3):
            run.save(rank, step)
            run.commit(step)
        listed = read_commit(run.step_folder(2))
        if rank == 0:
            commit = CommitManifest.model_validate_json((run.step_folder(2) / "commit.json").read_bytes())
            assert {writer_of(file.path) for file in commit.files} == {0, 1}
            assert listed is None, "the other's files are on the other's disk"
        newest = run.newest()
        return newest, fetched, run.step_folder(2).is_dir()

    found = run_ranks(work, nodes=2)
    assert found == [(2, ["checkpoint-3", "checkpoint-2"], True)] * 2


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("rng_state_3.pth", 3),
        ("rng_state.pth", 0),
        ("global_step6/zero_pp_rank_12_mp_rank_00_model_states.pt", 12),
        ("global_step6/bf16_zero_pp_rank_7_mp_rank_00_optim_states.pt", 7),
        ("global_step6/mp_rank_00_model_states.pt", 0),
        ("model-00002-of-00007.safetensors", 0),
        ("optimizer.pt", 0),
    ],
)
def test_partitions_and_random_states_name_their_writer(name: str, rank: int) -> None:
    assert writer_of(name) == rank


def test_one_rank_reads_the_bytes_of_the_base_model(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(8))))
    config = world.train_config(prepared)
    read: list[Path] = []

    def record(path: Path) -> str:
        read.append(path)
        return file_digest(path)

    monkeypatch.setattr(inspection, "file_digest", record)
    first = find_starting_point(config, world.storage, verify=True)
    assert "model.safetensors" in {path.name for path in read}
    read.clear()
    assert find_starting_point(config, world.storage, verify=False) == first
    assert read == []


def test_large_files_are_divided_before_small_ones() -> None:
    sizes = {"a": 10, "b": 60, "c": 40, "d": 5, "e": 5}
    assert split_evenly(sizes, 2) == [["b"], ["c", "a", "d", "e"]]
    assert split_evenly({"a": 1}, 3) == [["a"], [], []]
