"""The model that all sides share, and each side's adapter on it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tunesmith_contract.run_config import AdapterSource, Side
from tunesmith_trainer.artifacts import verified_artifact
from tunesmith_trainer.data.render import Renderer
from tunesmith_trainer.failures import UserError
from tunesmith_trainer.model import load_config, load_tokenizer, model_revision
from tunesmith_trainer.storage import Storage


@dataclass(frozen=True, slots=True)
class Contestants:
    """The base model with the adapters of all sides loaded on it.

    Attributes:
        revision: the base model's.
        model: the model, switched by ``as_side``.
        renderer: renders prompts by the model's template.
        context: positions that the model knows; 0 if its configuration doesn't say.
    """

    revision: str
    model: Any
    renderer: Renderer
    context: int

    @contextmanager
    def as_side(self, side: Side) -> Iterator[Any]:
        """The model as one side has it."""
        if side.adapter is not None:
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
    adapters = {
        side.name: verified_adapter(side.adapter, revision, storage)
        for side in sides
        if side.adapter is not None
    }
    config = load_config(folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    for name, adapter in adapters.items():
        model = _with_adapter(model, name, adapter)
    context = getattr(config, "max_position_embeddings", None) or 0
    return Contestants(revision, model.eval(), Renderer(tokenizer), context)


def verified_adapter(source: AdapterSource, revision: str, storage: Storage) -> Path:
    """The folder of an artefact whose digest, files and base model are the expected ones.

    Raises:
        UserError: they are not.
    """
    folder, manifest = verified_artifact(source, storage)
    if manifest.lineage.base_model_revision != revision:
        message = (
            f"{source.uri} was trained on {manifest.lineage.base_model} at "
            f"{manifest.lineage.base_model_revision}, not at {revision}: evaluate it on that base model"
        )
        raise UserError("BaseModelMismatch", message)
    return folder


def _with_adapter(model: Any, name: str, folder: Path) -> Any:
    if isinstance(model, PeftModel):
        model.load_adapter(folder, adapter_name=name)
        return model
    return PeftModel.from_pretrained(model, folder, adapter_name=name)
