"""Persistent state of an AdapterDeployment as of the previous pass, read from its ConfigMaps and ControllerRevisions.

What can't be read, because it was edited or restored, is rebuilt and concerns its own alias only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.decide.plan import Event
from tunesmith.decide.serving.admission.targets import VersionRecord
from tunesmith.manifests.objects import Body
from tunesmith.manifests.serving_config_maps import (
    FIRST_RECORD_KEY,
    HISTORY_KEY,
    alias_of,
    desired_config_map_name,
    is_history,
    read_desired,
    read_first_desired,
    read_record_text,
)
from tunesmith_contract.agent import DesiredState

from .first_record import split_first_record
from .history import AliasHistory, History, merge_lifts, merge_rejections
from .record import AliasRecord, Rejection
from .versions import read_versions


@dataclass(frozen=True, slots=True)
class StoredServing:
    """Persistent state of an AdapterDeployment as of the previous pass.

    Attributes:
        mounted: the ConfigMap with the desired state; None before it is first written, or if it is lost.
        published: the desired state in it; without aliases if it can't be read.
        is_current: it can be read, and this release wrote it.
        record_maps: the ConfigMap of each alias that has a record, by name.
        written: the records in them that can be read, by name.
        records: the record of each alias of the resource and of those it had, by name: as written, split from the one
            of the first release, or rebuilt.
        versions: the versions stored in ControllerRevisions.
        history_map: the ConfigMap with the history of the name, whoever it belongs to.
        history: the history in it.
        events: events about what was rebuilt.
    """

    mounted: Body | None
    published: DesiredState
    is_current: bool
    record_maps: Mapping[str, Body]
    written: Mapping[str, AliasRecord]
    records: Mapping[str, AliasRecord]
    versions: tuple[VersionRecord, ...]
    history_map: Body | None
    history: History
    events: tuple[Event, ...]

    @property
    def generation(self) -> int:
        """Highest generation of the desired state that is known to have been sent."""
        return max(self.published.generation, *(record.generation for record in self.written.values()), 0)

    @property
    def history_is_foreign(self) -> bool:
        """True if a ConfigMap of the history's name belongs to something else."""
        return self.history_map is not None and not is_history(self.history_map)


def read_stored(
    deployment: AdapterDeployment,
    config_maps: Iterable[Body],
    history_map: Body | None,
    revisions: Iterable[Body],
) -> StoredServing:
    """Read the persistent state, and rebuild what can't be read."""
    config_maps = tuple(config_maps)
    versions = read_versions(revisions)
    name = desired_config_map_name(deployment)
    mounted = next((found for found in config_maps if found["metadata"]["name"] == name), None)
    published, is_current = _read_published(mounted)
    history, events = _read_history(history_map)
    record_maps = {alias: found for found in config_maps if (alias := alias_of(found))}
    written = {
        alias: record for alias, found in record_maps.items() if (record := _read_record(alias, found))
    }
    records = dict(written)
    if mounted is not None and not is_current:
        records |= _split(mounted, written)
    for adapter in deployment.spec.adapters:
        if adapter.name in records:
            continue
        records[adapter.name] = rebuild_record(adapter.name, versions, history.find(adapter.name))
        if adapter.name in record_maps or any(version.alias == adapter.name for version in versions):
            message = f"{adapter.name}: the record of its rollout was lost or can't be read, and was rebuilt"
            events.append(Event(Reason.RECORD_REBUILT, message, "Warning"))
    return StoredServing(
        mounted=mounted,
        published=published,
        is_current=is_current,
        record_maps=record_maps,
        written=written,
        records=records,
        versions=versions,
        history_map=history_map,
        history=history,
        events=tuple(events),
    )


def rebuild_record(alias: str, versions: Iterable[VersionRecord], history: AliasHistory) -> AliasRecord:
    """Record of an alias that has none: the version that was promoted last is stable.

    Args:
        versions: the versions stored in ControllerRevisions.
        history: what the name served before, if need be under an earlier resource.
    """
    own = [version for version in versions if version.alias == alias]
    said = [
        Rejection(
            version=version.version, reason=version.reason, message=version.message, time=version.rejected
        )
        for version in own
        if version.rejected
    ]
    numbers = [version.version.version for version in own]
    record = AliasRecord(
        name=alias,
        last_number=max([*numbers, history.last_number]),
        rejections=merge_rejections(history.rejections, said),
        lifts=history.lifts,
        paused=history.paused,
        undo=history.undo,
    )
    promoted = [
        version for version in own if version.promoted and not record.is_rejected(version.version.digest)
    ]
    if promoted:
        last = max(promoted, key=lambda version: (version.promoted, version.version.version))
        return record.model_copy(update={"stable": last.version, "promoted": last.promoted})
    if history.stable is None or record.is_rejected(history.stable.digest):
        return record
    return record.model_copy(
        update={"stable": history.stable, "promoted": history.promoted, "restored": True}
    )


def _read_published(mounted: Body | None) -> tuple[DesiredState, bool]:
    """The state that was published last, and whether this release wrote it."""
    if mounted is None:
        return DesiredState(generation=0), False
    try:
        current = read_desired(mounted)
        return current or read_first_desired(mounted), current is not None
    except (KeyError, ValueError):
        return DesiredState(generation=0), False


def _read_record(alias: str, config_map: Body) -> AliasRecord | None:
    try:
        record = AliasRecord.read(read_record_text(config_map))
    except (KeyError, ValueError):
        return None
    return record if record.name == alias else None


def _read_history(config_map: Body | None) -> tuple[History, list[Event]]:
    if config_map is None or not is_history(config_map):
        return History(), []
    try:
        return History.model_validate_json(config_map["data"][HISTORY_KEY]), []
    except (KeyError, ValidationError):
        message = (
            f"ConfigMap {config_map['metadata']['name']} can't be read, and is made anew from the records"
        )
        return History(), [Event(Reason.RECORD_REBUILT, message, "Warning")]


def _split(mounted: Body, written: Mapping[str, AliasRecord]) -> dict[str, AliasRecord]:
    """Records by the one that an operator of the first release wrote, which is newer than those of this release."""
    try:
        generation = read_first_desired(mounted).generation
        split = split_first_record(mounted["data"][FIRST_RECORD_KEY], generation)
    except (KeyError, ValueError):
        return {}
    newer = {}
    for alias, record in split.items():
        known = written.get(alias)
        if known is None:
            newer[alias] = record
        elif known.split_from != generation and known.generation <= generation:
            kept = {
                "rejections": merge_rejections(record.rejections, known.rejections),
                "lifts": merge_lifts(known.lifts),
                "last_number": max(record.last_number, known.last_number),
                "paused": known.paused,
                "undo": known.undo,
                "actions": known.actions,
            }
            newer[alias] = record.model_copy(update=kept)
    return newer
