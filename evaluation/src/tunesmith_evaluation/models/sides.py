"""Models of the sides: verified folders of base models, adapters and whole models, by what is loaded together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import TaskType
from transformers import PreTrainedTokenizerBase

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_contract.evaluation import Side
from tunesmith_contract.sources import ArtifactSource
from tunesmith_contract.uris import MOUNTED, Scheme, parse_uri_or_none
from tunesmith_data.failures import UserError
from tunesmith_data.models.inspection import check_weights, model_revision
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.pod.artifacts import verified_artifact, verified_checkpoint
from tunesmith_data.pod.storage import Storage


@dataclass(frozen=True, slots=True)
class ModelGroup:
    """Sides that share one loaded model.

    Attributes:
        folder: folder of the model.
        revision: its revision; of a whole tuned model the artifact's digest.
        sides: names of the sides that it answers for.
        adapters: folders of their adapters by the name of the side; a side without one is the model itself.
        digests: digests of their artifacts by the name of the side.
    """

    folder: Path
    revision: str
    sides: tuple[str, ...]
    adapters: Mapping[str, Path]
    digests: Mapping[str, str]

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"the model of {' and '.join(self.sides)}"

    def side_revision(self, side: str) -> str:
        """Digest of the side's artifact, or revision of the model."""
        return self.digests.get(side, self.revision)


@dataclass(frozen=True, slots=True)
class LocalSides:
    """Sides whose models are loaded here.

    Attributes:
        groups: models in the order in which they are loaded, one after the other.
        manifests: manifests of the artifacts by the name of the side.
        revisions: revisions of the base models by URI.
    """

    groups: tuple[ModelGroup, ...]
    manifests: Mapping[str, Manifest]
    revisions: Mapping[str, str]

    @property
    def lack_templates(self) -> bool:
        """True if a model has no chat template."""
        return any(not padded_tokenizer(group).chat_template for group in self.groups)

    def with_switches(self, sides: Iterable[Side]) -> tuple[Side, ...]:
        """Sides with the template switches that their artifacts were trained with."""
        chats = {name: manifest.chat for name, manifest in self.manifests.items() if manifest.chat}
        return tuple(
            side.model_copy(update={"switches": dict(chats[side.name].switches)})
            if side.name in chats
            else side
            for side in sides
        )

    def base_revision(self, uri: str | None) -> str:
        """Revision of a base model; empty if no side needed it."""
        return self.revisions.get(uri, "") if uri else ""


@dataclass(frozen=True, slots=True)
class _SideModel:
    """Verified folders of one side."""

    side: str
    folder: Path
    revision: str
    adapter: Path | None = None
    digest: str | None = None


