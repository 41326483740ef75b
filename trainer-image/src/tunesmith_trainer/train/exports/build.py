"""Artifacts of the formats in ``output.formats`` beyond the primary one."""

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
class ExportSources:
    """Files that exports are built from.

    Attributes:
        base: folder of the base model.
        artifact: folder with the adapter or the full model.
        tokenizer: the base model's tokenizer, with its chat template.
    """

    base: Path
    artifact: Path
    tokenizer: PreTrainedTokenizerBase


def build_exports(config: TrainConfig, trained: ExportSources, workspace: Workspace) -> tuple[Export, ...]:
    """Build and publish all requested formats but the adapter.

    Raises:
        UserError: the adapter can't be merged, or llama.cpp does not support the model.
    """
    wanted: list[OutputFormat] = [
        name for name in OutputFormat if name in config.formats and name is not OutputFormat.ADAPTER
    ]
    if not wanted:
        return ()
    scratch = workspace.staging / uuid.uuid4().hex
    try:
        merged = trained.artifact
        if config.adapter is not None:
            merged = scratch / "merged"
            save_merged(trained.base, trained.artifact, trained.tokenizer, merged)
        exports = []
        if OutputFormat.GGUF in wanted:
            gguf = scratch / "gguf"
            save_gguf(merged, gguf)
            write_modelfile(gguf, trained.tokenizer)
            exports.append(_export(OutputFormat.GGUF, gguf, config, workspace))
        if OutputFormat.MERGED in wanted:
            exports.append(_export(OutputFormat.MERGED, merged, config, workspace))
        return tuple(sorted(exports, key=lambda export: wanted.index(export.format)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


_KINDS = {OutputFormat.MERGED: ArtifactKind.MODEL, OutputFormat.GGUF: ArtifactKind.GGUF}


def _export(name: OutputFormat, folder: Path, config: TrainConfig, workspace: Workspace) -> Export:
    artifact: Artifact = publish_folder(folder, _KINDS[name], config, workspace)
    return Export(format=name, artifact=artifact)
