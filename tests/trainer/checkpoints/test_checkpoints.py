"""Checkpoint folders: incomplete checkpoints, write lease, removal of old ones."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases

from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import COMMIT_FILE
from tunesmith_contract.run_config import Parallelism
from tunesmith_contract.uris import parse_uri
from tunesmith_data.failures import InfrastructureError, UserError
from tunesmith_trainer.checkpoints.digests import matching_files, sync_and_describe
from tunesmith_trainer.checkpoints.folder import (
    CheckpointFolder,
    is_complete,
    keep_newest,
    newest_checkpoint,
    remove_incomplete,
    require_same_world,
    step_of,
)
from tunesmith_trainer.checkpoints.writer_lease import LEASE_FILE, WriterLease, new_holder

FILES = ("adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "nested/state.json")


def open_attempt(root: Path, attempt: int = 0) -> CheckpointFolder:
    """The folder as a new attempt sees it that has taken the lease."""
    lease = WriterLease(root, new_holder({"TUNESMITH_ATTEMPT": str(attempt)}))
    lease.take()
    return CheckpointFolder(root, parse_uri("pvc://out/checkpoints"), lease)


def stage(folder: CheckpointFolder, step: int, text: str = "") -> None:
    """What a trainer saves before it is committed."""
    staged = folder.staging / f"checkpoint-{step}"
    for name in FILES:
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_text(text or f"{name} of step {step}")


def make_checkpoint(root: Path, step: int, *, commit: bool = True) -> Path:
    folder = open_attempt(root)
    stage(folder, step)
    if commit:
        folder.commit(step, 1, Parallelism.DDP, None)
    else:
        (folder.staging / f"checkpoint-{step}").rename(root / f"checkpoint-{step}")
    return root / f"checkpoint-{step}"


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [Path.unlink, tear, flip])
@pytest.mark.parametrize("name", [*FILES, COMMIT_FILE])
def test_a_harmed_checkpoint_is_ignored_and_removed(tmp_path: Path, name: str, harm: object) -> None:
    whole, harmed = make_checkpoint(tmp_path, 9), make_checkpoint(tmp_path, 10)
    assert newest_checkpoint(tmp_path) == harmed
    harm(harmed / name)  # type: ignore[operator]
    assert newest_checkpoint(tmp_path) == whole
    remove_incomplete(tmp_path, whole)
    assert not harmed.exists()
    assert newest_checkpoint(tmp_path) == whole


def test_steps_count_as_numbers_and_other_folders_are_left(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    make_checkpoint(tmp_path, 9)
    newest = make_checkpoint(tmp_path, 100)
    assert newest_checkpoint(tmp_path) == newest
    remove_incomplete(tmp_path, newest)
    assert (tmp_path / "checkpoint-best").exists()


def test_old_ones_go_only_when_newer_ones_are_committed(tmp_path: Path) -> None:
    folders = [make_checkpoint(tmp_path, step) for step in (1, 2, 3)]
    uncommitted = make_checkpoint(tmp_path, 4, commit=False)
    keep_newest(tmp_path, 2)
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert uncommitted.exists()


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent") is None
    make_checkpoint(tmp_path, 1, commit=False)
    assert newest_checkpoint(tmp_path) is None
    remove_incomplete(tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == [LEASE_FILE]


def test_a_commit_names_itself_and_a_committed_folder_is_never_written_again(tmp_path: Path) -> None:
    folder = open_attempt(tmp_path)
    stage(folder, 5)
    first = folder.commit(5, 2, Parallelism.ZERO2, eval_loss=1.5)
    assert (first.step, first.uri, first.eval_loss) == (5, "pvc://out/checkpoints/checkpoint-5", 1.5)
    manifest = (tmp_path / "checkpoint-5" / COMMIT_FILE).read_bytes()
    assert first.digest == sha256_digest(manifest)

    stage(folder, 5, "of the step when it is reached again")
    assert folder.commit(5, 2, Parallelism.ZERO2, None) == first
    assert (tmp_path / "checkpoint-5" / COMMIT_FILE).read_bytes() == manifest
    assert list(folder.staging.iterdir()) == []

    flip(tmp_path / "checkpoint-5" / FILES[0])
    stage(folder, 5)
    folder.commit(5, 2, Parallelism.ZERO2, None)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-5"


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        make_checkpoint(tmp_path, step)
    folder = open_attempt(tmp_path)
    folder.keep(2, besides={1})
    assert [checkpoint.step for checkpoint in folder.committed()] == [1, 3, 4]


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_old_attempt_that_wakes_up_neither_writes_nor_removes(tmp_path: Path) -> None:
    old = open_attempt(tmp_path, 1)
    for step in (1, 2, 3):
        stage(old, step)
        old.commit(step, 1, Parallelism.DDP, None)
    stage(old, 4)
    new = open_attempt(tmp_path, 2)
    assert new.open(is_complete) == tmp_path / "checkpoint-3"
    assert not old.staging.exists()

    stage(old, 4)
    before = snapshot(tmp_path)
    for act in (
        lambda: old.commit(4, 1, Parallelism.DDP, None),
        lambda: old.keep(1, ()),
        old.lease.check,
        lambda: old.open(is_complete),
    ):
        with pytest.raises(InfrastructureError, match="attempt 2 has taken over"):
            act()
    assert snapshot(tmp_path) == before

    # Outside Kubernetes nobody counts: the later one of two equal numbers has it.
    third = open_attempt(tmp_path, 2)
    third.lease.check()
    with pytest.raises(InfrastructureError, match="taken over"):
        new.lease.check()

    shutil.rmtree(tmp_path)
    with pytest.raises(InfrastructureError, match="a finished attempt"):
        third.lease.check()


@settings(max_examples=cases(60, 1200))
@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["open", "stage", "commit", "keep"])), max_size=24)
)
def test_whatever_attempts_do_at_once_the_newest_commit_is_whole(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, str]]
) -> None:
    """Attempts start, stage, commit and prune in any order; what counts never shrinks and is never torn."""
    root = tmp_path_factory.mktemp("checkpoints")
    attempts: dict[int, CheckpointFolder] = {}
    steps: dict[int, int] = {}
    reached = 0
    for number, act in acts:
        if act == "open" or number not in attempts:
            lease = WriterLease(root, new_holder({"TUNESMITH_ATTEMPT": str(number)}))
            attempts[number] = CheckpointFolder(root, parse_uri("pvc://o"), lease)
        folder = attempts[number]
        # Superseded, and so without effect.
        with contextlib.suppress(InfrastructureError):
            if act == "open":
                newest = folder.open(is_complete)
                steps[number] = step_of(newest) if newest else 0
            elif act == "keep":
                folder.keep(1, ())
            elif number in steps:
                stage(folder, steps[number] + 1)
                if act == "commit":
                    folder.commit(steps[number] + 1, 1, Parallelism.DDP, None)
                    steps[number] += 1
                    reached = max(reached, steps[number])
        found = newest_checkpoint(root)
        assert (step_of(found) if found else 0) == reached


@pytest.mark.parametrize(
    ("written", "asked", "refused"),
    [
        ((2, Parallelism.DDP), (4, Parallelism.DDP), False),
        ((2, Parallelism.ZERO2), (2, Parallelism.ZERO2), False),
        ((2, Parallelism.ZERO2), (4, Parallelism.ZERO2), True),
        ((2, Parallelism.ZERO3), (2, Parallelism.DDP), True),
    ],
)
def test_parts_fit_only_the_number_of_workers_that_wrote_them(
    tmp_path: Path, written: tuple[int, Parallelism], asked: tuple[int, Parallelism], refused: bool
) -> None:
    folder = open_attempt(tmp_path)
    stage(folder, 1)
    folder.commit(1, *written, None)
    if not refused:
        require_same_world(tmp_path / "checkpoint-1", *asked)
        return
    with pytest.raises(UserError, match=f"can't be resumed by {asked[0]} with {asked[1]}"):
        require_same_world(tmp_path / "checkpoint-1", *asked)


def test_the_manifest_says_who_wrote_on_what_terms(tmp_path: Path) -> None:
    folder = open_attempt(tmp_path, 7)
    stage(folder, 3)
    folder.commit(3, 4, Parallelism.ZERO3, None)
    manifest = json.loads((tmp_path / "checkpoint-3" / COMMIT_FILE).read_text())
    assert (manifest["attempt"], manifest["worldSize"], manifest["parallelism"]) == (7, 4, "ZeRO3")
    assert [file["path"] for file in manifest["files"]] == sorted(FILES)


def test_a_file_that_is_gone_matches_no_digest(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "changed").write_text("changed")
    (tmp_path / "removed").write_text("removed")
    files = sync_and_describe(tmp_path, ["kept", "changed", "removed"])
    (tmp_path / "changed").write_text("Changed")
    (tmp_path / "removed").unlink()
    assert matching_files(tmp_path, files) == {"kept"}


def test_another_folder_has_no_step(tmp_path: Path) -> None:
    assert step_of(tmp_path / "checkpoint-12") == 12
    with pytest.raises(ValueError, match="runs is no checkpoint"):
        step_of(tmp_path / "runs")
