"""A checkpoint counts only whole, whichever of its files is torn."""

from pathlib import Path

import pytest

from tunesmith_trainer.train.checkpoints import (
    COMMIT_FILE,
    commit_checkpoint,
    discard_torn,
    keep_newest,
    newest_checkpoint,
)

FILES = ("adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "nested/state.json")


def make_checkpoint(root: Path, step: int, *, commit: bool = True) -> Path:
    folder = root / f"checkpoint-{step}"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of step {step}")
    if commit:
        commit_checkpoint(folder)
    return folder


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
    discard_torn(tmp_path, whole)
    assert not harmed.exists()
    assert newest_checkpoint(tmp_path) == whole


def test_steps_count_as_numbers_and_other_folders_are_left(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    make_checkpoint(tmp_path, 9)
    newest = make_checkpoint(tmp_path, 100)
    assert newest_checkpoint(tmp_path) == newest
    discard_torn(tmp_path, newest)
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
    discard_torn(tmp_path, None)
    assert list(tmp_path.iterdir()) == []
