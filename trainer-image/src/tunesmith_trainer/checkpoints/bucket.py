"""Copies of a run's checkpoints in a bucket: each pod uploads the files that it wrote, the first one the manifest.

A checkpoint in a bucket counts once its ``commit.json`` is there, which is written last, by one pod, and only when the
bucket holds all files that it lists.
"""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from tunesmith_contract.artifact import File
from tunesmith_contract.checkpoint import CommitManifest
from tunesmith_contract.layout import COMMIT_FILE
from tunesmith_data.failures import InfrastructureError
from tunesmith_data.pod.storage import write_atomically
from tunesmith_data.pod.work_mirror import WorkMirror
from tunesmith_data.pod.workspace import Workspace
from tunesmith_storage.errors import StorageError, StorageUnavailable

from .folder import is_checkpoint_name
from .writer_lease import LEASE_FILE, LeaseHolder, superseded

log = logging.getLogger(__name__)


class BucketCheckpoints:
    """Synchronization of committed checkpoints with the workspace's bucket; does nothing if that is a volume."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._folder = workspace.checkpoints

    def pull(self) -> None:
        """Download all committed checkpoints; one that does not match its manifest is skipped with a warning.

        Raises:
            StorageError: the bucket does not answer.
        """
        mirror = self._workspace.mirror
        if mirror is None:
            return
        for name in self._stored(mirror, committed=True):
            self.fetch(name)

    def fetch(self, name: str) -> bool:
        """Download what this disk lacks of a committed checkpoint; false, with a warning, if it is damaged or absent.

        Raises:
            StorageError: the bucket does not answer.
        """
        mirror = self._workspace.mirror
        assert mirror is not None
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with mirror.locked():
            data = mirror.read(folder / COMMIT_FILE)
            try:
                files = _parse(data).files
                _require_space(folder, files)
                mirror.fetch(folder, files)
            except StorageError as error:
                if error.reason != _DAMAGED:
                    raise
                log.warning("%s in the bucket is damaged: skipped (%s)", name, error)
                shutil.rmtree(folder, ignore_errors=True)
                return False
            assert data is not None
            # Last here as well: without it the folder counts as absent.
            write_atomically(folder / COMMIT_FILE, data)
        return True

    def take_lease(self) -> None:
        """Upload the lease that this attempt has taken on its own disk.

        Raises:
            StorageError: the bucket does not answer.
            InfrastructureError: a later attempt holds the lease.
        """
        mirror = self._workspace.mirror
        if mirror is None:
            return
        lease = self._folder / LEASE_FILE
        own = lease.read_bytes()
        while True:
            current = mirror.read_current(lease)
            holder = LeaseHolder.model_validate_json(current[0]) if current else None
            if holder is not None and holder.attempt > LeaseHolder.model_validate_json(own).attempt:
                raise superseded(holder)
            # Another attempt that took it since then is read again: each is refused by a later one.
            if mirror.write_if(lease, own, current[1] if current else None):
                return

    def remove_others(self) -> None:
        """Delete checkpoints from the bucket that this disk lacks: parts that a lost pod left, and damaged ones.

        Raises:
            StorageError: the bucket does not answer.
            InfrastructureError: another attempt has taken over.
        """
        mirror = self._workspace.mirror
        if mirror is None:
            return
        self._check_lease(mirror)
        for name in sorted(self._stored(mirror) - self._committed_here()):
            mirror.delete(self._folder / name)

    def upload(self, name: str) -> None:
        """Upload this disk's files of a checkpoint, all but its manifest.

        Raises:
            StorageError: the bucket does not answer.
            InfrastructureError: another attempt has taken over.
        """
        mirror = self._workspace.mirror
        if mirror is None:
            return
        self._check_lease(mirror)
        mirror.push(self._folder / name, last=COMMIT_FILE, without_last=True)

    def commit(self) -> None:
        """Upload the manifests of new checkpoints, whose files are all there; delete what is removed on this disk.

        Raises:
            StorageError: the bucket does not answer, or lacks a file.
            InfrastructureError: another attempt has taken over.
        """
        mirror = self._workspace.mirror
        if mirror is None:
            return
        here = self._committed_here()
        for name in sorted(here - self._stored(mirror, committed=True)):
            self._commit(mirror, self._folder / name)
        self.remove_others()
        self._workspace.push(self._workspace.logs)

    def _commit(self, mirror: WorkMirror, folder: Path) -> None:
        data = (folder / COMMIT_FILE).read_bytes()
        stored = {
            path.relative_to(folder).as_posix(): size for path, size in mirror.stored_sizes(folder).items()
        }
        missing = [file.path for file in _parse(data).files if stored.get(file.path) != file.size_bytes]
        if missing:
            message = f"{folder.name} lacks {', '.join(missing[:3])} in the bucket: it does not count"
            raise StorageUnavailable("CheckpointIncomplete", message)
        # In this order: who was given up after its check finds another version, and writes nothing.
        current = mirror.read_current(folder / COMMIT_FILE)
        self._check_lease(mirror)
        if not mirror.write_if(folder / COMMIT_FILE, data, current[1] if current else None):
            raise superseded(None)

    def _committed_here(self) -> set[str]:
        names = {path.parent.name for path in self._folder.glob(f"*/{COMMIT_FILE}")}
        return set(filter(is_checkpoint_name, names))

    def _stored(self, mirror: WorkMirror, *, committed: bool = False) -> set[str]:
        """Names of the checkpoints in the bucket, or of the committed ones alone."""
        paths = [path.relative_to(self._folder) for path in mirror.stored_sizes(self._folder)]
        return {
            path.parts[0]
            for path in paths
            if len(path.parts) > 1
            and is_checkpoint_name(path.parts[0])
            and (not committed or path.parts[1:] == (COMMIT_FILE,))
        }

    def _check_lease(self, mirror: WorkMirror) -> None:
        lease = self._folder / LEASE_FILE
        stored = mirror.read(lease)
        if stored != lease.read_bytes():
            raise superseded(LeaseHolder.model_validate_json(stored) if stored else None)


_DAMAGED = "ArtifactDamaged"
_GIB = 1024**3


def _require_space(folder: Path, files: Iterable[File]) -> None:
    """Check that the disk has room for what it lacks of a checkpoint.

    Raises:
        InfrastructureError: it has not.
    """
    lacking = sum(file.size_bytes for file in files if not (folder / file.path).is_file())
    free = shutil.disk_usage(folder).free
    if lacking > free:
        message = (
            f"{folder.name} takes {lacking / _GIB:.1f} GiB on each pod's disk, of which {free / _GIB:.1f} GiB are "
            "free: write more ephemeral-storage in compute.resources.requests"
        )
        raise InfrastructureError("StorageFull", message)


def _parse(data: bytes | None) -> CommitManifest:
    """Manifest of a checkpoint.

    Raises:
        StorageUnavailable: there is none, or it is damaged.
    """
    try:
        if data is not None:
            return CommitManifest.model_validate_json(data)
    except ValidationError:
        pass
    raise StorageUnavailable(_DAMAGED, f"it has no readable {COMMIT_FILE}")
