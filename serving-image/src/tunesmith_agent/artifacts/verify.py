"""Find an artifact below the mounts and check every byte of it against its digest."""

import hashlib
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from tunesmith_contract.artifact import File, Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.uris import MOUNT_ROOT, InvalidUri, mount_path, parse_uri

#: What the engine reads of an adapter: a manifest without them says nothing about what is served.
NEEDED_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors"})


class ArtifactUnreadable(Exception):
    """Not there, or not readable, at the moment; the storage may yet bring it. ``reason`` is a PascalCase word."""

    def __init__(self, message: str, reason: str = "ArtifactNotFound") -> None:
        super().__init__(message)
        self.reason = reason


class ArtifactInvalid(Exception):
    """Not what its digest says: no second look will change that. ``reason`` is a PascalCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def locate_artifact(uri: str, mount_root: Path) -> Path:
    """The folder of an artifact.

    Raises:
        ArtifactInvalid: the URI names nothing that is mounted.
    """
    try:
        return mount_root / mount_path(parse_uri(uri)).relative_to(MOUNT_ROOT)
    except InvalidUri as error:
        raise ArtifactInvalid("InvalidUri", str(error)) from error


def verify_artifact(folder: Path, digest: str) -> Manifest:
    """Read the manifest and check it, and each file that it lists, against the digest.

    Blocks: it reads every byte.

    Raises:
        ArtifactUnreadable: a file is missing or can't be read.
        ArtifactInvalid: a digest or size differs, or the manifest is not one of an adapter.
    """
    manifest = _read_manifest(folder, digest)
    listed = {file.path for file in manifest.files}
    if missing := NEEDED_FILES - listed:
        raise ArtifactInvalid("InvalidManifest", f"The manifest does not list {', '.join(sorted(missing))}.")
    if not manifest.probes:
        raise ArtifactInvalid(
            "NoProbes", "The manifest has no probes: nothing could prove that it is active."
        )
    for file in manifest.files:
        _verify_file(folder, file)
    return manifest


def _read_manifest(folder: Path, digest: str) -> Manifest:
    try:
        data = (folder / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise ArtifactUnreadable(f"{folder / MANIFEST_FILE}: {error.strerror}") from error
    if (found := sha256_digest(data)) != digest:
        raise ArtifactInvalid("DigestMismatch", f"{MANIFEST_FILE} has digest {found} instead of {digest}.")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactInvalid("InvalidManifest", f"{MANIFEST_FILE}: {where}: {first['msg']}") from error


def _verify_file(folder: Path, file: File) -> None:
    path = PurePosixPath(file.path)
    if path.is_absolute() or ".." in path.parts:
        raise ArtifactInvalid("InvalidManifest", f"{file.path} lies outside the artifact.")
    try:
        with (folder / path).open("rb") as stream:
            found = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactUnreadable(f"{folder / path}: {error.strerror}") from error
    if found != file.sha256:
        raise ArtifactInvalid("DigestMismatch", f"{file.path} has digest {found} instead of {file.sha256}.")
