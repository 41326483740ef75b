"""Protocol of the first release, whose agents refuse what they do not know: they stay in pods until these end."""

from typing import Literal

from pydantic import Field

from tunesmith_contract.agent import LoadState
from tunesmith_contract.base import Digest, Document, Report


class FirstVersion(Document):
    """A version."""

    version: int = Field(ge=1)
    digest: Digest
    uri: str


class FirstDesiredAlias(Document):
    """Versions to be served under one alias."""

    name: str
    stable: FirstVersion | None = None
    candidate: FirstVersion | None = None
    weight: int = Field(0, ge=0, le=100)


class FirstDesiredState(Document):
    """State that every pod shall serve."""

    schema_version: Literal[1] = 1
    generation: int = Field(ge=0)
    aliases: tuple[FirstDesiredAlias, ...] = Field((), max_length=64)


class FirstLoadedVersion(Report):
    """One version on one pod."""

    alias: str
    digest: Digest
    state: LoadState
    reason: str = Field("", max_length=64)
    message: str = Field("", max_length=512)


class FirstVersionCounters(Report):
    """Requests of one version on one pod."""

    alias: str
    digest: Digest
    requests: int = Field(0, ge=0)
    errors: int = Field(0, ge=0)


class FirstAgentReport(Report):
    """The state of one serving pod."""

    schema_version: Literal[1] = 1
    pod_name: str
    pod_uid: str
    boot_id: str
    engine_ready: bool
    applied_generation: int = Field(ge=0)
    versions: tuple[FirstLoadedVersion, ...] = ()
    counters: tuple[FirstVersionCounters, ...] = ()
