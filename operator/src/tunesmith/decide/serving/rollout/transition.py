"""Form of a transition of an alias's rollout: a condition, and the change of the record."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tunesmith.api.adapterdeployment import Adapter
from tunesmith.decide.plan import Event
from tunesmith.decide.serving.admission.targets import TargetVersion
from tunesmith.decide.serving.pods.fleet import Fleet
from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith_contract.agent import Version
from tunesmith_contract.base import short_digest

#: Time without progress after which a version that is active on half of the pods goes on.
QUORUM_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AliasContext:
    """Inputs to the rollout of one alias, beside its record."""

    adapter: Adapter
    target: TargetVersion
    fleet: Fleet
    now: datetime


TransitionResult = tuple[AliasRecord, Event | None]


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table: a condition, and the change of the record with its event."""

    name: str
    applies: Callable[[AliasRecord, AliasContext], bool]
    apply: Callable[[AliasRecord, AliasContext], TransitionResult]


def is_paused(record: AliasRecord, adapter: Adapter) -> bool:
    """True while a person wants the rollout to stay at its step."""
    return adapter.paused or record.paused


def describe(version: Version) -> str:
    """Version as shown in messages, such as ``version 3 (0f3c9d52aa01)``."""
    return f"version {version.version} ({short_digest(version.digest)})"
