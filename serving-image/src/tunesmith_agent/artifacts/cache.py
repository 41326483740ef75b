"""Cache of artifacts on the pod's disk: a folder for each digest, read-only once complete, bounded in bytes."""

import os
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_storage.artifacts import MAX_MANIFEST_BYTES, artifact_folder
from tunesmith_storage.files import files_below, sync, write_atomically

from .errors import ArtifactInvalid, ArtifactUnreadable

_READ_ONLY_FILE, _READ_ONLY_FOLDER = 0o444, 0o555
#: Separates the digest from the rest in the name of a folder that is not complete.
_PART = ".part-"


@dataclass(slots=True)
class _Folder:
    """One folder of the cache.

    Attributes:
        size: bytes that it has or will have.
        used: when it was last used, seconds since the epoch.
        busy: a thread writes to it or reads all of it.
        verified: its bytes were hashed by this process.
    """

    digest: str
    size: int
    used: float
    busy: bool = False
    verified: bool = False


class ArtifactCache:
    """Folders of artifacts; what was used longest ago goes first, and never what is pinned.

    The methods may be called from several threads.

    Args:
        root: the folder of the cache, which belongs to this process alone.
        limit_bytes: most bytes of all folders together, complete or not.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root = root
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._folders: dict[str, _Folder] = {}
        self._pinned: frozenset[str] = frozenset()
        #: Folders that are removed outside of the lock: that takes time.
        self._trash: list[Path] = []

    @property
    def size(self) -> int:
        """Bytes that are taken or promised."""
        with self._lock:
            return sum(folder.size for folder in self._folders.values())

    def load(self) -> None:
        """Find the folders that former lives of this process left.

        Raises:
            OSError: the folder can't be made or read.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with self._lock:
            for path in self._root.iterdir():
                digest = _digest_of(path.name)
                if not digest or path.is_symlink() or not path.is_dir():
                    _remove(path)
                    continue
                size = sum(file.lstat().st_size for file in files_below(path))
                self._folders[path.name] = _Folder(digest, size, path.stat().st_mtime)

    def pin(self, digests: Collection[str]) -> None:
        """Keep these artifacts, and no others, however much room is needed."""
        with self._lock:
            for digest in self._pinned.difference(digests):
                path = artifact_folder(self._root, digest)
                if path.name in self._folders:
                    # It was in use until now, also for the next life of this process.
                    self._folders[path.name].used = time.time()
                    os.utime(path)
            self._pinned = frozenset(digests)

    def find(self, digest: str, *, verified: bool) -> Path | None:
        """Folder of a complete artifact; None if there is none.

        Args:
            verified: only one whose bytes this process has hashed.
        """
        path = artifact_folder(self._root, digest)
        with self._lock:
            folder = self._folders.get(path.name)
            if folder is None or (verified and not folder.verified):
                return None
            folder.used = time.time()
            return path

    def mark_verified(self, digest: str) -> None:
        """Record that all bytes of a complete artifact were hashed."""
        with self._lock:
            self._folders[artifact_folder(self._root, digest).name].verified = True

    def discard(self, digest: str) -> None:
        """Remove a complete artifact that is damaged."""
        with self._lock:
            self._drop(artifact_folder(self._root, digest).name)
        self._empty_trash()

    def begin(self, digest: str, size: int) -> Path:
        """Folder for the files of an artifact that is fetched, with room for all of them.

        One that an earlier try left is continued. It belongs to the caller until ``commit`` or ``release``.

        Raises:
            ArtifactInvalid: the artifact has more bytes than the whole cache.
            ArtifactUnreadable: what is pinned leaves no room.
        """
        if size > self._limit:
            message = (
                f"The artifact has {size:,} bytes, and engine.adapterCacheSize is {self._limit:,}: raise it to more "
                "than all adapters that are served have together."
            )
            raise ArtifactInvalid("ArtifactTooLarge", message)
        final = artifact_folder(self._root, digest).name
        with self._lock:
            name = next((name for name in self._parts(digest) if not self._folders[name].busy), "")
            name = name or f"{final}{_PART}{uuid.uuid4().hex}"
            self._make_room(size, keep=name)
            self._folders[name] = _Folder(digest, size, time.time(), busy=True)
        self._empty_trash()
        path = self._root / name
        path.mkdir(exist_ok=True)
        return path

    def commit(self, part: Path, digest: str, manifest: bytes) -> Path:
        """Complete an artifact whose files are all there; from now on nothing can be written to it.

        Raises:
            OSError: the disk is full or broken.
        """
        for path in files_below(part):
            path.chmod(_READ_ONLY_FILE)
        write_atomically(part / MANIFEST_FILE, manifest)
        (part / MANIFEST_FILE).chmod(_READ_ONLY_FILE)
        for folder_path, _, _ in os.walk(part):
            sync(Path(folder_path))
        final = artifact_folder(self._root, digest)
        with self._lock:
            # Another alias may have been faster.
            if final.name not in self._folders:
                part.rename(final)
                for folder_path, _, _ in os.walk(final):
                    os.chmod(folder_path, _READ_ONLY_FOLDER)
                folder = self._folders.pop(part.name)
                folder.busy, folder.verified, folder.used = False, True, time.time()
                self._folders[final.name] = folder
            for name in self._parts(digest):
                if not self._folders[name].busy:
                    self._drop(name)
        self._empty_trash()
        return final

    def release(self, part: Path) -> None:
        """Give back a folder from ``begin``: the next try continues it, unless the artifact is complete by now."""
        with self._lock:
            if part.name in self._folders:
                self._folders[part.name].busy = False
            if part.name.partition(_PART)[0] in self._folders:
                self._drop(part.name)
        self._empty_trash()

    def _empty_trash(self) -> None:
        while self._trash:
            _remove(self._trash.pop())

    # -- with the lock

    def _parts(self, digest: str) -> list[str]:
        prefix = f"{artifact_folder(self._root, digest).name}{_PART}"
        return [name for name in self._folders if name.startswith(prefix)]

    def _make_room(self, size: int, keep: str) -> None:
        taken = sum(folder.size for name, folder in self._folders.items() if name != keep)
        spare = [
            (folder.used, name)
            for name, folder in self._folders.items()
            if name != keep and not folder.busy and folder.digest not in self._pinned
        ]
        for _, name in sorted(spare):
            if taken + size <= self._limit:
                return
            taken -= self._folders[name].size
            self._drop(name)
        if taken + size > self._limit:
            message = (
                f"The adapter needs {size:,} bytes on the pod's disk, where adapters that are served take {taken:,} of "
                f"{self._limit:,}: raise engine.adapterCacheSize, or serve fewer adapters."
            )
            raise ArtifactUnreadable("CacheFull", message)

    def _drop(self, name: str) -> None:
        if self._folders.pop(name, None) is not None:
            trash = self._root / f"trash-{uuid.uuid4().hex}"
            (self._root / name).rename(trash)
            self._trash.append(trash)


def _digest_of(name: str) -> str:
    """Digest in the name of a folder; empty for names that no artifact has."""
    algorithm, separator, rest = name.partition("-")
    hexadecimal = rest.partition(_PART)[0]
    is_digest = len(hexadecimal) == 64 and all(character in "0123456789abcdef" for character in hexadecimal)
    return f"{algorithm}:{hexadecimal}" if algorithm == "sha256" and separator and is_digest else ""


def _remove(path: Path) -> None:
    """Remove a file or a folder; the folders of a complete artifact are read-only."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        os.chmod(folder, stat.S_IRWXU)
    shutil.rmtree(path, ignore_errors=True)


def read_local_manifest(folder: Path) -> bytes:
    """Bytes of the manifest of a folder of the cache; empty where it is absent or too large to be one."""
    try:
        with (folder / MANIFEST_FILE).open("rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError:
        return b""
    return data if len(data) <= MAX_MANIFEST_BYTES else b""
