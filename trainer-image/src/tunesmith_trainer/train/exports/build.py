"""Makes what ``output.formats`` asks for beside the artefact itself, each an artefact of its own."""

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.report import Artifact, Export
from tunesmith_contract.run_config import OutputFormat, TrainConfig
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.train.artifact.files import publish_folder

from .gguf import save_gguf, write_modelfile
from .merged import save_merged


@dataclass(frozen=True, slots=True)
class Result:
    """What training left.

    Attributes:
        base: the base model's folder.
        artifact: a folder with the adapter or the whole model.
        tokenizer: the base model's, with its chat template.
    """

    base: Path
    artifact: Path
    tokenizer: PreTrainedTokenizerBase


def build_exports(config: TrainConfig, result: Result, workspace: Workspace) -> tuple[Export, ...]:
    """The artefacts of the formats beside the first.

    Raises:
        UserError: llama.cpp doesn't know the model.
    """
    wanted = [name for name in OutputFormat if name in config.formats and name is not OutputFormat.ADAPTER]
    if not wanted:
        return ()
    scratch = workspace.staging / uuid.uuid4().hex
    try:
        merged = _merged(config, result, scratch)
        exports = []
        if OutputFormat.GGUF in wanted:
            exports.append(_export(OutputFormat.GGUF, _gguf(merged, result, scratch), config, workspace))
        if OutputFormat.MERGED in wanted:
            exports.append(_export(OutputFormat.MERGED, merged, config, workspace))
        return tuple(sorted(exports, key=lambda export: wanted.index(export.format)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _merged(config: TrainConfig, result: Result, scratch: Path) -> Path:
    """The whole model: the artefact itself where all weights were trained."""
    if config.adapter is None:
        return result.artifact
    save_merged(result.base, result.artifact, result.tokenizer, scratch / "merged")
    return scratch / "merged"


def _gguf(merged: Path, result: Result, scratch: Path) -> Path:
    folder = scratch / "gguf"
    save_gguf(merged, folder)
    write_modelfile(folder, result.tokenizer)
    return folder


_KINDS = {OutputFormat.MERGED: ArtifactKind.MODEL, OutputFormat.GGUF: ArtifactKind.GGUF}


def _export(name: OutputFormat, folder: Path, config: TrainConfig, workspace: Workspace) -> Export:
    artifact: Artifact = publish_folder(folder, _KINDS[name], config, workspace)
    return Export(format=name, artifact=artifact)
