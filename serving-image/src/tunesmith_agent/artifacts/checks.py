"""Checks of a manifest against the engine of these pods, before any other byte of the artifact is read."""

from dataclasses import dataclass

from tunesmith_contract.answer_formats import EQUIVALENT_PARSERS, REASONING_PARSERS, TOOL_PARSERS
from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_contract.uris import Scheme, StorageUri, parse_uri_or_none

from .errors import ArtifactInvalid

#: Files of an adapter that the engine reads: a manifest must list them.
REQUIRED_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors"})

#: Kinds that vLLM serves as adapters. The trainer writes DoRA adapters for other programs.
SERVED_KINDS = frozenset({ArtifactKind.LORA, ArtifactKind.RSLORA})


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Limits of the engine that a manifest is checked against.

    Attributes:
        max_rank: ``engine.maxRank``; 0: unknown.
        base_model: URI of ``baseModel``; empty: unknown.
        tool_call_parser, reasoning_parser: names of its parsers; empty: none, or unknown.
    """

    max_rank: int = 0
    base_model: str = ""
    tool_call_parser: str = ""
    reasoning_parser: str = ""


def check_manifest(manifest: Manifest, limits: EngineLimits) -> None:
    """Check that these pods can serve an artifact, as far as its manifest tells.

    Raises:
        ArtifactInvalid: they can't; the message says what to write.
    """
    if manifest.kind not in SERVED_KINDS:
        served = " or ".join(sorted(SERVED_KINDS))
        message = f"The artifact is of the kind {manifest.kind}, and the engine serves {served}: train such an adapter."
        raise ArtifactInvalid("NotAnAdapter", message)
    if missing := REQUIRED_FILES - {file.path for file in manifest.files}:
        raise ArtifactInvalid("InvalidManifest", f"The manifest does not list {', '.join(sorted(missing))}.")
    if not manifest.probes:
        message = (
            "The manifest has no probes: nothing could prove that it is active. Train it with this release."
        )
        raise ArtifactInvalid("NoProbes", message)
    _check_rank(manifest, limits)
    _check_base_model(manifest, limits)
    _check_parsers(manifest, limits)


def _check_rank(manifest: Manifest, limits: EngineLimits) -> None:
    if manifest.rank is None or manifest.rank < 1 or not manifest.target_modules:
        message = "The manifest says no rank or no target modules: use an artifact that a FineTuneJob made."
        raise ArtifactInvalid("InvalidManifest", message)
    if limits.max_rank and manifest.rank > limits.max_rank:
        message = (
            f"The adapter has rank {manifest.rank}, and engine.maxRank is {limits.max_rank}: set engine.maxRank to "
            f"{manifest.rank} or more, or train with a lower rank."
        )
        raise ArtifactInvalid("RankTooHigh", message)


def _check_parsers(manifest: Manifest, limits: EngineLimits) -> None:
    """Compare the parsers of the engine, which are the same for all its adapters, with those that this one needs.

    Without a parser the client gets the text as it was generated, which is never wrong.
    """
    if manifest.chat is None:
        return
    tools, thinking = manifest.chat.tools, manifest.chat.thinking
    needed = (
        ("toolCallParser", TOOL_PARSERS[tools] if tools else "", limits.tool_call_parser),
        ("reasoningParser", REASONING_PARSERS[thinking] if thinking else "", limits.reasoning_parser),
    )
    for name, own, served in needed:
        if own and served and own != served and own not in EQUIVALENT_PARSERS.get(served, ()):
            message = (
                f"The adapter answers in the form that the parser {own} reads, and the engine has {served}: write "
                f"engine.{name}: {own}, or None to get the text as it is; serve adapters of another form in an "
                "AdapterDeployment of their own."
            )
            raise ArtifactInvalid("ParserMismatch", message)


def _check_base_model(manifest: Manifest, limits: EngineLimits) -> None:
    """Compare two models of a hub; of others, names say nothing, and the proof finds the difference."""
    lineage, served = manifest.lineage, parse_uri_or_none(limits.base_model)
    trained = parse_uri_or_none(lineage.base_model)
    if served is None or trained is None or not served.scheme == trained.scheme == Scheme.HF:
        return
    trained = trained._replace(revision=trained.revision or lineage.base_model_revision or None)
    if not _differ(trained, served):
        return
    message = (
        f"The adapter was trained on {trained}, and baseModel.uri is {served}: serve the model that it was trained on, "
        "or train on the one that is served."
    )
    raise ArtifactInvalid("WrongBaseModel", message)


def _differ(trained: StorageUri, served: StorageUri) -> bool:
    """True for two revisions that are named and are not the same; a branch or tag may mean any commit."""
    if trained.revision is None or served.revision is None:
        return False
    if (trained.name, trained.path) != (served.name, served.path):
        return True
    return (
        _is_commit(trained.revision) and _is_commit(served.revision) and trained.revision != served.revision
    )


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(character in "0123456789abcdef" for character in revision)
