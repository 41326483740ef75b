"""Finished work of FineTuneJobs and EvalRuns, in ConfigMaps that stay when the resource is deleted.

A resource that is applied again takes its finished work over. The ConfigMaps belong to no resource. Their number and
size are bounded: each namespace has a fixed number for each kind, of which each keeps the latest entries.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import Field

from tunesmith_contract.base import Digest, Report

from .names import MANAGED_BY_LABEL, OWNER_UID_LABEL, Owner
from .objects import Body, KubernetesObject
from .result_config_map import AttemptRecord

#: ConfigMaps of each kind in a namespace.
SHARDS = 16
#: Entries in each: of some 5 KB, and at most 24 KB.
KEPT_IN_EACH = 16


class FinishedKey(NamedTuple):
    """What decides which entries are kept."""

    finished_at: datetime
    uid: str
    name: str
    identity: str


class FinishedRecord(Report):
    """Finished work of a resource.

    Attributes:
        kind, namespace, name, uid: those of the resource.
        identity: digest of all in its spec and in what the spec refers to that decides the result.
        record: record of the attempt that succeeded.
        run: ``run.json`` of a training; empty for an evaluation.
    """

    kind: str
    namespace: str
    name: str
    uid: str = Field(max_length=64)
    identity: Digest
    record: AttemptRecord
    run: str = ""

    @property
    def finished_at(self) -> datetime:
        """End of the work."""
        return self.record.ended_at

    @property
    def key(self) -> FinishedKey:
        """What decides whether it is kept."""
        return FinishedKey(self.finished_at, self.uid, self.name, self.identity)


def finished_work_owner(owner: Owner) -> str:
    """Value of the owner's label of the ConfigMap with finished work of resources of this name."""
    place = f"{owner.kind}/{owner.metadata.namespace}/{_shard(owner)}"
    return f"finished-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def finished_work_name(owner: Owner) -> str:
    """``finished-<kind>-<hex digit>``, by the resource's name."""
    return f"finished-{owner.kind.lower()}-{_shard(owner):x}"


def build_finished_work(owner: Owner, record: FinishedRecord) -> KubernetesObject:
    """ConfigMap with its first entry."""
    labels = {MANAGED_BY_LABEL: "tunesmith", OWNER_UID_LABEL: finished_work_owner(owner)}
    name, namespace = finished_work_name(owner), owner.metadata.namespace
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "data": {record.uid: record.to_json()},
    }


def read_finished_work(config_maps: Iterable[Body]) -> tuple[FinishedRecord, ...]:
    """All entries, the oldest first. Those that people added or changed beyond recognition are left out."""
    texts = (item for body in config_maps for item in (body.get("data") or {}).items())
    found = (record for uid, text in texts if (record := _read(uid, text)))
    return tuple(sorted(found, key=lambda record: record.key))


def read_finished_keys(config_map: Body) -> tuple[FinishedKey, ...]:
    """Keys of all entries; each pass of a finished resource reads them, so the rest of the entries is not parsed."""
    texts = (config_map.get("data") or {}).items()
    return tuple(key for uid, text in texts if (key := _read_key(uid, text)))


def superseded_work(keys: Iterable[FinishedKey]) -> frozenset[str]:
    """UIDs of the entries of a ConfigMap that are no longer kept: earlier ones of the same work, and the oldest."""
    ordered = sorted(keys)
    latest = {(key.name, key.identity): key for key in ordered}
    kept = sorted(latest.values())[-KEPT_IN_EACH:]
    return frozenset(key.uid for key in ordered) - {key.uid for key in kept}


def _shard(owner: Owner) -> int:
    return hashlib.sha256(owner.metadata.name.encode()).digest()[0] % SHARDS


def _read(uid: str, text: str) -> FinishedRecord | None:
    try:
        record = FinishedRecord.model_validate_json(text)
    except ValueError:
        return None
    return record if record.uid == uid else None


def _read_key(uid: str, text: str) -> FinishedKey | None:
    try:
        entry = json.loads(text)
        ended = datetime.fromisoformat(entry["record"]["endedAt"])
        return FinishedKey(ended.astimezone(UTC), uid, str(entry["name"]), str(entry["identity"]))
    except (ValueError, KeyError, TypeError):
        return None
