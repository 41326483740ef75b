"""Starting point of training: the base model, or an earlier job's artifact."""

from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_contract.run_config import AdapterType, TrainConfig
from tunesmith_contract.sources import ArtifactSource
from tunesmith_data.failures import UserError
from tunesmith_data.models.inspection import model_revision
from tunesmith_data.pod.artifacts import verified_artifact
from tunesmith_data.pod.storage import Storage
from tunesmith_trainer.train.artifact.files import artifact_kind

_MODELS = {ArtifactKind.MODEL, ArtifactKind.REWARD_MODEL}


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """Verified weights that training starts from.

    Attributes:
        base_model: URI of the weights that are trained, or frozen below the adapter.
        revision: their revision.
        folder: their folder.
        adapter: folder of an earlier adapter to continue training.
    """

    base_model: str
    revision: str
    folder: Path
    adapter: Path | None = None

    def as_base_of(self, config: TrainConfig) -> TrainConfig:
        """The run with these weights as its base model, as recorded in its artifact."""
        return config.model_copy(update={"base_model": self.base_model, "base_model_revision": self.revision})


def find_starting_point(config: TrainConfig, storage: Storage, *, verify: bool) -> StartingPoint:
    """Find and verify the weights.

    Args:
        config: the run.
        storage: storage that resolves the URIs.
        verify: read all bytes, to compare them with what was named; else a model's revision may be empty.

    Raises:
        UserError: base model or artifact have changed, or don't fit the run.
    """
    if config.initial is None:
        return StartingPoint(*_checked_base(config, storage, verify=verify))
    folder, manifest = verified_artifact(config.initial, storage, read_files=verify)
    if manifest.kind in _MODELS:
        _require_kind(config, manifest, config.initial)
        revision = model_revision(config.initial.uri, folder) if verify else ""
        return StartingPoint(config.initial.uri, revision, folder)
    require_same_adapter(config, manifest, folder)
    base = _checked_base(config, storage, verify=verify)
    if manifest.lineage.base_model_revision != config.base_model_revision:
        message = (
            f"{config.initial.uri} was trained on {manifest.lineage.base_model} at "
            f"{manifest.lineage.base_model_revision}, not at {config.base_model_revision}: "
            "continue from it on that base model"
        )
        raise UserError("BaseModelMismatch", message)
    return StartingPoint(*base, adapter=folder)


def require_same_adapter(config: TrainConfig, manifest: Manifest, folder: Path) -> None:
    """Check that an earlier adapter has the kind, rank, alpha and target modules of the run.

    Raises:
        UserError: it has not; the message names the value to write.
    """
    assert config.initial is not None
    uri = config.initial.uri
    if config.adapter is None:
        message = (
            f"{uri} is an adapter, and the job asks for full fine-tuning: write adapter.type {manifest.kind}"
        )
        raise UserError("InitialArtifact", message)
    _require_kind(config, manifest, config.initial)
    earlier = LoraConfig.from_pretrained(str(folder))
    for field, requested, actual in (
        ("rank", config.adapter.rank, earlier.r),
        ("alpha", config.adapter.alpha, earlier.lora_alpha),
        ("targetModules", config.adapter.target_modules, manifest.target_modules),
    ):
        if requested != actual:
            value = list(actual) if isinstance(actual, tuple) else actual
            message = f"{uri} has adapter.{field} {value}, and the job asks for {requested}: write {value}"
            raise UserError("InitialArtifact", message)


def _require_kind(config: TrainConfig, manifest: Manifest, initial: ArtifactSource) -> None:
    """Check that the artifact's kind is one that the run can continue from.

    Raises:
        UserError: a causal model would continue from a reward model, or an adapter from one of another kind.
    """
    expected = artifact_kind(config)
    if manifest.kind in _MODELS:
        reward = config.method.reward is not None
        fits = manifest.kind is (ArtifactKind.REWARD_MODEL if reward else ArtifactKind.MODEL)
    else:
        fits = manifest.kind is expected
    if not fits:
        advice = _kind_advice(manifest.kind)
        message = f"{initial.uri} is a {manifest.kind}, which a {expected} can't be trained from: {advice}"
        raise UserError("InitialArtifact", message)


def _kind_advice(kind: ArtifactKind) -> str:
    if kind in {ArtifactKind.REWARD_ADAPTER, ArtifactKind.REWARD_MODEL}:
        return "write method reward, or name it as a reward"
    if kind in {ArtifactKind.LORA, ArtifactKind.RSLORA, ArtifactKind.DORA}:
        types = [AdapterType.LORA, AdapterType.QLORA] if kind is ArtifactKind.LORA else [AdapterType(kind)]
        return "write adapter.type " + " or ".join(types)
    return "name a job whose artifact is an adapter or a model"


def _checked_base(config: TrainConfig, storage: Storage, *, verify: bool) -> tuple[str, str, Path]:
    """URI, revision and folder of the base model.

    Raises:
        UserError: its revision is not the one that the data were prepared for.
    """
    folder = storage.model_folder(config.base_model, weights=True)
    expected = config.base_model_revision
    revision = model_revision(config.base_model, folder) if verify else expected
    if revision != config.base_model_revision:
        message = (
            f"{config.base_model} has changed since the data were prepared: it was "
            f"{config.base_model_revision} and is {revision}; make a new job"
        )
        raise UserError("ModelChanged", message)
    return config.base_model, revision, folder
