"""Publication of a trained model: primary artifact with model card and metrics, then other formats."""

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
from tunesmith_trainer.train.exports import TrainedFiles, build_exports


def publish_result(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    probes: tuple[Probe, ...],
    workspace: Workspace,
    base: Path,
    history: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, float | int | None],
    tensors: dict[str, Any] | None = None,
) -> tuple[Artifact, tuple[Export, ...]]:
    """Publish the adapter or model, then the other requested formats.

    The primary artifact is published before the others are built, so that a failed conversion does not lose it.

    Args:
        model: a PeftModel where the run has an adapter, else the model.
        tokenizer: the base model's, with its chat template.
        config: the run.
        probes: token sequences by which a server verifies what it serves.
        workspace: the run's workspace.
        base: folder of the base model.
        history: the trainer's log.
        metrics: final metrics by name, for the model card.
        tensors: tensors by name, where they were gathered from several devices.

    Returns:
        The primary artifact, and those in other formats.

    Raises:
        UserError: a conversion fails for a reason in the user's model.
    """
    staged = stage_artifact(model, tokenizer, config, workspace, tensors)
    write_history(staged, history)
    write_card(staged, config, metrics)
    kept = workspace.staging / uuid.uuid4().hex
    link_folder(staged, kept)
    try:
        artifact = publish_folder(staged, artifact_kind(config), config, workspace, probes)
        return artifact, build_exports(config, TrainedFiles(base, kept, tokenizer), workspace)
    finally:
        shutil.rmtree(kept, ignore_errors=True)
