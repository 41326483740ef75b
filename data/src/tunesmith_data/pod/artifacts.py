"""Artefacts that a run starts from, or compares: verified before anything in them is loaded."""

from pathlib import Path

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.run_config import AdapterSource
from tunesmith_data.failures import UserError

from .storage import Storage, holds_files


def verified_artifact(source: AdapterSource, storage: Storage) -> tuple[Path, Manifest]:
    """The folder and manifest of an artefact whose digest and files are the expected ones.

    Raises:
        UserError: they are not.
    """
    folder = storage.artifact_folder(source.uri, source.digest)
    data = (folder / MANIFEST_FILE).read_bytes()
    found = sha256_digest(data)
    if found != source.digest:
        raise UserError("ArtifactChanged", f"{source.uri} is {found}, not {source.digest}: write its digest")
    manifest = Manifest.model_validate_json(data)
    if not holds_files(folder, manifest.files):
        raise UserError(
            "ArtifactDamaged", f"{source.uri} holds other files than its manifest says: copy it again"
        )
    return folder, manifest
