"""Verification of artifacts that a run starts from or compares."""

from pathlib import Path

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.sources import ArtifactSource
from tunesmith_data.failures import UserError

from .storage import Storage, holds_files


def verified_artifact(
    source: ArtifactSource, storage: Storage, *, read_files: bool = True
) -> tuple[Path, Manifest]:
    """Folder and manifest of an artifact, after checking its digest and files.

    Args:
        source: URI and digest of the artifact.
        storage: storage that resolves the URI.
        read_files: compare the bytes of all files with the manifest.

    Raises:
        UserError: they are not.
    """
    folder = storage.artifact_folder(source.uri, source.digest)
    data = (folder / MANIFEST_FILE).read_bytes()
    actual = sha256_digest(data)
    if actual != source.digest:
        raise UserError("ArtifactChanged", f"{source.uri} is {actual}, not {source.digest}: write its digest")
    manifest = Manifest.model_validate_json(data)
    if read_files and not holds_files(folder, manifest.files):
        raise UserError(
            "ArtifactDamaged", f"{source.uri} holds other files than its manifest says: copy it again"
        )
    return folder, manifest
