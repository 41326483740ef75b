"""Files out of a store: resumed where a download was cut short, whole once they bear their name."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tunesmith_contract.artifact import File

from .errors import StorageUnavailable
from .files import file_digest, holds_file, sync
from .remote import Entry, Remote
from .retries import with_retries

#: Files that are moved at the same time.
CONCURRENCY = 4


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep the processes of one node from filling a folder at the same time; the lock falls with the process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def in_parallel(actions: Iterable[Callable[[], object]]) -> None:
    """Carry out actions a few at a time; the first failure is raised once those under way have ended."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        futures = [pool.submit(action) for action in actions]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def fetch_entry(remote: Remote, entry: Entry, target: Path, sha256: str | None = None) -> None:
    """Bring one file to disk, from where an earlier try stopped, and going on where the line goes dead.

    Raises:
        StorageError: the store failed, or its bytes have another size or digest than they should.
    """
    sha256 = sha256 or entry.sha256
    part = _part_path(entry, target)
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    with_retries(partial(_append, remote, entry, part))
    if resumed and not _is_right(part, entry, sha256):
        # What an earlier try left may itself be bad: once more, from the start.
        part.unlink()
        with_retries(partial(_append, remote, entry, part))
    if not _is_right(part, entry, sha256):
        part.unlink()
        message = f"{entry.path or target.name} in {remote.uri} is not what it should be: store it again"
        raise StorageUnavailable("ArtifactDamaged", message)
    sync(part)
    part.replace(target)


def _append(remote: Remote, entry: Entry, part: Path) -> None:
    with part.open("ab") as stream:
        if stream.tell() > entry.size_bytes:
            stream.truncate(0)
            stream.seek(0)
        if stream.tell() < entry.size_bytes:
            for chunk in remote.read(entry, stream.tell()):
                stream.write(chunk)


def _is_right(part: Path, entry: Entry, sha256: str | None) -> bool:
    return part.stat().st_size == entry.size_bytes and sha256 in (None, file_digest(part))


def _part_path(entry: Entry, target: Path) -> Path:
    """Beside the target, named by the file's identity: parts of another version are never continued."""
    identity = hashlib.sha256(entry.identity.encode()).hexdigest()[:12]
    return target.with_name(f".{target.name}.{identity}.part")


def fetch_files(remote: Remote, entries: dict[str, Entry], files: Iterable[File], folder: Path) -> None:
    """Bring files to disk whose sizes and digests are known; those already there are not fetched again.

    Raises:
        StorageError: one is missing or damaged.
    """

    def fetch(file: File) -> None:
        if holds_file(folder, file):
            return
        entry = entries.get(file.path)
        if entry is None or entry.size_bytes != file.size_bytes:
            what = "is missing" if entry is None else "has another size than its manifest says"
            raise StorageUnavailable("ArtifactDamaged", f"{file.path} in {remote.uri} {what}: store it again")
        fetch_entry(remote, entry, folder / file.path, file.sha256)

    in_parallel(partial(fetch, file) for file in files)


def read_whole(remote: Remote, entry: Entry) -> bytes:
    """A small file's bytes."""
    return b"".join(remote.read(entry))


def sync_tree(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    for path, _, _ in os.walk(folder):
        sync(Path(path))