class _BaseModels:
    """Folders and revisions of base models by URI, each fetched once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.found: dict[str, tuple[Path, str]] = {}

    def fetch(self, uri: str) -> tuple[Path, str]:
        """Folder and revision of a base model.

        Raises:
            UserError: its weights are missing or damaged.
        """
        if uri not in self.found:
            folder = self._storage.model_folder(uri, weights=True)
            check_weights(uri, folder, whole=True)
            self.found[uri] = folder, model_revision(uri, folder)
        return self.found[uri]


def verify_sides(base_model: str | None, sides: Sequence[Side], storage: Storage) -> LocalSides:
    """Fetch the models, artifacts and checkpoints of the sides that are loaded here, and verify them.

    Sides on one base model share it. A whole tuned model needs no base model. An adapter of another base model than the
    run's is put on its own, where its manifest names one that can be fetched.

    Raises:
        UserError: a side names no model; an artifact is missing, damaged, or was trained on another base model.
    """
    bases = _BaseModels(storage)
    manifests: dict[str, Manifest] = {}
    models: list[_SideModel] = []
    for side in sides:
        if not side.is_loaded:
            continue
        uri = side.model or base_model
        if side.checkpoint is not None:
            models.append(_checkpoint_model(side, side.checkpoint, uri, bases, storage))
        elif side.adapter is not None:
            folder, manifest = _verified(side.adapter, storage)
            manifests[side.name] = manifest
            models.append(_artifact_model(side, side.adapter, (folder, manifest), uri, bases))
        else:
            models.append(_SideModel(side.name, *bases.fetch(_required(uri, side))))
    revisions = {uri: revision for uri, (_, revision) in bases.found.items()}
    return LocalSides(_grouped(models), manifests, revisions)


def _required(uri: str | None, side: Side) -> str:
    """URI of a side's model.

    Raises:
        UserError: it names none.
    """
    if not uri:
        message = f"side {side.name} names no model: write its model, or the run's base model"
        raise UserError("NoModel", message)
    return uri


def _artifact_model(
    side: Side,
    source: ArtifactSource,
    artifact: tuple[Path, Manifest],
    uri: str | None,
    bases: _BaseModels,
) -> _SideModel:
    """Model of a side with an artifact: a whole model, or an adapter on its base model."""
    folder, manifest = artifact
    if manifest.kind is ArtifactKind.MODEL:
        return _SideModel(side.name, folder, source.digest, digest=source.digest)
    own = _own_base(manifest)
    if side.model is None and own is not None:
        same = uri is not None and bases.fetch(uri)[1] == manifest.lineage.base_model_revision
        uri = uri if same else own
    base, revision = bases.fetch(_required(uri, side))
    _require_base(source, manifest, revision)
    return _SideModel(side.name, base, revision, folder, source.digest)


def _own_base(manifest: Manifest) -> str | None:
    """URI of the base model that an adapter was trained on; None for one on a volume, which may not be mounted."""
    lineage = manifest.lineage
    uri = parse_uri_or_none(lineage.base_model)
    if uri is None or uri.scheme in MOUNTED:
        return None
    pinned = uri._replace(revision=lineage.base_model_revision) if uri.scheme is Scheme.HF else uri
    return str(pinned)


def _checkpoint_model(
    side: Side, source: ArtifactSource, uri: str | None, bases: _BaseModels, storage: Storage
) -> _SideModel:
    """Model of a side with a checkpoint: a whole model, or an adapter on its base model.

    Raises:
        UserError: it is gone, another one, damaged, or of a reward model.
    """
    folder = verified_checkpoint(source, storage)
    if _classifies(folder):
        message = f"{source.uri} is a reward model: an adapter or a whole causal model can be evaluated"
        raise UserError("ArtifactKind", message)
    if not (folder / "adapter_config.json").is_file():
        return _SideModel(side.name, folder, source.digest, digest=source.digest)
    return _SideModel(side.name, *bases.fetch(_required(uri, side)), folder, source.digest)


def _classifies(checkpoint: Path) -> bool:
    """True for a sequence classifier, by its configuration as an adapter or as a whole model."""
    adapter, model = checkpoint / "adapter_config.json", checkpoint / "config.json"
    if adapter.is_file():
        return bool(json.loads(adapter.read_bytes()).get("task_type") == TaskType.SEQ_CLS)
    architectures = json.loads(model.read_bytes()).get("architectures") if model.is_file() else None
    return any(name.endswith("ForSequenceClassification") for name in architectures or ())


def _grouped(models: Sequence[_SideModel]) -> tuple[ModelGroup, ...]:
    """Groups of sides with the same weights, in the order of the first side of each."""
    by_folder: dict[Path, list[_SideModel]] = {}
    for model in models:
        by_folder.setdefault(model.folder, []).append(model)
    return tuple(
        ModelGroup(
            folder=folder,
            revision=members[0].revision,
            sides=tuple(member.side for member in members),
            adapters={member.side: member.adapter for member in members if member.adapter is not None},
            digests={member.side: member.digest for member in members if member.digest is not None},
        )
        for folder, members in by_folder.items()
    )


def padded_tokenizer(group: ModelGroup) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a padding token.

    Raises:
        UserError: it can't be read.
    """
    tokenizer = load_tokenizer(group.folder, group.name)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _verified(source: ArtifactSource, storage: Storage) -> tuple[Path, Manifest]:
    """Folder and manifest of an artifact that can be evaluated.

    Raises:
        UserError: its digest, files or kind are not the expected ones.
    """
    folder, manifest = verified_artifact(source, storage)
    if manifest.kind in {ArtifactKind.REWARD_ADAPTER, ArtifactKind.REWARD_MODEL, ArtifactKind.GGUF}:
        message = f"{source.uri} is a {manifest.kind}: an adapter or a whole causal model can be evaluated"
        raise UserError("ArtifactKind", message)
    return folder, manifest


def _require_base(source: ArtifactSource, manifest: Manifest, revision: str) -> None:
    """Check that an adapter was trained on the base model that it is put on.

    Raises:
        UserError: it was not.
    """
    if manifest.lineage.base_model_revision != revision:
        message = (
            f"{source.uri} was trained on {manifest.lineage.base_model} at "
            f"{manifest.lineage.base_model_revision}, not at {revision}: evaluate it on that base model"
        )
        raise UserError("BaseModelMismatch", message)
