"""Checkpoint folders on disk: names, commit manifest, verification and removal.

A Hugging Face checkpoint is written file by file, and one cut short by a killed pod looks complete. So a checkpoint
is saved in a staging folder of the attempt, gets a manifest ``commit.json`` with the digests of all ranks' files as
its last file, and is renamed to ``checkpoint-<step>``. A folder of that name is never written again. A folder without
``commit.json``, or with files that differ from it, counts as absent.
"""

import logging
import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tunesmith_contract.artifact import File
from tunesmith_contract.base import Document, sha256_digest
from tunesmith_contract.layout import COMMIT_FILE, checkpoint_name, checkpoint_step
from tunesmith_contract.report import MAX_CHECKPOINTS, Checkpoint
from tunesmith_contract.run_config import Parallelism
from tunesmith_contract.uris import StorageUri
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import file_digest, sync, write_atomically

from .writer_lease import WriterLease

log = logging.getLogger(__name__)

_STAGING = "staging-"
_DIGEST_THREADS = 8


class CommitManifest(Document):
    """Contents of ``commit.json``: files of a checkpoint, and the distributed set-up that wrote them."""

    schema_version: Literal[1] = 1
    step: int
    files: tuple[File, ...]
    world_size: int = 1
    parallelism: Parallelism = Parallelism.DDP
    attempt: int = 0
    eval_loss: float | None = None
    time: datetime


class CheckpointFolder:
    """Checkpoints of one run, as written by its first worker.

    Attributes:
        root: the folder.
        lease: this attempt's write lease.
        staging: folder of unfinished checkpoints of this attempt, on the same volume.
    """

    def __init__(self, root: Path, uri: StorageUri, lease: WriterLease) -> None:
        self.root = root
        self.lease = lease
        self.staging = root / f"{_STAGING}{lease.holder.attempt}-{lease.holder.token}"
        self._uri = uri

    def open(self) -> Path | None:
        """Take the lease and remove incomplete checkpoints; the newest complete one, or None.

        Raises:
            InfrastructureError: a later attempt holds the lease.
        """
        self.lease.take()
        newest = newest_checkpoint(self.root)
        remove_incomplete(self.root, newest)
        return newest

    def commit(self, step: int, world: int, parallelism: Parallelism, eval_loss: float | None) -> Checkpoint:
        """Commit the staged checkpoint of a step; its files are synced to disk before its manifest is written.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        self.lease.check()
        staged = self.staging / checkpoint_name(step)
        final = self.root / staged.name
        commit = CommitManifest(
            step=step,
            files=_sync_and_describe(staged),
            world_size=world,
            parallelism=parallelism,
            attempt=self.lease.holder.attempt,
            eval_loss=eval_loss,
            time=datetime.now(UTC),
        )
        write_atomically(staged / COMMIT_FILE, commit.to_json().encode())
        self.lease.check()
        if is_complete(final):
            shutil.rmtree(staged)
        else:
            shutil.rmtree(final, ignore_errors=True)
            staged.rename(final)
        sync(self.root)
        return self.describe(final)

    def describe(self, folder: Path) -> Checkpoint:
        """Step, URI, digest and validation loss of a committed checkpoint."""
        data = (folder / COMMIT_FILE).read_bytes()
        commit = CommitManifest.model_validate_json(data)
        return Checkpoint(
            step=commit.step,
            uri=str(self._uri.join(folder.name)),
            digest=sha256_digest(data),
            eval_loss=commit.eval_loss,
            time=commit.time,
        )

    def keep(self, count: int, besides: Collection[int]) -> None:
        """Remove all committed checkpoints but the newest ``count`` and those of the steps in ``besides``.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        self.lease.check()
        keep_newest(self.root, count, besides)

    def committed(self) -> tuple[Checkpoint, ...]:
        """The newest MAX_CHECKPOINTS committed checkpoints, oldest first."""
        committed = [folder for folder in _folders(self.root) if (folder / COMMIT_FILE).is_file()]
        return tuple(self.describe(folder) for folder in reversed(committed[:MAX_CHECKPOINTS]))


def require_same_world(folder: Path, world: int, parallelism: Parallelism) -> None:
    """Check that a checkpoint can be resumed by this number of workers.

    DDP checkpoints hold whole copies and can be resumed by any number. DeepSpeed's are partitioned by worker.

    Raises:
        UserError: the checkpoint is partitioned for another world size or ZeRO stage.
    """
    commit = CommitManifest.model_validate_json((folder / COMMIT_FILE).read_bytes())
    partitioned = {commit.parallelism, parallelism} != {Parallelism.DDP}
    if partitioned and (commit.world_size, commit.parallelism) != (world, parallelism):
        message = (
            f"{folder.name} was written by {commit.world_size} devices with {commit.parallelism} and can't be "
            f"resumed by {world} with {parallelism}: ask for the same number of devices, or make a new job"
        )
        raise UserError("WorldSize", message)


def newest_checkpoint(root: Path) -> Path | None:
    """The newest complete checkpoint, verified by digests; None if there is none."""
    return next((folder for folder in _folders(root) if is_complete(folder)), None)


def is_complete(folder: Path) -> bool:
    """True if a checkpoint is committed and its files match the digests of its manifest."""
    try:
        commit = CommitManifest.model_validate_json((folder / COMMIT_FILE).read_bytes())
        paths = [folder / file.path for file in commit.files]
        sizes = [path.stat().st_size for path in paths]
        if sizes != [file.size_bytes for file in commit.files]:
            return False
        with ThreadPoolExecutor(_DIGEST_THREADS) as pool:
            return list(pool.map(file_digest, paths)) == [file.sha256 for file in commit.files]
    except (OSError, ValidationError):
        return False


def remove_incomplete(root: Path, newest: Path | None) -> None:
    """Remove staging folders, uncommitted folders, and all newer than the newest complete checkpoint."""
    floor = step_of(newest) if newest else -1
    for folder in _folders(root):
        if step_of(folder) > floor or not (folder / COMMIT_FILE).is_file():
            log.warning("checkpoint %s is incomplete: removed", folder.name)
            shutil.rmtree(folder)
    for folder in root.glob(f"{_STAGING}*"):
        # Its writer may still be running; the next attempt removes what it writes after this.
        shutil.rmtree(folder, ignore_errors=True)


def keep_newest(root: Path, keep: int, besides: Collection[int] = ()) -> None:
    """Remove all committed checkpoints but the newest ``keep`` and those of the steps in ``besides``."""
    committed = [folder for folder in _folders(root) if (folder / COMMIT_FILE).is_file()]
    for folder in committed[keep:]:
        if step_of(folder) in besides:
            continue
        # The manifest goes first, so that an interrupted removal leaves no folder that looks complete.
        (folder / COMMIT_FILE).unlink()
        shutil.rmtree(folder)


def is_checkpoint_name(name: str) -> bool:
    """True for folder names of the form ``checkpoint-<step>``."""
    return checkpoint_step(name) is not None


def step_of(folder: Path) -> int:
    """Step of a checkpoint folder, from its name.

    Raises:
        ValueError: the name is not that of a checkpoint.
    """
    step = checkpoint_step(folder.name)
    if step is None:
        raise ValueError(f"{folder} is no checkpoint")
    return step


def _sync_and_describe(folder: Path) -> tuple[File, ...]:
    """Sync all files of a folder to disk; their names, sizes and digests."""
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
