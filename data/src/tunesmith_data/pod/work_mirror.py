"""Work files in a bucket, with a copy on the pod's own disk."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tunesmith_contract.artifact import File
from tunesmith_contract.layout import COMMIT_FILE
from tunesmith_contract.uris import StorageUri
from tunesmith_storage.buckets import Version
from tunesmith_storage.download import locked
from tunesmith_storage.mirror import Mirror

#: The last file that prepare leaves beside the rows.
PREPARED_REPORT_FILE = "report.json"


class WorkMirror:
    """The work folder of one resource in a bucket, and its copy on this pod's disk; paths are those on disk."""

    def __init__(self, uri: StorageUri, root: Path, roles: Sequence[str], secrets: Path) -> None:
        self.root = root
        self._mirror = Mirror(uri, root, roles, secrets)

    def holds(self, path: Path) -> bool:
        """True if a path belongs to the bucket's copy, and not to a volume."""
        return path.is_relative_to(self.root)

    def locked(self) -> AbstractContextManager[None]:
        """A lock on the copy: the ranks of a pod share it."""
        return locked(self.root)

    def stored_sizes(self, folder: Path) -> dict[Path, int]:
        """Files in the bucket below a folder, with their sizes in bytes."""
        entries = self._mirror.entries(self._relative(folder))
        return {self.root / path: entry.size_bytes for path, entry in entries.items()}

    def read(self, path: Path) -> bytes | None:
        """Content of a small file in the bucket; None if there is none."""
        return self._mirror.read(self._relative(path))

    def write(self, path: Path, data: bytes) -> None:
        """Store a small file in the bucket alone."""
        self._mirror.write(self._relative(path), data)

    def read_current(self, path: Path) -> tuple[bytes, Version] | None:
        """Content of a small file in the bucket with its version; None if there is none."""
        return self._mirror.read_current(self._relative(path))

    def write_if(self, path: Path, data: bytes, version: Version | None) -> bool:
        """Store a small file in the bucket alone, unless another writer came before; false if one did.

        Args:
            version: of the file that is replaced; None if there must be none.
        """
        return self._mirror.write_if(self._relative(path), data, version)

    def push(self, path: Path, last: str | None = None, *, without_last: bool = False) -> None:
        """Upload a file or folder; the file named ``last`` follows when all others are there, or is left out."""
        self._mirror.push(self._relative(path), last, without_last=without_last)

    def fetch(self, folder: Path, files: Iterable[File]) -> None:
        """Download those files of a folder that this disk lacks; each is compared with its digest.

        Raises:
            StorageError: the bucket does not answer; with the reason ArtifactDamaged it lacks a file, or holds others.
        """
        self._mirror.fetch(self._relative(folder), files)

    def pull(self, path: Path) -> None:
        """Download a file or folder; all ranks of a pod may call it."""
        with self.locked():
            self.download(path)

    def download(self, path: Path) -> None:
        """Download a file or folder; the caller must hold the lock."""
        self._mirror.pull(self._relative(path))

    def delete(self, folder: Path) -> None:
        """Remove a folder from the bucket; its commit file is deleted first, so that the rest counts as incomplete."""
        self._mirror.delete(self._relative(folder), first=(COMMIT_FILE, PREPARED_REPORT_FILE))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()
