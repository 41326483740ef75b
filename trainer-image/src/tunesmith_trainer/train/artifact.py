"""The artefact: an adapter's files, their manifest, and their content-addressed place."""

import importlib.metadata
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith_contract.artifact import Lineage, Manifest, Probe
from tunesmith_contract.layout import MANIFEST_FILE, artifact_uri
from tunesmith_contract.report import Artifact
from tunesmith_contract.run_config import TrainConfig
from tunesmith_trainer.report import Workspace
from tunesmith_trainer.storage import describe_files, place_folder, write_atomically

# safetensors writes 0600, which a serving pod of another user could not read.
_READABLE_BY_ALL = 0o644
_VERSIONED = ("torch", "transformers", "trl", "peft", "accelerate", "tunesmith-trainer")


def place_artifact(
    model: Any,
    config: TrainConfig,
    probes: tuple[Probe, ...],
    workspace: Workspace,
    weights: Mapping[str, Any] | None = None,
) -> Artifact:
    """Save an adapter, describe it, and move it to the place that its digest names.

    ``weights`` are given where the model itself holds only parts of them.
    """
    staged = workspace.staging / uuid.uuid4().hex
    save_adapter(model, staged, config.base_model, weights)
    manifest = build_manifest(config, describe_files(staged), probes)
    write_atomically(staged / MANIFEST_FILE, manifest.to_bytes())
    uri = artifact_uri(workspace.output, manifest.digest)
    size = sum(file.size_bytes for file in manifest.files)
    place_folder(staged, workspace.path(uri))
    return Artifact(uri=str(uri), digest=manifest.digest, size_bytes=size)


def save_adapter(model: Any, folder: Path, base_model: str, weights: Mapping[str, Any] | None = None) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, which names the base by its URI."""
    folder.mkdir(parents=True)
    model.peft_config["default"].base_model_name_or_path = base_model
    # "auto" would ask a hub whether the vocabulary has grown.
    model.save_pretrained(folder, state_dict=weights, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    _order_config(folder / "adapter_config.json")
    for file in folder.iterdir():
        file.chmod(_READABLE_BY_ALL)


def _order_config(path: Path) -> None:
    """PEFT writes sets in any order: the same adapter must have the same bytes."""
    config = json.loads(path.read_text())
    ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n")


def build_manifest(config: TrainConfig, files: tuple[Any, ...], probes: tuple[Probe, ...]) -> Manifest:
    """The manifest of an adapter's files: what it is, and what went in."""
    return Manifest(
        rank=config.adapter.rank if config.adapter else None,
        target_modules=config.adapter.target_modules if config.adapter else (),
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
            versions=_versions(),
        ),
        probes=probes,
    )


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
    for name in _VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
