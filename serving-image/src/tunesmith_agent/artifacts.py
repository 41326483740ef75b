"""Artifacts of adapters on this pod: mounted or fetched, and verified against their digest."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from tunesmith_contract.artifact import File, Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE, SecretRole
from tunesmith_contract.uris import MOUNT_ROOT, MOUNTED, InvalidUri, StorageUri, mount_path, parse_uri
from tunesmith_storage.artifacts import artifact_folder, fetch_artifact, parse_manifest
from tunesmith_storage.errors import StorageError
from tunesmith_storage.files import holds_file
from tunesmith_storage.stores import open_remote

#: Files of an adapter that the engine reads: a manifest must list them.
REQUIRED_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors"})

#: Storage errors that no retry can mend; a Secret or a right may be corrected while the pod runs.
_PERMANENT = frozenset({"ArtifactChanged", "InvalidManifest"})


class ArtifactError(Exception):
    """Artifact that can't be served; ``reason`` is a PascalCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ArtifactUnreadable(ArtifactError):
    """Artifact that can't be read now, but perhaps later."""


class ArtifactInvalid(ArtifactError):
    """Artifact that differs from its digest or is not an adapter's: a retry can't help."""


class ArtifactFolders:
    """Folders of verified artifacts, for the engine.

    Args:
        mount_root: where volumes are mounted.
        secrets: where Secrets are mounted, a folder for each role.
        scratch: where fetched artifacts are stored, by their digests; the engine reads them from there.
    """

    def __init__(self, mount_root: Path, secrets: Path, scratch: Path) -> None:
        self._mount_root = mount_root
        self._secrets = secrets
        self._scratch = scratch

    def open(self, uri: str, digest: str) -> tuple[Path, Manifest]:
        """Folder and manifest of an artifact, each of whose bytes was read once and checked against the digest.

        Blocks. An artifact that is not mounted is fetched; an interrupted download is continued.

        Raises:
            ArtifactInvalid: the URI names nothing, or something else than the digest says.
            ArtifactUnreadable: it can't be read or fetched at the moment.
        """
        try:
            parsed = parse_uri(uri)
            if parsed.scheme not in MOUNTED:
                return self._open_fetched(parsed, digest)
            folder = self._mount_root / mount_path(parsed).relative_to(MOUNT_ROOT)
        except InvalidUri as error:
            raise ArtifactInvalid("InvalidUri", str(error)) from error
        return folder, verify_artifact(folder, digest)

    def remove(self, digest: str) -> None:
        """Remove a fetched artifact."""
        shutil.rmtree(artifact_folder(self._scratch, digest), ignore_errors=True)

    def _open_fetched(self, uri: StorageUri, digest: str) -> tuple[Path, Manifest]:
        # Fetching checks the digest of each file as it arrives, but does not read an earlier, complete download.
        fetched_before = (artifact_folder(self._scratch, digest) / MANIFEST_FILE).is_file()
        try:
            remote = open_remote(uri, [SecretRole.ARTIFACTS], self._secrets)
            folder = fetch_artifact(remote, digest, self._scratch)
        except StorageError as error:
            if error.reason in _PERMANENT:
                raise ArtifactInvalid(error.reason, error.message) from error
            raise ArtifactUnreadable(error.reason, error.message) from error
        except OSError as error:
            raise ArtifactUnreadable("ScratchFull", f"{self._scratch}: {error.strerror}") from error
        if fetched_before:
            return folder, verify_artifact(folder, digest)
        return folder, _read_manifest(folder, digest)


def verify_artifact(folder: Path, digest: str) -> Manifest:
    """Manifest of an adapter's artifact, checked with every file that it lists against the digest.

    Blocks: it reads every byte.

    Raises:
        ArtifactUnreadable: a file is missing or can't be read.
        ArtifactInvalid: a digest or size differs, or the manifest is not an adapter's.
    """
    manifest = _read_manifest(folder, digest)
    _verify_files(folder, manifest.files)
    return manifest


def _read_manifest(folder: Path, digest: str) -> Manifest:
    try:
        data = (folder / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise ArtifactUnreadable("ArtifactNotFound", f"{folder / MANIFEST_FILE}: {error.strerror}") from error
    if (actual := sha256_digest(data)) != digest:
        raise ArtifactInvalid("DigestMismatch", f"{MANIFEST_FILE} has digest {actual} instead of {digest}.")
    try:
        manifest = parse_manifest(data, str(folder))
    except StorageError as error:
        raise ArtifactInvalid(error.reason, error.message) from error
    if missing := REQUIRED_FILES - {file.path for file in manifest.files}:
        raise ArtifactInvalid("InvalidManifest", f"The manifest does not list {', '.join(sorted(missing))}.")
    if not manifest.probes:
        raise ArtifactInvalid(
            "NoProbes", "The manifest has no probes: nothing could prove that it is active."
        )
    return manifest


def _verify_files(folder: Path, files: Iterable[File]) -> None:
    for file in files:
        path = folder / file.path
        try:
            # A missing file may appear later; one with other bytes is final.
            path.stat()
            unchanged = holds_file(folder, file)
        except OSError as error:
            raise ArtifactUnreadable("ArtifactNotFound", f"{path}: {error.strerror}") from error
        if not unchanged:
            raise ArtifactInvalid(
                "DigestMismatch",
                f"{file.path} has not the {file.size_bytes} bytes with digest {file.sha256}.",
            )
