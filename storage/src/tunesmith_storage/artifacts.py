"""Fetching and publishing of artifacts: folders named by the digest of a manifest that lists every file."""

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE

from .download import fetch_files, locked, read_at_most, sync_tree
from .errors import NotFound, StorageRefused, StorageUnavailable
from .files import describe_files, files_below, holds_files, sync, write_atomically
from .remote import Entry, Remote

#: A manifest with the most probes and files has a tenth of it. Whoever reads one has its bytes in memory.
MAX_MANIFEST_BYTES = 1024 * 1024


def fetch_artifact(remote: Remote, digest: str | None, root: Path) -> Path:
    """Download an artifact: its manifest, checked against the digest, then every file, checked against the manifest.

    Files of an earlier, complete download are not read again.

    Args:
        digest: the expected digest; None accepts any.
        root: the folder in which the artifact gets a folder named by its digest.

    Raises:
        StorageError: the URI holds no artifact, or one of another digest.
    """
    entries = remote.entries()
    data = read_manifest_bytes(remote, entries, digest)
    folder = artifact_folder(root, sha256_digest(data))
    with locked(folder):
        if not (folder / MANIFEST_FILE).is_file():
            fetch_files(remote, entries, parse_manifest(data, str(remote.uri)).files, folder)
            sync_tree(folder)
            write_atomically(folder / MANIFEST_FILE, data)
    return folder


def read_manifest(remote: Remote, entries: Mapping[str, Entry]) -> Manifest:
    """Manifest of an artifact that is not fetched yet.

    Raises:
        StorageError: the entries hold no manifest of an artifact.
    """
    return parse_manifest(read_manifest_bytes(remote, entries), str(remote.uri))


def read_manifest_bytes(remote: Remote, entries: Mapping[str, Entry], digest: str | None = None) -> bytes:
    """Bytes of the manifest of an artifact that is not fetched yet.

    Args:
        digest: the expected digest; None accepts any.

    Raises:
        StorageError: there is no manifest, it is too large to be one, or it has another digest.
    """
    entry = entries.get(MANIFEST_FILE)
    if entry is None:
        raise NotFound(
            "ArtifactNotFound", f"{remote.uri} holds no {MANIFEST_FILE}: write the URI of an artifact"
        )
    data = read_at_most(remote, entry, MAX_MANIFEST_BYTES)
    if data is None:
        message = (
            f"{MANIFEST_FILE} in {remote.uri} has more than {MAX_MANIFEST_BYTES} bytes, which no artifact's has: "
            "write the URI of an artifact"
        )
        raise StorageRefused("InvalidManifest", message)
    if digest is not None and (stored := sha256_digest(data)) != digest:
        message = f"{remote.uri} is {stored}, not {digest}: write its digest"
        raise StorageRefused("ArtifactChanged", message)
    return data


def publish_artifact(remote: Remote, folder: Path) -> None:
    """Upload an artifact's folder to the URI that its digest names, and verify it there.

    Interrupted and run again, it sends only what is missing.

    Raises:
        StorageError: the store refuses, or holds other bytes under this digest.
    """
    data = (folder / MANIFEST_FILE).read_bytes()
    remote.publish(folder, parse_manifest(data, str(folder)).files, data)


def place_folder(staged: Path, final: Path) -> None:
    """Move a finished folder to its content-addressed place on the same volume, unless it is there already.

    Raises:
        StorageUnavailable: the place holds other files.
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


def artifact_folder(root: Path, digest: str) -> Path:
    """Folder of a fetched artifact below the root of all fetched artifacts."""
    return root / digest.replace(":", "-")


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Manifest of an artifact, all of whose files lie inside the artifact's folder.

    Args:
        where: the place of the manifest, for messages.

    Raises:
        StorageRefused: the bytes are not the manifest of an artifact.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"{field}: {first['msg']}" if field else first["msg"]
        message = f"{where} holds a {MANIFEST_FILE} that is not an artifact's ({problem}): write the URI of an artifact"
        raise StorageRefused("InvalidManifest", message) from None
    for file in manifest.files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or file.path == MANIFEST_FILE:
            message = f"{where} lists {file.path}, which lies outside the artifact: use another artifact"
            raise StorageRefused("InvalidManifest", message)
    return manifest
