"""Checkpoints that count only once their commit manifest is written, which is the last thing to be written.

A Hugging Face checkpoint is a folder that grows; one torn by a killed pod looks like a whole one. So a folder
``checkpoint-<step>`` without ``commit.json``, or with files that differ from it, is as good as absent.
"""

import logging
import re
import shutil
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tunesmith_contract.artifact import File
from tunesmith_contract.base import Document
from tunesmith_trainer.storage import describe_files, holds_files, sync, write_atomically

log = logging.getLogger(__name__)

COMMIT_FILE = "commit.json"
_FOLDER = re.compile(r"checkpoint-(\d+)")


class Commit(Document):
    """What a whole checkpoint holds."""

    schema_version: Literal[1] = 1
    step: int
    files: tuple[File, ...]


def commit_checkpoint(folder: Path) -> None:
    """Declare a checkpoint whole: its files are on disk before its manifest is."""
    (folder / COMMIT_FILE).unlink(missing_ok=True)
    files = describe_files(folder)
    for file in files:
        sync(folder / file.path)
    write_atomically(folder / COMMIT_FILE, Commit(step=step_of(folder), files=files).to_json().encode())
    sync(folder.parent)


def newest_checkpoint(root: Path) -> Path | None:
    """The newest whole checkpoint, verified byte by byte; None if there is none."""
    return next((folder for folder in _folders(root) if is_whole(folder)), None)


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is committed and its files are those of the commit."""
    try:
        commit = Commit.model_validate_json((folder / COMMIT_FILE).read_bytes())
        return holds_files(folder, commit.files)
    except (OSError, ValidationError):
        # Another rank may be removing it at this moment.
        return False


def discard_torn(root: Path, newest: Path | None) -> None:
    """Remove what can't be resumed from: uncommitted folders, and those newer than the newest whole one."""
    floor = step_of(newest) if newest else -1
    for folder in _folders(root):
        if step_of(folder) > floor or not (folder / COMMIT_FILE).is_file():
            log.warning("checkpoint %s is incomplete: removed", folder.name)
            shutil.rmtree(folder)


def keep_newest(root: Path, keep: int) -> None:
    """Remove committed checkpoints but the last ``keep``."""
    committed = [folder for folder in _folders(root) if (folder / COMMIT_FILE).is_file()]
    for folder in committed[keep:]:
        # Without its manifest first: a removal that is cut short leaves nothing that looks whole.
        (folder / COMMIT_FILE).unlink()
        shutil.rmtree(folder)


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    match = _FOLDER.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"{folder} is no checkpoint")
    return int(match[1])


def _folders(root: Path) -> list[Path]:
    """All checkpoint folders, newest first."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name)]
    return sorted(folders, key=step_of, reverse=True)
