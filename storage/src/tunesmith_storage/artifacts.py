"""Artifacts: folders whose manifest names every file, and whose name is the manifest's digest."""

import shutil
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE

from .download import fetch_files, locked, read_whole, sync_tree
from .errors import NotThere, StorageRefused, StorageUnavailable
from .files import describe_files, files_below, holds_files, sync, write_atomically
from .remote import Entry, Remote


def fetch_artifact(remote: Remote, digest: str | None, root: Path) -> Path:
    """Bring an artifact to disk: its manifest, checked against the digest, then every file against the manifest.

    Args:
        digest: what is expected; None takes what lies there.
        root: the folder below which the artifact gets one of its own, by its digest.

    Raises:
        StorageError: it is not there, or not what the digest says.
    """
    entries = remote.entries()
    entry = entries.get(MANIFEST_FILE)
    if entry is None:
        raise NotThere(
            "ArtifactNotFound", f"{remote.uri} holds no {MANIFEST_FILE}: write the URI of an artifact"
        )
    data = read_whole(remote, entry)
    found = sha256_digest(data)
    if digest is not None and found != digest:
        raise StorageRefused("ArtifactChanged", f"{remote.uri} is {found}, not {digest}: write its digest")
    folder = root / found.replace(":", "-")
    with locked(folder):
        if not (folder / MANIFEST_FILE).is_file():
            fetch_files(remote, entries, _parse(data, str(remote.uri)).files, folder)
            sync_tree(folder)
            write_atomically(folder / MANIFEST_FILE, data)
    return folder


def read_manifest(remote: Remote, entry: Entry) -> Manifest:
    """The manifest of an artifact that is not fetched yet.

    Raises:
        StorageError: it is no artifact's.
    """
    return _parse(read_whole(remote, entry), str(remote.uri))


def publish_artifact(remote: Remote, folder: Path) -> None:
    """Store an artifact's folder at the URI that its digest names, and verify it there.

    Killed and run again, it sends what is not there yet.

    Raises:
        StorageError: the store refuses, or holds other bytes under this digest.
    """
    data = (folder / MANIFEST_FILE).read_bytes()
    remote.publish(folder, _parse(data, str(folder)).files, data)


def place_folder(staged: Path, final: Path) -> None:
    """Move a finished folder to its content-addressed place on the same volume; what is there already is left.

    Raises:
        StorageUnavailable: the place holds other bytes.
    """
    for path in files_below(staged):
        sync(path)
    sync_tree(staged)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(final)
    except OSError:
        if not final.is_dir():
            raise
        if not holds_files(final, describe_files(staged)):
            message = f"{final} holds other files than its name says: move it away and run again"
            raise StorageUnavailable("ArtifactDamaged", message) from None
        shutil.rmtree(staged)
    sync(final.parent)


def _parse(data: bytes, where: str) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError:
        message = f"{where} holds a {MANIFEST_FILE} that is no artifact's: write the URI of an artifact"
        raise StorageRefused("InvalidManifest", message) from None
    for file in manifest.files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or file.path == MANIFEST_FILE:
            message = f"{where} lists {file.path}, which lies outside the artifact: use another artifact"
            raise StorageRefused("InvalidManifest", message)
    return manifest
