"""Protocol between the operator and the serving agents.

An agent holds one WebSocket to the operator (``AGENT_PATH``, bearer token of audience ``TOKEN_AUDIENCE``). It sends an
``AgentReport`` when something changed and at least every few seconds; the operator sends a ``DesiredState`` when its
generation grew. The same DesiredState is mounted from a ConfigMap; the higher generation wins.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from .base import Digest, Document, Report, short_digest

AGENT_PATH = "/agent/v1/namespaces/{namespace}/adapterdeployments/{name}"
DESIRED_FILE = "desired.json"

#: Response headers that say which version answered.
VERSION_HEADER = "x-tunesmith-version"
DIGEST_HEADER = "x-tunesmith-digest"
#: Request header whose value keeps a client on one side of a rollout.
STICKINESS_HEADER = "x-tunesmith-key"

BUCKETS = 10_000


class Version(Document):
    """One version of an alias: ``version`` counts from 1 within the alias, ``digest`` identifies its artifact."""

    version: int = Field(ge=1)
    digest: Digest
    uri: str


class DesiredAlias(Document):
    """Versions to be served under one alias.

    ``weight`` is the candidate's share in percent. Without a stable version (the first one still loads) the alias
    answers 503.
    """

    name: str
    stable: Version | None = None
    candidate: Version | None = None
    weight: int = Field(0, ge=0, le=100)


class DesiredState(Document):
    """State that every pod of an AdapterDeployment shall serve. ``generation`` grows with each change."""

    schema_version: Literal[1] = 1
    generation: int = Field(ge=0)
    aliases: tuple[DesiredAlias, ...] = Field((), max_length=64)


class LoadState(StrEnum):
    """State of one version on one pod."""

    FETCHING = "Fetching"
    LOADING = "Loading"
    PROVING = "Proving"
    ACTIVE = "Active"
    DRAINING = "Draining"
    FAILED = "Failed"


#: ``LoadedVersion.reason`` of a version whose answers, measured several times, are not its manifest's.
PROOF_FAILED = "ProofFailed"
#: ``LoadedVersion.reason`` of an active version whose effect is too small to be told from noise.
UNPROVEN = "Unproven"


class LoadedVersion(Report):
    """One version on one pod; ``reason`` and ``message`` say why it failed, or what is uncertain."""

    alias: str
    digest: Digest
    state: LoadState
    reason: str = Field("", max_length=64)
    message: str = Field("", max_length=512)


class VersionCounters(Report):
    """Requests that one version answered on one pod since the agent started; errors are 5xx and broken streams."""

    alias: str
    digest: Digest
    requests: int = Field(0, ge=0)
    errors: int = Field(0, ge=0)


class AgentReport(Report):
    """The state of one serving pod. ``boot_id`` is new whenever the counters start from zero."""

    schema_version: Literal[1] = 1
    pod_name: str
    pod_uid: str
    boot_id: str
    engine_ready: bool
    applied_generation: int = Field(ge=0)
    versions: tuple[LoadedVersion, ...] = ()
    counters: tuple[VersionCounters, ...] = ()


def served_name(alias: str, digest: str) -> str:
    """Name of a version in the engine, never used for anything else: ``<alias>@<digest12>``."""
    return f"{alias}@{short_digest(digest)}"
