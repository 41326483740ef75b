"""From a trained model to its artefacts: the first, with card and history, and those in other formats."""

import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tunesmith_contract.artifact import Probe
from tunesmith_contract.report import Artifact, Export
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.pod.storage import link_folder
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.train.artifact.files import artifact_kind, publish_folder, stage_artifact
from tunesmith_trainer.train.artifact.model_card import write_card
from tunesmith_trainer.train.callbacks.history import write_history
from tunesmith_trainer.train.exports import Result, build_exports


def publish_result(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    probes: tuple[Probe, ...],
    workspace: Workspace,
    base: Path,
    history: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, float | int | None],
    tensors: dict[str, Any] | None = None,
) -> tuple[Artifact, tuple[Export, ...]]:
    """Publish the adapter or model, then the other formats that were asked for.

    The first is published before the others are made: a conversion that fails loses nothing.

    Args:
        model: a PeftModel where the run has an adapter, else the model.
        tokenizer: the base model's, with its chat template.
        config: what was asked for.
        probes: by which a server can prove what it serves.
        workspace: where to.
        base: the base model's folder.
        history: all that was logged.
        numbers: how training ended, for the card.
        tensors: the model's by name, where they have been gathered from several devices.
    """
    staged = stage_artifact(model, tokenizer, config, workspace, tensors)
    write_history(staged, history)
    write_card(staged, config, numbers)
    kept = workspace.staging / uuid.uuid4().hex
    link_folder(staged, kept)
    try:
        artifact = publish_folder(staged, artifact_kind(config), config, workspace, probes)
        return artifact, build_exports(config, Result(base, kept, tokenizer), workspace)
    finally:
        shutil.rmtree(kept, ignore_errors=True)
