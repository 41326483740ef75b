"""Files that are there whole or not at all, and their digests."""

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tunesmith_contract.artifact import File


def file_digest(path: Path) -> str:
    """``sha256:<hex>`` of a file's bytes."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def stream_digest(chunks: Iterable[bytes]) -> str:
    """``sha256:<hex>`` of the chunks."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return "sha256:" + digest.hexdigest()


def describe_files(folder: Path) -> tuple[File, ...]:
    """All files below a folder with sizes and digests, by path."""
    return tuple(
        File(
            path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=file_digest(path)
        )
        for path in sorted(files_below(folder))
    )


def holds_file(folder: Path, file: File) -> bool:
    """Whether a folder holds a file, byte for byte."""
    path = folder / file.path
    return path.is_file() and path.stat().st_size == file.size_bytes and file_digest(path) == file.sha256


def holds_files(folder: Path, files: Iterable[File]) -> bool:
    """Whether a folder holds each of the files, byte for byte."""
    return all(holds_file(folder, file) for file in files)


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, at any depth."""
    return (path for path in folder.rglob("*") if path.is_file())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whenever the machine stops."""
    with open_atomically(path) as stream:
        stream.write(data)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which is there whole or not at all, whenever the machine stops."""
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
    """Bring a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
