"""Copy of a run's checkpoints in a bucket: downloaded at the start, uploaded after each commit."""

import logging
import shutil

from tunesmith_contract.layout import COMMIT_FILE
from tunesmith_data.pod.work_mirror import WorkMirror
from tunesmith_data.pod.workspace import Workspace

from .folder import is_checkpoint_name, is_complete
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
        with mirror.locked():
            for name in self._stored(mirror, committed=True):
                checkpoint = self._folder / name
                if is_complete(checkpoint):
                    continue
                mirror.download(checkpoint)
                if not is_complete(checkpoint):
                    log.warning("%s in the bucket is damaged: skipped", name)
                    shutil.rmtree(checkpoint, ignore_errors=True)

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
        stored, own = mirror.read(lease), lease.read_bytes()
        holder = LeaseHolder.model_validate_json(stored) if stored else None
        if holder is not None and holder.attempt > LeaseHolder.model_validate_json(own).attempt:
            raise superseded(holder)
        mirror.write(lease, own)

    def save(self) -> None:
        """Upload new checkpoints, each with its manifest last, then delete those that are removed on disk.

        Raises:
            StorageError: the bucket does not answer.
            InfrastructureError: another attempt has taken over.
        """
        mirror = self._workspace.mirror
        if mirror is None:
            return
        self._check_lease(mirror)
        local = {path.parent.name for path in self._folder.glob(f"*/{COMMIT_FILE}")}
        for name in sorted(filter(is_checkpoint_name, local - self._stored(mirror, committed=True))):
            mirror.push(self._folder / name, last=COMMIT_FILE)
        self._check_lease(mirror)
        for name in sorted(self._stored(mirror) - local):
            mirror.delete(self._folder / name)
        self._workspace.push(self._workspace.logs)

    def _stored(self, mirror: WorkMirror, *, committed: bool = False) -> set[str]:
        """Names of the checkpoints in the bucket, or of the committed ones alone."""
        paths = [path.relative_to(self._folder) for path in mirror.stored_files(self._folder)]
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
