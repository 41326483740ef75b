"""Models of all sides: shared base model, adapters loaded on it, fully fine-tuned models."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_contract.run_config import AdapterSource, Side
from tunesmith_data.failures import UserError
from tunesmith_data.models.inspection import load_config, model_revision
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.pod.artifacts import verified_artifact
from tunesmith_data.pod.storage import Storage


@dataclass(frozen=True, slots=True)
class LoadedSides:
    """Base model with the adapters of all sides loaded on it.

    Attributes:
        revision: revision of the base model.
        model: the base model with adapters, switched by ``activate``.
        renderer: renderer with the model's chat template.
        context_length: maximum number of positions; 0 if the model's configuration names none.
        full_models: folders of fully fine-tuned models by the name of the side.
    """

    revision: str
    model: Any
    renderer: Renderer
    context_length: int
    full_models: Mapping[str, Path]

    @contextmanager
    def activate(self, side: Side) -> Iterator[Any]:
        """Model of one side; a fully fine-tuned one is in memory only within the context."""
        if side.name in self.full_models:
            yield _load(self.full_models[side.name]).eval()
        elif side.adapter is not None:
            self.model.set_adapter(side.name)
            yield self.model
        elif isinstance(self.model, PeftModel):
            with self.model.disable_adapter():
                yield self.model
        else:
            yield self.model


def load_sides(base_model: str, sides: Sequence[Side], storage: Storage) -> LoadedSides:
    """Verify all artifacts, then load the base model and the sides' adapters.

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
    config = load_config(folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = _load(folder)
    for name, adapter in adapters.items():
        if isinstance(model, PeftModel):
            model.load_adapter(adapter, adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, adapter, adapter_name=name)
    context_length = getattr(config, "max_position_embeddings", None) or 0
    return LoadedSides(revision, model.eval(), Renderer(tokenizer), context_length, full_models)


def _load(folder: Path) -> Any:
    on_gpu = torch.cuda.is_available()
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        local_files_only=True,
        use_safetensors=True,
    )
    return model.to("cuda" if on_gpu else "cpu")


def _verified(source: AdapterSource, revision: str, storage: Storage) -> tuple[Path, Manifest]:
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
