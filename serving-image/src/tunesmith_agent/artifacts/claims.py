"""Folder of an artifact on a mounted claim, as a store: read file by file, and never past a symbolic link."""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith_contract.artifact import File
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.uris import StorageUri
from tunesmith_storage.artifacts import MAX_MANIFEST_BYTES, parse_manifest
from tunesmith_storage.errors import StorageError, StorageRefused, StorageUnavailable
from tunesmith_storage.remote import Entry

_CHUNK_BYTES = 1024 * 1024


class ClaimFolder:
    """Files of one artifact on a claim; only those that its manifest lists exist for the reader.

    Every method raises StorageError.

    Args:
        uri: the artifact.
        claim: where the claim is mounted.
    """

    def __init__(self, uri: StorageUri, claim: Path) -> None:
        self.uri = uri
        self._claim = claim

    def entries(self) -> dict[str, Entry]:
        """The manifest and the files that it lists, as far as they exist.

        Files of a size that the manifest does not say are left to the reader, who compares.
        """
        manifest = self._entry(MANIFEST_FILE)
        if manifest is None:
            return {}
        entries = {MANIFEST_FILE: manifest}
        if manifest.size_bytes <= MAX_MANIFEST_BYTES:
            data = b"".join(self.read(manifest))
            for file in parse_manifest(data, str(self.uri)).files:
                if (entry := self._entry(file.path)) is not None:
                    entries[file.path] = entry
        return entries

    def read(self, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        """Bytes of a file from an offset on, no more than it had when it was listed."""
        left = entry.size_bytes - offset
        try:
            with open(self._open(entry.path), "rb") as stream:
                stream.seek(offset)
                while left > 0 and (chunk := stream.read(min(left, _CHUNK_BYTES))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise self._explain(error, entry.path) from None

    def publish(self, folder: Path, files: Sequence[File], manifest: bytes) -> None:
        """Refused: serving pods mount claims to read from them."""
        raise StorageRefused("InvalidUri", f"{self.uri} is mounted for reading alone")

    def _entry(self, path: str) -> Entry | None:
        try:
            descriptor = self._open(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._explain(error, path) from None
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return Entry(path, status.st_size, f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}")

    def _open(self, path: str) -> int:
        """Descriptor of a file below the claim, opened one folder after the other."""
        parts = [part for part in (*self.uri.path.split("/"), *path.split("/")) if part]
        folder = os.open(self._claim, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            # Without O_NONBLOCK, a pipe in place of the file would wait for a writer.
            return os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)

    def _explain(self, error: OSError, path: str) -> StorageError:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            message = (
                f"{path} in {self.uri} is or lies behind a symbolic link, which is not followed: store the artifact's "
                "own files, and write the URI of the folder that holds them"
            )
            return StorageUnavailable("SymbolicLink", message)
        message = f"{path} in {self.uri} can't be read: {error.strerror}"
        return StorageUnavailable("ArtifactNotFound", message)
