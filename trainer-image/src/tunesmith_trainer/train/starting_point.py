"""What training starts from: the base model, or an earlier job's artefact."""

from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_contract.run_config import AdapterSource, AdapterType, TrainConfig
from tunesmith_data.failures import UserError
from tunesmith_data.models.inspection import model_revision
from tunesmith_data.pod.artifacts import verified_artifact
from tunesmith_data.pod.storage import Storage
from tunesmith_trainer.train.artifact.files import artifact_kind

_MODELS = {ArtifactKind.MODEL, ArtifactKind.REWARD_MODEL}


@dataclass(frozen=True, slots=True)
class Start:
    """Where the weights come from.

    Attributes:
        base_model: the URI of the weights that are trained, or stand frozen below the adapter.
        revision: theirs.
        folder: where they lie.
        adapter: an earlier adapter's folder, to train on.
    """

    base_model: str
    revision: str
    folder: Path
    adapter: Path | None = None

    def of(self, config: TrainConfig) -> TrainConfig:
        """The run as its artefact is to describe it: on the base that it really has."""
        return config.model_copy(update={"base_model": self.base_model, "base_model_revision": self.revision})


def find_start(config: TrainConfig, storage: Storage, *, check: bool) -> Start:
    """Find the weights, and verify them.

    Args:
        config: the run.
        storage: reads what URIs name.
        check: compare the base model's revision too, which reads all its bytes.

    Raises:
        UserError: base model or artefact have changed, or don't fit the run.
    """
    if config.initial is None:
        return Start(*_checked_base(config, storage, check=check))
    folder, manifest = verified_artifact(config.initial, storage)
    if manifest.kind in _MODELS:
        _require_kind(config, manifest, config.initial)
        return Start(config.initial.uri, model_revision(config.initial.uri, folder), folder)
    require_same_adapter(config, manifest, folder)
    base = _checked_base(config, storage, check=check)
    if manifest.lineage.base_model_revision != config.base_model_revision:
        message = (
            f"{config.initial.uri} was trained on {manifest.lineage.base_model} at "
            f"{manifest.lineage.base_model_revision}, not at {config.base_model_revision}: "
            "go on from it on that base model"
        )
        raise UserError("BaseModelMismatch", message)
    return Start(*base, adapter=folder)


def require_same_adapter(config: TrainConfig, manifest: Manifest, folder: Path) -> None:
    """Refuse to go on from an adapter of another shape than the job asks for.

    Raises:
        UserError: it says what to write instead.
    """
    assert config.initial is not None
    uri = config.initial.uri
    if config.adapter is None:
        message = (
            f"{uri} is an adapter, and the job asks for full fine-tuning: write adapter.type {manifest.kind}"
        )
        raise UserError("InitialArtifact", message)
    _require_kind(config, manifest, config.initial)
    found = LoraConfig.from_pretrained(str(folder))
    for field, asked, has in (
        ("rank", config.adapter.rank, found.r),
        ("alpha", config.adapter.alpha, found.lora_alpha),
        ("targetModules", config.adapter.target_modules, manifest.target_modules),
    ):
        if asked != has:
            shown = list(has) if isinstance(has, tuple) else has
            message = f"{uri} has adapter.{field} {shown}, and the job asks for {asked}: write {shown}"
            raise UserError("InitialArtifact", message)


def _require_kind(config: TrainConfig, manifest: Manifest, initial: AdapterSource) -> None:
    """A policy can't go on from a reward model, nor an adapter from one of another kind."""
    expected = artifact_kind(config)
    if manifest.kind in _MODELS:
        reward = config.method.reward is not None
        fits = manifest.kind is (ArtifactKind.REWARD_MODEL if reward else ArtifactKind.MODEL)
    else:
        fits = manifest.kind is expected
    if not fits:
        hint = _hint(manifest.kind)
        message = f"{initial.uri} is a {manifest.kind}, which a {expected} can't be trained from: {hint}"
        raise UserError("InitialArtifact", message)


def _hint(kind: ArtifactKind) -> str:
    if kind in {ArtifactKind.REWARD_ADAPTER, ArtifactKind.REWARD_MODEL}:
        return "write method reward, or name it as a reward"
    if kind in {ArtifactKind.LORA, ArtifactKind.RSLORA, ArtifactKind.DORA}:
        types = [AdapterType.LORA, AdapterType.QLORA] if kind is ArtifactKind.LORA else [AdapterType(kind)]
        return "write adapter.type " + " or ".join(types)
    return "name a job whose artefact is an adapter or a model"


def _checked_base(config: TrainConfig, storage: Storage, *, check: bool) -> tuple[str, str, Path]:
    """The base model, if it is still the one that was prepared for."""
    folder = storage.model_folder(config.base_model, weights=True)
    found = model_revision(config.base_model, folder) if check else config.base_model_revision
    if found != config.base_model_revision:
        message = (
            f"{config.base_model} has changed since it was prepared for: it was "
            f"{config.base_model_revision} and is {found}; make a new job"
        )
        raise UserError("ModelChanged", message)
    return config.base_model, found, folder
