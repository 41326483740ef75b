"""Verification of artifacts and checkpoints that a run starts from or compares."""

from pathlib import Path

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.checkpoint import CommitManifest
from tunesmith_contract.layout import COMMIT_FILE, MANIFEST_FILE
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


def verified_checkpoint(source: ArtifactSource, storage: Storage) -> Path:
    """Folder of a committed checkpoint, after checking its digest and the files that a model is loaded from.

    Args:
        source: URI of the checkpoint, and digest of its commit manifest.
        storage: storage that resolves the URI.

    Raises:
        UserError: the checkpoint is gone, is another one, or holds no weights that can be loaded.
    """
    folder = storage.checkpoint_folder(source.uri)
    data = (folder / COMMIT_FILE).read_bytes()
    actual = sha256_digest(data)
    if actual != source.digest:
        raise UserError(
            "CheckpointChanged",
            f"{source.uri} is {actual}, not {source.digest}: write its digest, or name another checkpoint",
        )
    files = CommitManifest.model_validate_json(data).files
    loaded = [
        file for file in files if "/" not in file.path and file.path.endswith((".safetensors", ".json"))
    ]
    if not any(file.path.endswith(".safetensors") for file in loaded):
        message = (
            f"{source.uri} holds no whole weights: DeepSpeed divided them among its workers. Compare the artifact of "
            "the job, or a checkpoint of a job with compute.parallelism: DDP"
        )
        raise UserError("CheckpointWithoutWeights", message)
    if not holds_files(folder, loaded):
        raise UserError("CheckpointDamaged", f"{source.uri} holds other files than its {COMMIT_FILE} says")
    return folder
