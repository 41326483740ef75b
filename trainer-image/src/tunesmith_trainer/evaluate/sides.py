"""The model that all sides share, each side's adapter on it, and sides that are whole models of their own."""

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
class Contestants:
    """The base model with the adapters of all sides loaded on it.

    Attributes:
        revision: the base model's.
        model: the model, switched by ``as_side``.
        renderer: renders prompts by the model's template.
        context: positions that the model knows; 0 if its configuration doesn't say.
        wholes: folders of whole models, tuned from the base model, by the side's name.
    """

    revision: str
    model: Any
    renderer: Renderer
    context: int
    wholes: Mapping[str, Path]

    @contextmanager
    def as_side(self, side: Side) -> Iterator[Any]:
        """The model as one side has it; a whole one is in memory only as long as this lasts."""
        if side.name in self.wholes:
            yield _load(self.wholes[side.name]).eval()
        elif side.adapter is not None:
            self.model.set_adapter(side.name)
            yield self.model
        elif isinstance(self.model, PeftModel):
            with self.model.disable_adapter():
                yield self.model
        else:
            yield self.model


def load_contestants(base_model: str, sides: Sequence[Side], storage: Storage) -> Contestants:
    """Load the base model and every side's adapter, verified before anything is loaded.

    Raises:
        UserError: an artefact is missing, damaged, or was trained on another base model.
    """
    folder = storage.model_folder(base_model, weights=True)
    revision = model_revision(base_model, folder)
    adapters, wholes = {}, {}
    for side in sides:
        if side.adapter is not None:
            found, manifest = _verified(side.adapter, revision, storage)
            (wholes if manifest.kind is ArtifactKind.MODEL else adapters)[side.name] = found
    config = load_config(folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = _load(folder)
    for name, adapter in adapters.items():
        model = _with_adapter(model, name, adapter)
    context = getattr(config, "max_position_embeddings", None) or 0
    return Contestants(revision, model.eval(), Renderer(tokenizer), context, wholes)


def _load(folder: Path) -> Any:
    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        local_files_only=True,
        use_safetensors=True,
    )
    return model.to("cuda" if on_gpu else "cpu")


def verified_adapter(source: AdapterSource, revision: str, storage: Storage) -> Path:
    """The folder of an artefact whose digest, files and base model are the expected ones.

    Raises:
        UserError: they are not.
    """
    return _verified(source, revision, storage)[0]


def _verified(source: AdapterSource, revision: str, storage: Storage) -> tuple[Path, Manifest]:
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


def _with_adapter(model: Any, name: str, folder: Path) -> Any:
    if isinstance(model, PeftModel):
        model.load_adapter(folder, adapter_name=name)
        return model
    return PeftModel.from_pretrained(model, folder, adapter_name=name)
