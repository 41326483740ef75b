"""Verified folders of the base model and of the sides' artifacts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_contract.evaluation import Side
from tunesmith_contract.sources import ArtifactSource
from tunesmith_data.failures import UserError
from tunesmith_data.models.inspection import model_revision
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.pod.artifacts import verified_artifact
from tunesmith_data.pod.storage import Storage


@dataclass(frozen=True, slots=True)
class VerifiedSides:
    """Folders from which all sides are loaded.

    Attributes:
        revision: revision of the base model.
        base: folder of the base model.
        adapters: folders of adapters by the name of the side.
        full_models: folders of fully fine-tuned models by the name of the side.
    """

    revision: str
    base: Path
    adapters: Mapping[str, Path]
    full_models: Mapping[str, Path]

    def model_folder(self, side: str) -> Path:
        """Folder of the model that answers for a side, without its adapter."""
        return self.full_models.get(side, self.base)

    def loading_order(self, sides: Sequence[Side]) -> list[Side]:
        """The sides in an order in which every model is loaded once: those on the base model first."""
        return sorted(
            sides, key=lambda side: (side.name in self.full_models, str(self.model_folder(side.name)))
        )


def verify_sides(base_model: str, sides: Sequence[Side], storage: Storage) -> VerifiedSides:
    """Fetch the base model and all artifacts, and verify them.

    Raises:
        UserError: an artifact is missing, damaged, or was trained on another base model.
    """
    folder = storage.model_folder(base_model, weights=True)
    revision = model_revision(base_model, folder)
    adapters: dict[str, Path] = {}
    full_models: dict[str, Path] = {}
    for side in sides:
        if side.adapter is not None:
            artifact_folder, manifest = _verified(side.adapter, revision, storage)
            target = full_models if manifest.kind is ArtifactKind.MODEL else adapters
            target[side.name] = artifact_folder
    return VerifiedSides(revision, folder, adapters, full_models)


def padded_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a padding token."""
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _verified(source: ArtifactSource, revision: str, storage: Storage) -> tuple[Path, Manifest]:
    """Folder and manifest of an artifact that can be evaluated on this base model.

    Raises:
        UserError: its digest, files, base model or kind are not the expected ones.
    """
    folder, manifest = verified_artifact(source, storage)
    if manifest.lineage.base_model_revision != revision:
        message = (
            f"{source.uri} was trained on {manifest.lineage.base_model} at "
            f"{manifest.lineage.base_model_revision}, not at {revision}: evaluate it on that base model"
        )
        raise UserError("BaseModelMismatch", message)
    if manifest.kind in {ArtifactKind.REWARD_ADAPTER, ArtifactKind.REWARD_MODEL, ArtifactKind.GGUF}:
        message = f"{source.uri} is a {manifest.kind}: an adapter or a whole causal model can be evaluated"
        raise UserError("ArtifactKind", message)
    return folder, manifest
