"""Artefacts of earlier runs, verified before anything is loaded from them."""

from pathlib import Path

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE

from .failures import UserError
from .storage import Storage, holds_files


def open_artifact(storage: Storage, uri: str, digest: str | None = None) -> tuple[Path, Manifest]:
    """The folder and the manifest of an artefact whose files are those of its manifest.

    Args:
        storage: finds what the URI names.
        uri: the artefact's address.
        digest: what it has to be; any artefact will do if absent.

    Raises:
        UserError: it is missing, damaged, or another one.
    """
    folder = storage.artifact_folder(uri)
    data = (folder / MANIFEST_FILE).read_bytes()
    found = sha256_digest(data)
    if digest is not None and found != digest:
        raise UserError("ArtifactChanged", f"{uri} is {found}, not {digest}: write its digest")
    manifest = Manifest.model_validate_json(data)
    if not holds_files(folder, manifest.files):
        raise UserError("ArtifactDamaged", f"{uri} holds other files than its manifest says: copy it again")
    return folder, manifest
