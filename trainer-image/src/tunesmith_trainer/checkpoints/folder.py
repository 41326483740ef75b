"""Checkpoints that count only once their commit manifest is written, which is the last thing to be written.

A Hugging Face checkpoint is a folder that grows; one torn by a killed pod looks like a whole one. So a checkpoint
is saved in a staging folder of the attempt and, with all ranks' files and their digests in ``commit.json``, renamed
to ``checkpoint-<step>``. What carries that name is never written again. A folder without ``commit.json``, or
with files that differ from it, is as good as absent.
"""

import logging
import re
import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tunesmith_contract.artifact import File
from tunesmith_contract.base import Document, sha256_digest
from tunesmith_contract.layout import COMMIT_FILE
from tunesmith_contract.report import MAX_CHECKPOINTS, Checkpoint
from tunesmith_contract.run_config import Parallelism
from tunesmith_contract.uris import StorageUri
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import file_digest, sync, write_atomically

from .writer_lease import WriterLease

log = logging.getLogger(__name__)

_FOLDER = re.compile(r"checkpoint-(\d+)")
_STAGING = "staging-"
_DIGEST_THREADS = 8


class Commit(Document):
    """What a whole checkpoint holds, and how many workers on what terms wrote it."""

    schema_version: Literal[1] = 1
    step: int
    files: tuple[File, ...]
    world_size: int = 1
    parallelism: Parallelism = Parallelism.DDP
    attempt: int = 0
    eval_loss: float | None = None
    time: datetime


class CheckpointFolder:
    """The checkpoints of one run, as its first worker sees them.

    Attributes:
        root: the folder.
        lease: the right to write there.
        staging: where this attempt puts checkpoints together, on the volume that they will stay on.
    """

    def __init__(self, root: Path, uri: StorageUri, lease: WriterLease) -> None:
        self.root = root
        self.lease = lease
        self.staging = root / f"{_STAGING}{lease.holder.attempt}-{lease.holder.token}"
        self._uri = uri

    def open(self) -> Path | None:
        """Take the lease, remove what can't be resumed from, and find the newest whole checkpoint."""
        self.lease.take()
        newest = newest_checkpoint(self.root)
        discard_torn(self.root, newest)
        return newest

    def commit(self, step: int, world: int, parallelism: Parallelism, eval_loss: float | None) -> Checkpoint:
        """Declare the staged checkpoint of a step whole: its files are on disk before its manifest is.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        self.lease.check()
        staged = self.staging / f"checkpoint-{step}"
        final = self.root / staged.name
        commit = Commit(
            step=step,
            files=_describe_on_disk(staged),
            world_size=world,
            parallelism=parallelism,
            attempt=self.lease.holder.attempt,
            eval_loss=eval_loss,
            time=datetime.now(UTC),
        )
        write_atomically(staged / COMMIT_FILE, commit.to_json().encode())
        self.lease.check()
        if is_whole(final):
            shutil.rmtree(staged)
        else:
            shutil.rmtree(final, ignore_errors=True)
            staged.rename(final)
        sync(self.root)
        return self.describe(final)

    def describe(self, folder: Path) -> Checkpoint:
        """A committed checkpoint as a report names it."""
        data = (folder / COMMIT_FILE).read_bytes()
        commit = Commit.model_validate_json(data)
        return Checkpoint(
            step=commit.step,
            uri=str(self._uri.join(folder.name)),
            digest=sha256_digest(data),
            eval_loss=commit.eval_loss,
            time=commit.time,
        )

    def keep(self, count: int, besides: Collection[int]) -> None:
        """Remove committed checkpoints but the last ``count`` and those of the steps ``besides``."""
        self.lease.check()
        keep_newest(self.root, count, besides)

    def kept(self) -> tuple[Checkpoint, ...]:
        """The newest committed checkpoints, oldest first."""
        committed = [folder for folder in _folders(self.root) if (folder / COMMIT_FILE).is_file()]
        return tuple(self.describe(folder) for folder in reversed(committed[:MAX_CHECKPOINTS]))


def require_same_world(folder: Path, world: int, parallelism: Parallelism) -> None:
    """Refuse a checkpoint whose parts belong to another number of workers.

    Whole copies (DDP) go on with any number: the same rows make the same batches. DeepSpeed's parts do not.

    Raises:
        UserError: DeepSpeed's parts don't fit.
    """
    commit = Commit.model_validate_json((folder / COMMIT_FILE).read_bytes())
    parts = {commit.parallelism, parallelism} != {Parallelism.DDP}
    if parts and (commit.world_size, commit.parallelism) != (world, parallelism):
        message = (
            f"{folder.name} was written by {commit.world_size} devices with {commit.parallelism} and can't be "
            f"resumed by {world} with {parallelism}: ask for the same number of devices, or make a new job"
        )
        raise UserError("WorldSize", message)


def newest_checkpoint(root: Path) -> Path | None:
    """The newest whole checkpoint, verified byte by byte; None if there is none."""
    return next((folder for folder in _folders(root) if is_whole(folder)), None)


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is committed and its files are those of the commit."""
    try:
        commit = Commit.model_validate_json((folder / COMMIT_FILE).read_bytes())
        paths = [folder / file.path for file in commit.files]
        sizes = [path.stat().st_size for path in paths]
        if sizes != [file.size_bytes for file in commit.files]:
            return False
        with ThreadPoolExecutor(_DIGEST_THREADS) as pool:
            return list(pool.map(file_digest, paths)) == [file.sha256 for file in commit.files]
    except (OSError, ValidationError):
        return False


def discard_torn(root: Path, newest: Path | None) -> None:
    """Remove what can't be resumed from.

    That is: what earlier attempts staged, uncommitted folders, and those newer than the newest whole one.
    """
    floor = step_of(newest) if newest else -1
    for folder in _folders(root):
        if step_of(folder) > floor or not (folder / COMMIT_FILE).is_file():
            log.warning("checkpoint %s is incomplete: removed", folder.name)
            shutil.rmtree(folder)
    for folder in root.glob(f"{_STAGING}*"):
        # Its writer may still be alive: what it leaves is removed by the next attempt.
        shutil.rmtree(folder, ignore_errors=True)


def keep_newest(root: Path, keep: int, besides: Collection[int] = ()) -> None:
    """Remove committed checkpoints but the last ``keep`` and those of the steps ``besides``."""
    committed = [folder for folder in _folders(root) if (folder / COMMIT_FILE).is_file()]
    for folder in committed[keep:]:
        if step_of(folder) in besides:
            continue
        # Without its manifest first: a removal that is cut short leaves nothing that looks whole.
        (folder / COMMIT_FILE).unlink()
        shutil.rmtree(folder)


def is_checkpoint_name(name: str) -> bool:
    """Whether a folder of this name holds a checkpoint."""
    return _FOLDER.fullmatch(name) is not None


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    match = _FOLDER.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"{folder} is no checkpoint")
    return int(match[1])


def _describe_on_disk(folder: Path) -> tuple[File, ...]:
    """All files of a folder with sizes and digests, once they are on disk."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())

    def describe(path: Path) -> File:
        sync(path)
        name = path.relative_to(folder).as_posix()
        return File(path=name, size_bytes=path.stat().st_size, sha256=file_digest(path))

    with ThreadPoolExecutor(_DIGEST_THREADS) as pool:
        return tuple(pool.map(describe, paths))


def _folders(root: Path) -> list[Path]:
    """All checkpoint folders, newest first."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and is_checkpoint_name(path.name)]
    return sorted(folders, key=step_of, reverse=True)
