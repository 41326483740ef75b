"""Atomic writes, digests and comparison of local files."""

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tunesmith_contract.artifact import File


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, ``sha256:<hex>``."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def stream_digest(chunks: Iterable[bytes]) -> str:
    """Digest of the chunks in order, ``sha256:<hex>``."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return "sha256:" + digest.hexdigest()


def describe_files(folder: Path) -> tuple[File, ...]:
    """Sizes and digests of all files below a folder, sorted by path."""
    return tuple(
        File(
            path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=file_digest(path)
        )
        for path in sorted(files_below(folder))
    )


def holds_file(folder: Path, file: File) -> bool:
    """True where a folder holds a file with exactly the described bytes."""
    path = folder / file.path
    return path.is_file() and path.stat().st_size == file.size_bytes and file_digest(path) == file.sha256


def holds_files(folder: Path, files: Iterable[File]) -> bool:
    """True where a folder holds each of the files with exactly the described bytes."""
    return all(holds_file(folder, file) for file in files)


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, at any depth."""
    return (path for path in folder.rglob("*") if path.is_file())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that exists complete or not at all, even after a crash."""
    with open_atomically(path) as stream:
        stream.write(data)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Stream to a file that exists complete or not at all, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
