"""Artifacts by URI and digest: from the cache, else copied to it from a claim or a store."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunesmith_contract.artifact import File, Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.uris import MOUNTED, InvalidUri, StorageUri, parse_uri
from tunesmith_storage.artifacts import parse_manifest, read_manifest_bytes
from tunesmith_storage.download import fetch_entry
from tunesmith_storage.errors import StorageError
from tunesmith_storage.files import stream_digest
from tunesmith_storage.remote import Entry, Remote
from tunesmith_storage.stores import open_remote

from .cache import ArtifactCache, read_local_manifest
from .checks import EngineLimits, check_manifest
from .claims import ClaimFolder
from .errors import ArtifactInvalid, ArtifactUnreadable

log = logging.getLogger(__name__)

#: Storage errors that no retry can mend; a Secret, a right or a damaged file may be corrected while the pod runs.
_PERMANENT = frozenset({"ArtifactChanged", "InvalidManifest"})

_CHUNK_BYTES = 1024 * 1024

#: Called with the size of each piece that was read; what it raises ends the reading.
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One artifact in the cache."""

    folder: Path
    manifest: Manifest


class ArtifactSources:
    """Artifacts that these pods can serve.

    Args:
        cache: the artifacts on the pod's disk.
        mount_root: where claims are mounted.
        secrets: where Secrets are mounted, a folder for each role.
        limits: what manifests are checked against.
    """

    def __init__(self, cache: ArtifactCache, mount_root: Path, secrets: Path, limits: EngineLimits) -> None:
        self._cache = cache
        self._mount_root = mount_root
        self._secrets = secrets
        self._limits = limits

    def find_verified(self, digest: str) -> Artifact | None:
        """Artifact whose bytes this process has hashed already; None if there is none."""
        folder = self._cache.find(digest, verified=True)
        if folder is None or not (data := read_local_manifest(folder)):
            return None
        return Artifact(folder, parse_manifest(data, str(folder)))

    def open(self, uri: str, digest: str, on_bytes: Progress) -> Artifact:
        """Artifact in the cache, each of whose bytes was hashed and compared with the digest.

        Blocks. An interrupted copy is continued; a damaged one is made anew.

        Raises:
            ArtifactInvalid: the URI names nothing, something else than the digest says, or what can't be served here.
            ArtifactUnreadable: it can't be read or copied at the moment.
        """
        try:
            return self._open_local(digest, on_bytes) or self._copy(self._open_source(uri), digest, on_bytes)
        except StorageError as error:
            if error.reason in _PERMANENT:
                raise ArtifactInvalid(error.reason, error.message) from error
            raise ArtifactUnreadable(error.reason, error.message) from error
        except OSError as error:
            message = f"The pod's disk can't take the artifact: {error.strerror or type(error).__name__}."
            raise ArtifactUnreadable("ScratchFull", message) from error

    def _open_source(self, uri: str) -> Remote:
        try:
            parsed = parse_uri(uri)
        except InvalidUri as error:
            raise ArtifactInvalid("InvalidUri", str(error)) from error
        if parsed.scheme in MOUNTED:
            return ClaimFolder(parsed, self._claim(parsed))
        return open_remote(parsed, [SecretRole.ARTIFACTS], self._secrets)

    def _claim(self, uri: StorageUri) -> Path:
        return self._mount_root / uri.scheme / uri.name

    def _open_local(self, digest: str, on_bytes: Progress) -> Artifact | None:
        """Artifact that was copied before, perhaps by a former life of this process; a damaged one is removed."""
        if artifact := self.find_verified(digest):
            check_manifest(artifact.manifest, self._limits)
            return artifact
        folder = self._cache.find(digest, verified=False)
        if folder is None:
            return None
        data = read_local_manifest(folder)
        try:
            manifest = parse_manifest(data, str(folder)) if sha256_digest(data) == digest else None
        except StorageError:
            manifest = None
        if manifest is None or not all(_is_intact(folder, file, on_bytes) for file in manifest.files):
            log.warning("the local copy of an artifact is damaged", extra={"digest": digest})
            self._cache.discard(digest)
            return None
        check_manifest(manifest, self._limits)
        self._cache.mark_verified(digest)
        return Artifact(folder, manifest)

    def _copy(self, source: Remote, digest: str, on_bytes: Progress) -> Artifact:
        entries = source.entries()
        on_bytes(0)
        data = read_manifest_bytes(source, entries, digest)
        manifest = parse_manifest(data, str(source.uri))
        check_manifest(manifest, self._limits)
        part = self._cache.begin(digest, len(data) + sum(file.size_bytes for file in manifest.files))
        try:
            for file in manifest.files:
                _copy_file(source, entries, file, part, on_bytes)
            return Artifact(self._cache.commit(part, digest, data), manifest)
        finally:
            self._cache.release(part)


def _copy_file(
    source: Remote, entries: dict[str, Entry], file: File, folder: Path, on_bytes: Progress
) -> None:
    """Copy one file, unless an earlier try has."""
    entry, target = entries.get(file.path), folder / file.path
    if target.is_file() and _is_intact(folder, file, on_bytes):
        return
    if entry is None or entry.size_bytes != file.size_bytes:
        fault = "is missing" if entry is None else "has another size than its manifest says"
        raise ArtifactUnreadable("ArtifactDamaged", f"{file.path} in {source.uri} {fault}: store it again.")
    fetch_entry(source, entry, target, file.sha256, on_bytes)


def _is_intact(folder: Path, file: File, on_bytes: Progress) -> bool:
    """True where a folder of the cache holds exactly the bytes of a file."""
    path = folder / file.path
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    with path.open("rb") as stream:
        chunks = iter(partial(stream.read, _CHUNK_BYTES), b"")
        return stream_digest(_followed(chunks, on_bytes)) == file.sha256


def _followed(chunks: Iterable[bytes], on_bytes: Progress) -> Iterator[bytes]:
    for chunk in chunks:
        on_bytes(len(chunk))
        yield chunk
