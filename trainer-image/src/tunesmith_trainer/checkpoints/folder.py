"""Checkpoint folders on disk: names, commit manifest, verification and removal.

A Hugging Face checkpoint is written file by file, and one cut short by a killed pod looks complete. So a checkpoint
is saved in a staging folder of the attempt, gets a manifest ``commit.json`` with the digests of all ranks' files as
its last file, and is renamed to ``checkpoint-<step>``. A folder of that name is never written again. A folder without
``commit.json``, or with files that differ from it, counts as absent.
"""

import logging
import shutil
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from tunesmith_contract.artifact import File
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.checkpoint import CommitManifest
from tunesmith_contract.layout import COMMIT_FILE, checkpoint_name, checkpoint_step
from tunesmith_contract.report import MAX_CHECKPOINTS, Checkpoint
from tunesmith_contract.run_config import Parallelism
from tunesmith_contract.uris import MOUNTED, StorageUri
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import sync, write_atomically

from .digests import matching_files, sync_and_describe
from .writer_lease import WriterLease

log = logging.getLogger(__name__)

_STAGING = "staging-"


class CheckpointFolder:
    """Checkpoints of one run, as its first worker commits them.

    Attributes:
        root: the folder.
        lease: this attempt's write lease.
        staging: folder of unfinished checkpoints of this attempt, on the same volume.
        shared: all nodes of the run see this folder; otherwise each has its own copy of it.
    """

    def __init__(self, root: Path, uri: StorageUri, lease: WriterLease) -> None:
        self.root = root
        self.lease = lease
        self.staging = root / f"{_STAGING}{lease.holder.attempt}-{lease.holder.token}"
        self.shared = uri.scheme in MOUNTED
        self._uri = uri

    def open(self, verify: Callable[[Path], bool]) -> Path | None:
        """Take the lease and remove incomplete checkpoints; the newest complete one, or None.

        Args:
            verify: tells if a checkpoint is complete.

        Raises:
            InfrastructureError: a later attempt holds the lease.
        """
        self.lease.take()
        newest = newest_checkpoint(self.root, verify)
        remove_incomplete(self.root, newest)
        return newest

    def staged(self, step: int) -> Path:
        """Folder of a step's checkpoint before it is committed."""
        return self.staging / checkpoint_name(step)

    def commit(
        self,
        step: int,
        world: int,
        parallelism: Parallelism,
        eval_loss: float | None,
        described: Iterable[File] = (),
    ) -> Checkpoint:
        """Commit the staged checkpoint of a step; its files are synced to disk before its manifest is written.

        Args:
            step: number of steps done.
            world: number of workers.
            parallelism: DDP or a ZeRO stage.
            eval_loss: validation loss of this step.
            described: files that the ranks have synced and digested; all others are here.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        self.lease.check()
        staged = self.staged(step)
        final = self.root / staged.name
        commit = CommitManifest(
            step=step,
            files=self._describe_files(staged, described),
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

    def _describe_files(self, staged: Path, described: Iterable[File]) -> tuple[File, ...]:
        """All files of a staged checkpoint, sorted by name."""
        here = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
        # Files of other nodes count: they may not be visible yet, or are on the disks of those nodes.
        known = {file.path: file for file in described}
        rest = sync_and_describe(staged, sorted(here - known.keys()))
        return tuple(sorted([*known.values(), *rest], key=lambda file: file.path))

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

    def adopt(self, step: int) -> None:
        """Move the staged files of a step to where the first node commits theirs, on a disk of another node."""
        final = self.root / checkpoint_name(step)
        shutil.rmtree(final, ignore_errors=True)
        self.staged(step).rename(final)

    def drop_copies(self) -> None:
        """Remove all checkpoints from the disk of another node, which fetches what it needs again."""
        for folder in _folders(self.root):
            shutil.rmtree(folder)

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


def is_complete(folder: Path) -> bool:
    """True if a checkpoint is committed and its files match the digests of its manifest."""
    commit = read_commit(folder)
    return commit is not None and len(matching_files(folder, commit.files)) == len(commit.files)


def newest_checkpoint(root: Path, verify: Callable[[Path], bool] = is_complete) -> Path | None:
    """The newest complete checkpoint, verified by digests; None if there is none."""
    return next((folder for folder in _folders(root) if verify(folder)), None)


def read_commit(folder: Path) -> CommitManifest | None:
    """Manifest of a committed checkpoint; None if there is none, or files are missing or have another size."""
    try:
        commit = CommitManifest.model_validate_json((folder / COMMIT_FILE).read_bytes())
        sizes = [(folder / file.path).stat().st_size for file in commit.files]
    except (OSError, ValidationError):
        return None
    return commit if sizes == [file.size_bytes for file in commit.files] else None


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


def _folders(root: Path) -> list[Path]:
    """All checkpoint folders, newest first."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and is_checkpoint_name(path.name)]
    return sorted(folders, key=step_of, reverse=True)
