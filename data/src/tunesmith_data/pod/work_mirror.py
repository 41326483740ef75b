"""Work files in a bucket: a pod works on its own disk, and what it commits goes to the bucket at once."""

import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from tunesmith_contract.artifact import File
from tunesmith_contract.base import Report
from tunesmith_contract.uris import StorageUri
from tunesmith_storage.download import locked
from tunesmith_storage.errors import StorageUnavailable
from tunesmith_storage.files import holds_files
from tunesmith_storage.mirror import Mirror

log = logging.getLogger(__name__)

#: The file that declares a checkpoint whole, and lists its files.
COMMIT_FILE = "commit.json"
#: The attempt that may write checkpoints; one that finds another there has been given up, and must not write.
LEASE_FILE = "lease.json"
_CHECKPOINT = re.compile(r"checkpoint-\d+")


class _Commit(Report):
    files: tuple[File, ...]


class _Lease(Report):
    attempt: int


class WorkMirror:
    """The work folder of one resource in a bucket, and its copy on this pod's disk."""

    def __init__(self, uri: StorageUri, root: Path, roles: Sequence[str], secrets: Path) -> None:
        self.root = root
        self._mirror = Mirror(uri, root, roles, secrets)

    def read(self, path: Path) -> bytes | None:
        """A small file of the bucket, by its local path; None where there is none."""
        return self._mirror.read(self._relative(path))

    def push(self, path: Path, last: str | None = None) -> None:
        """Upload a file or folder; the file named ``last`` follows when all others are there."""
        self._mirror.push(self._relative(path), last)

    def pull(self, path: Path) -> None:
        """Bring a file or folder to disk; the ranks of a pod may all ask for it."""
        with locked(self.root):
            self._mirror.pull(self._relative(path))

    def delete(self, folder: Path) -> None:
        """Remove a folder from the bucket; it looks incomplete as soon as it is."""
        self._mirror.delete(self._relative(folder), first=(COMMIT_FILE, "report.json"))

    def pull_checkpoints(self, folder: Path) -> None:
        """Bring every committed checkpoint to disk; one whose bytes are not those of its commit is left out."""
        with locked(self.root):
            for name in self._stored(folder, committed=True):
                if not _is_whole(folder / name):
                    self._pull_checkpoint(folder / name)

    def take_checkpoints(self, folder: Path) -> None:
        """Bring the lease that this attempt has taken on its own disk to the bucket.

        Raises:
            StorageError: a later attempt has it, or the bucket does not answer.
        """
        lease = folder / LEASE_FILE
        found = self.read(lease)
        if found and _attempt(found) > _attempt(lease.read_bytes()):
            raise _taken_over()
        self._mirror.write(self._relative(lease), lease.read_bytes())

    def save_checkpoints(self, folder: Path) -> None:
        """Upload committed checkpoints, the commit of each last, then remove those that are gone here.

        Raises:
            StorageError: another attempt has taken over, or the bucket does not answer.
        """
        self._check_lease(folder)
        local = {path.parent.name for path in folder.glob(f"*/{COMMIT_FILE}")}
        for name in sorted(filter(_CHECKPOINT.fullmatch, local - self._stored(folder, committed=True))):
            self.push(folder / name, last=COMMIT_FILE)
        self._check_lease(folder)
        for name in sorted(self._stored(folder) - local):
            self.delete(folder / name)

    def _stored(self, folder: Path, *, committed: bool = False) -> set[str]:
        """Names of the bucket's checkpoints: all, or those that are committed."""
        paths = [Path(path) for path in self._mirror.entries(self._relative(folder))]
        return {
            path.parts[1]
            for path in paths
            if len(path.parts) > 2
            and _CHECKPOINT.fullmatch(path.parts[1])
            and (not committed or path.parts[2:] == (COMMIT_FILE,))
        }

    def _pull_checkpoint(self, checkpoint: Path) -> None:
        self._mirror.pull(self._relative(checkpoint))
        if not _is_whole(checkpoint):
            log.warning("%s in the bucket is damaged: left out", checkpoint.name)
            shutil.rmtree(checkpoint, ignore_errors=True)

    def _check_lease(self, folder: Path) -> None:
        lease = folder / LEASE_FILE
        if self.read(lease) != lease.read_bytes():
            raise _taken_over()

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _attempt(lease: bytes) -> int:
    return _Lease.model_validate_json(lease).attempt


def _taken_over() -> StorageUnavailable:
    message = "another attempt has taken over the checkpoints of this run: this attempt writes nothing more"
    return StorageUnavailable("Superseded", message)


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint's files are those of its commit."""
    try:
        commit = _Commit.model_validate_json((folder / COMMIT_FILE).read_bytes())
    except (OSError, ValidationError):
        return False
    return holds_files(folder, commit.files)
