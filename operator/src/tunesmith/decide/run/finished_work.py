"""Finished work that outlives its resource: kept when a run has succeeded, found when the resource is applied again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.api.reasons import ConditionType, RunReason
from tunesmith.decide.conditions import ConditionUpdate, timestamp
from tunesmith.decide.objects import is_deleting, job_end
from tunesmith.decide.plan import Action, Create, Delete, Event, Patch
from tunesmith.manifests.finished_work import (
    FinishedRecord,
    build_finished_work,
    read_finished_keys,
    read_finished_work,
    superseded_work,
)
from tunesmith.manifests.names import Owner
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AdoptedWork, AttemptOutcome, AttemptRecord
from tunesmith_contract.base import canonical_json, sha256_digest

from .children import Children

#: Changes when a release comes to other results from the same spec: nothing older is then taken over.
IDENTITY_VERSION = 1
#: Fields of the spec that decide no result.
_NOT_DECIDING = frozenset({"reuse", "suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished"})


def identify_work(owner: Owner, spec: str, resolved: Mapping[str, Any]) -> str:
    """Digest of all that decides the result of a resource, as far as it is known before its pods run.

    Args:
        spec: JSON of the spec, without default values.
        resolved: what the spec refers to, with digests.
    """
    written = {key: value for key, value in json.loads(spec).items() if key not in _NOT_DECIDING}
    document = {
        "version": IDENTITY_VERSION,
        "kind": owner.kind,
        "namespace": owner.metadata.namespace,
        "name": owner.metadata.name,
        "spec": written,
        "resolved": dict(resolved),
    }
    return sha256_digest(canonical_json(document))


def find_finished(owner: Owner, identity: str, config_maps: Sequence[Body]) -> FinishedRecord | None:
    """The latest finished work of an earlier resource of this name and identity; None if there is none."""
    place = (owner.kind, owner.metadata.namespace, owner.metadata.name)
    found = [
        record
        for record in read_finished_work(config_maps)
        if (record.kind, record.namespace, record.name) == place
        and record.identity == identity
        and record.uid != owner.metadata.uid
        and record.record.outcome is AttemptOutcome.SUCCEEDED
    ]
    return found[-1] if found else None


def keep_finished(
    owner: Owner, identity: str, record: AttemptRecord | None, config_maps: Sequence[Body], run: str = ""
) -> tuple[Action, ...]:
    """Actions that keep the work of a run that has succeeded; none if it is kept, or was taken over itself.

    Args:
        record: the last record of the run.
        config_maps: the ConfigMap of finished work for this name, if there is one.
        run: ``run.json`` of a training.
    """
    if record is None or record.outcome is not AttemptOutcome.SUCCEEDED or record.adopted is not None:
        return ()
    metadata = owner.metadata
    own = FinishedRecord(
        kind=owner.kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        identity=identity,
        record=record,
        run=run,
    )
    if not config_maps:
        # One that another resource makes at the same moment counts as made; the next pass adds to it.
        condition = ConditionType.FINISHED_WORK_KEPT
        return (Create(build_finished_work(owner, own), condition=condition),)
    if own.uid in (config_maps[0].get("data") or {}):
        return ()
    dropped = superseded_work([*read_finished_keys(config_maps[0]), own.key])
    if own.uid in dropped:
        return ()
    patch = {"data": {**dict.fromkeys(sorted(dropped)), own.uid: own.to_json()}}
    return (Patch.of(config_maps[0], patch),)


def adopted_work(finished: FinishedRecord) -> AdoptedWork:
    """Origin of work that is taken over."""
    return AdoptedWork(uid=finished.uid, finished_at=finished.finished_at)


def adopted_condition(record: AttemptRecord | None, kind: str) -> list[ConditionUpdate]:
    """Condition of a resource whose work was taken over; none for any other."""
    if record is None or record.adopted is None:
        return []
    message = describe_adoption(record.adopted, kind)
    return [ConditionUpdate(ConditionType.ADOPTED, "True", RunReason.FINISHED_BEFORE, message)]


def adopted_event(adopted: AdoptedWork, kind: str) -> Event:
    """Event of the same."""
    return Event(RunReason.FINISHED_BEFORE, describe_adoption(adopted, kind))


def describe_adoption(adopted: AdoptedWork, kind: str) -> str:
    """Sentence on the origin of work, and on how to have it done again."""
    return (
        f"The {kind} of this name and spec with UID {adopted.uid} finished this work at "
        f"{timestamp(adopted.finished_at)}; nothing that decides it has changed, so it is not done again. To do it "
        "again, create the resource with spec.reuse: Never."
    )


def stop_live_jobs(children: Children) -> tuple[Action, ...]:
    """Deletion of the live Jobs of a resource whose outcome stands in a status that was restored after its creation."""
    live = (job for job in children.jobs if job_end(job) is None and not is_deleting(job))
    return tuple(Delete.of(job) for job in live)
