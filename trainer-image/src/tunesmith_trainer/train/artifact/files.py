"""Artifact files: weights of an adapter or a model, manifest, content-addressed location."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

import tunesmith_data
import tunesmith_trainer
from tunesmith_contract.answer_formats import ChatFormat
from tunesmith_contract.artifact import ArtifactKind, File, Lineage, Manifest
from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_contract.report import Artifact
from tunesmith_contract.run_config import AdapterType, TrainConfig
from tunesmith_data.pod.storage import describe_files, file_digest, write_atomically
from tunesmith_data.pod.workspace import Workspace

from .model_card import CARD_FILE
from .probes import NO_PROBES, MeasuredProbes

# safetensors creates files with mode 0600, which a serving pod of another user can't read.
_FILE_MODE = 0o644
_RECORDED_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "deepspeed",
    "bitsandbytes",
    "tunesmith-trainer",
)
_ADAPTER_KINDS = {
    AdapterType.LORA: ArtifactKind.LORA,
    AdapterType.QLORA: ArtifactKind.LORA,
    AdapterType.RSLORA: ArtifactKind.RSLORA,
    AdapterType.DORA: ArtifactKind.DORA,
}
_ADAPTERS = frozenset({*_ADAPTER_KINDS.values(), ArtifactKind.REWARD_ADAPTER})


def save_trained(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    folder: Path,
    state: dict[str, Any] | None = None,
) -> None:
    """Save an adapter or a full model.

    Args:
        model: a PeftModel where the run has an adapter, else the model.
        tokenizer: tokenizer to save with a full model, with its chat template.
        config: the run.
        folder: target folder.
        state: tensors by name, where they were gathered from several devices.
    """
    if config.adapter:
        save_adapter(model, folder, config.base_model, state)
    else:
        save_model(model, tokenizer, folder, state)


def publish_folder(
    staged: Path,
    kind: ArtifactKind,
    config: TrainConfig,
    workspace: Workspace,
    probes: MeasuredProbes = NO_PROBES,
    chat: ChatFormat | None = None,
) -> Artifact:
    """Write the manifest of a folder, and move the folder to the location named by the manifest's digest.

    Args:
        staged: the folder.
        kind: kind of artifact.
        config: the run.
        workspace: the run's workspace.
        probes: token sequences by which a server verifies what it serves.
        chat: form of its conversations and answers; None without a chat template.
    """
    for file in staged.iterdir():
        file.chmod(_FILE_MODE)
    manifest = build_manifest(kind, config, describe_files(staged), probes, chat)
    write_atomically(staged / MANIFEST_FILE, manifest.to_bytes())
    return workspace.publish(staged)


def save_adapter(model: Any, folder: Path, base_model: str, state: dict[str, Any] | None = None) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, which names the base model by its URI.

    Args:
        model: the PeftModel.
        folder: target folder.
        base_model: URI of the base model.
        state: tensors by name, where they were gathered from several devices.
    """
    model.peft_config["default"].base_model_name_or_path = base_model
    # save_embedding_layers "auto" would contact the hub to compare vocabularies. The model of a preference method
    # may hold a second adapter, the reference.
    model.save_pretrained(
        folder,
        state_dict=state,
        safe_serialization=True,
        save_embedding_layers=False,
        selected_adapters=["default"],
    )
    # PEFT's own card does not describe the run.
    (folder / CARD_FILE).unlink(missing_ok=True)
    _sort_adapter_config(folder / "adapter_config.json")


def save_model(
    model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, state: dict[str, Any] | None = None
) -> None:
    """Write weights as safetensors, configuration, generation configuration, tokenizer and chat template."""
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)


def _sort_adapter_config(path: Path) -> None:
    """Sort lists and keys: PEFT writes sets in any order, but the same adapter must have the same bytes."""
    config = json.loads(path.read_text())
    ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n")


def artifact_kind(config: TrainConfig) -> ArtifactKind:
    """Artifact kind of a run; a QLoRA adapter is a LoRA, since its own weights are not quantized."""
    reward = config.method.reward is not None
    if config.adapter is None:
        return ArtifactKind.REWARD_MODEL if reward else ArtifactKind.MODEL
    return ArtifactKind.REWARD_ADAPTER if reward else _ADAPTER_KINDS[config.adapter.type]


def build_manifest(
    kind: ArtifactKind,
    config: TrainConfig,
    files: tuple[File, ...],
    probes: MeasuredProbes,
    chat: ChatFormat | None = None,
) -> Manifest:
    """Manifest of an artifact: kind, files with digests, lineage, probes, and form of its conversations."""
    adapter = config.adapter if kind in _ADAPTERS else None
    return Manifest(
        kind=kind,
        rank=adapter.rank if adapter else None,
        target_modules=adapter.target_modules if adapter else (),
        files=files,
        lineage=Lineage(
            namespace=config.owner.namespace,
            job=config.owner.name,
            uid=config.owner.uid,
            base_model=config.base_model,
            base_model_revision=config.base_model_revision,
            dataset_digest=config.dataset_digest,
            image=config.image,
            parameters=_parameters(config),
            code_digest=code_digest(),
            seed=config.hyperparameters.seed,
            initial=config.initial.digest if config.initial else None,
            generation=config.generation,
            versions=_versions(),
        ),
        probes=probes.probes,
        noise=probes.noise,
        chat=chat,
    )


def code_digest() -> str:
    """Digest of the source files of trainer and data preparation, which a changed checkout changes."""
    files = {
        f"{package.__name__}/{path.relative_to(root).as_posix()}": file_digest(path)
        for package in (tunesmith_data, tunesmith_trainer)
        for root in map(Path, package.__path__)
        for path in sorted(root.rglob("*.py"))
    }
    return sha256_digest(canonical_json(files))


def _parameters(config: TrainConfig) -> dict[str, object]:
    return {
        "method": config.method.to_dict(),
        "adapter": config.adapter.to_dict() if config.adapter else None,
        "hyperparameters": config.hyperparameters.to_dict(),
        "nodes": config.nodes,
        "gpusPerNode": config.gpus_per_node,
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
