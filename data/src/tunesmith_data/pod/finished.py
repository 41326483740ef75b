"""Finished work of an earlier resource, which a pod takes over if it finds everything unchanged."""

import logging
from collections.abc import Mapping
from pathlib import Path

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.layout import FINISHED_ENV, MANIFEST_FILE, SecretRole
from tunesmith_contract.report import Artifact
from tunesmith_contract.sources import ArtifactSource
from tunesmith_contract.uris import MOUNTED, parse_uri
from tunesmith_storage.artifacts import parse_manifest, read_manifest_bytes
from tunesmith_storage.errors import StorageError
from tunesmith_storage.files import file_digest

from .secret_roles import Roles
from .storage import Storage

log = logging.getLogger(__name__)


def read_finished(environment: Mapping[str, str]) -> FinishedWork | None:
    """Finished work that the operator knows; None if it knows none, or none that this release can read."""
    text = environment.get(FINISHED_ENV)
    if not text:
        return None
    try:
        return FinishedWork.model_validate_json(text)
    except ValueError as error:
        log.warning("finished work that can't be read is done again: %s", error)
        return None


def holds_artifacts(finished: FinishedWork, storage: Storage) -> bool:
    """True if each artifact is stored under its digest, with files of the sizes that its manifest says.

    Raises:
        StorageError: the store does not answer; whether they are there is not known.
    """
    return bool(finished.artifacts) and all(_holds_artifact(source, storage) for source in finished.artifacts)


def holds_file(artifact: Artifact, storage: Storage, roles: Roles) -> bool:
    """True if the one file that an evaluation's answers are in is stored as it was.

    On a volume its bytes are compared; of a store its size, and its digest where the store tells it.

    Raises:
        StorageError: the store does not answer.
    """
    uri = parse_uri(artifact.uri)
    if uri.scheme in MOUNTED:
        path = storage.path(uri)
        return path.is_file() and file_digest(path) == artifact.digest
    try:
        entries = tuple(storage.open(uri, roles).entries().values())
    except StorageError as error:
        return _is_missing(artifact.uri, error)
    return len(entries) == 1 and (
        entries[0].size_bytes == artifact.size_bytes and entries[0].sha256 in (None, artifact.digest)
    )


def _holds_artifact(source: ArtifactSource, storage: Storage) -> bool:
    uri = parse_uri(source.uri)
    try:
        if uri.scheme in MOUNTED:
            return _holds_folder(source, storage.path(uri))
        remote = storage.open(uri, (SecretRole.OUTPUT,))
        entries = remote.entries()
        manifest = parse_manifest(read_manifest_bytes(remote, entries, source.digest), source.uri)
    except StorageError as error:
        return _is_missing(source.uri, error)
    sizes = {path: entry.size_bytes for path, entry in entries.items()}
    return _has_sizes(manifest, sizes)


def _holds_folder(source: ArtifactSource, folder: Path) -> bool:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        log.info("%s is gone", source.uri)
        return False
    data = path.read_bytes()
    if sha256_digest(data) != source.digest:
        log.warning("%s is another artifact than it was", source.uri)
        return False
    manifest = parse_manifest(data, source.uri)
    found = {file.path: folder / file.path for file in manifest.files}
    return _has_sizes(manifest, {name: file.stat().st_size for name, file in found.items() if file.is_file()})


def _has_sizes(manifest: Manifest, sizes: Mapping[str, int]) -> bool:
    return all(sizes.get(file.path) == file.size_bytes for file in manifest.files)


def _is_missing(uri: str, error: StorageError) -> bool:
    """False, for what the store surely does not hold.

    Raises:
        StorageError: the store may hold it.
    """
    if error.retryable:
        raise error
    log.warning("%s can't be taken over: %s", uri, error.message)
    return False
