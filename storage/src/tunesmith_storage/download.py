"""Downloads from a store: resumed after an interruption, renamed to their final name when complete."""

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
from .files import holds_file, sync
from .remote import Entry, Remote
from .retries import with_retries

#: Transfers at the same time.
CONCURRENCY = 4
_CHUNK_BYTES = 1024 * 1024


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock on a folder between the processes of one node; it ends with the process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ignore_bytes(size: int) -> None:
    """No effect: nobody follows the progress of this download."""


def in_parallel(actions: Iterable[Callable[[], object]]) -> None:
    """Run actions, ``CONCURRENCY`` at a time; the first failure is raised when the running ones have ended."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        futures = [pool.submit(action) for action in actions]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def fetch_entry(
    remote: Remote,
    entry: Entry,
    target: Path,
    sha256: str | None = None,
    on_bytes: Callable[[int], None] = ignore_bytes,
) -> None:
    """Download one file, continuing an interrupted download, with retries where the connection fails.

    The bytes are hashed as they arrive; only those of an earlier try are read again.

    Args:
        on_bytes: called with the size of each piece before it is written; what it raises ends the download.

    Raises:
        StorageError: the store failed, or its bytes have another size or digest than expected.
    """
    sha256 = sha256 or entry.sha256
    part = _part_path(sha256 or entry.identity, target)
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    append = partial(_append, remote, entry, part, on_bytes)
    digest = with_retries(append)
    if resumed and not _is_complete(part, entry, digest, sha256):
        # The part of an earlier download may itself be damaged: once more, from the start.
        part.unlink()
        digest = with_retries(append)
    if not _is_complete(part, entry, digest, sha256):
        part.unlink()
        message = f"{entry.path or target.name} in {remote.uri} is damaged: store it again"
        raise StorageUnavailable("ArtifactDamaged", message)
    sync(part)
    part.replace(target)


def _append(remote: Remote, entry: Entry, part: Path, on_bytes: Callable[[int], None]) -> str:
    """Download what a part lacks; returns the digest of all its bytes."""
    with part.open("a+b") as stream:
        if stream.tell() > entry.size_bytes:
            stream.truncate(0)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        digest = hashlib.sha256()
        while data := stream.read(_CHUNK_BYTES):
            on_bytes(len(data))
            digest.update(data)
        if size < entry.size_bytes:
            for chunk in remote.read(entry, size):
                on_bytes(len(chunk))
                size += len(chunk)
                if size > entry.size_bytes:
                    # A store that sends more than it lists may not fill the disk.
                    break
                stream.write(chunk)
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _is_complete(part: Path, entry: Entry, digest: str, sha256: str | None) -> bool:
    return part.stat().st_size == entry.size_bytes and sha256 in (None, digest)


def _part_path(identity: str, target: Path) -> Path:
    """Partial file beside the target, named by the file's identity: parts of another version are never continued."""
    short = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return target.with_name(f".{target.name}.{short}.part")


def fetch_files(remote: Remote, entries: dict[str, Entry], files: Iterable[File], folder: Path) -> None:
    """Download files of known sizes and digests; those already on disk are not fetched again.

    Raises:
        StorageError: one is missing or damaged.
    """

    def fetch(file: File) -> None:
        if holds_file(folder, file):
            return
        entry = entries.get(file.path)
        if entry is None or entry.size_bytes != file.size_bytes:
            fault = "is missing" if entry is None else "has another size than its manifest says"
            raise StorageUnavailable(
                "ArtifactDamaged", f"{file.path} in {remote.uri} {fault}: store it again"
            )
        fetch_entry(remote, entry, folder / file.path, file.sha256)

    in_parallel(partial(fetch, file) for file in files)


def read_whole(remote: Remote, entry: Entry) -> bytes:
    """Bytes of a small file."""
    return b"".join(remote.read(entry))


def read_at_most(remote: Remote, entry: Entry, limit: int) -> bytes | None:
    """Bytes of a file; None where it has more than ``limit``, whatever the store says of its size."""
    if entry.size_bytes > limit:
        return None
    data = bytearray()
    for chunk in remote.read(entry):
        data += chunk
        if len(data) > limit:
            return None
    return bytes(data)


def sync_tree(folder: Path) -> None:
    """Flush the names in a folder, at any depth, to disk."""
    for path, _, _ in os.walk(folder):
        sync(Path(path))
