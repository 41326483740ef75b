"""Versions of all aliases, merged from their ControllerRevisions and the rollout records."""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from tunesmith.decide.plan import Create, Delete, Patch
from tunesmith.decide.serving.admission.targets import UNEVALUATED, TargetVersion, VersionRecord
from tunesmith.manifests.names import Owner
from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith.manifests.version_revision import (
    API_VERSION,
    KIND,
    build_version_revision,
    lift_patch,
    promotion_patch,
    read_base_model,
    read_promotion,
    read_rejection,
    read_time,
    rejection_patch,
    version_revision_name,
)
from tunesmith_contract.agent import MAX_REJECTED_DIGESTS, Version

from .record import AliasRecord

UNREADABLE = "Unreadable"


def read_versions(revisions: Iterable[Body]) -> tuple[VersionRecord, ...]:
    """Versions stored in ControllerRevisions; one that can't be read is left out."""
    return tuple(version for revision in revisions if (version := _read_version(revision)) is not None)


def merge_records(
    versions: Iterable[VersionRecord], records: Iterable[AliasRecord]
) -> tuple[VersionRecord, ...]:
    """Versions with the changes of the records that their ControllerRevisions do not have yet."""
    merged = {(version.alias, version.version.digest): version for version in versions}
    for record in records:
        for version in record.versions():
            key = (record.name, version.digest)
            merged.setdefault(key, VersionRecord(record.name, version, UNEVALUATED))
        for key in [key for key in merged if key[0] == record.name]:
            merged[key] = _with_record(merged[key], record)
    return tuple(merged.values())


def plan_revisions(
    owner: Owner, record: AliasRecord, versions: Iterable[VersionRecord], target: TargetVersion, now: datetime
) -> tuple[Create, ...]:
    """Creation of a ControllerRevision for each current version of the record that has none.

    Args:
        versions: the versions stored in ControllerRevisions.
    """
    stored = {version.version.digest for version in versions if version.alias == record.name}
    creations = []
    for version in _current_versions(record):
        if version.digest not in stored:
            is_target = target.version is not None and target.version.digest == version.digest
            admitted = target if is_target else TargetVersion()
            evaluation = (admitted.evaluated, admitted.eval_run, admitted.policy_digest)
            revision = build_version_revision(owner, record.name, version, *evaluation, now)
            creations.append(Create(revision, record.name))
    return tuple(creations)


def plan_deletions(
    revisions: Iterable[Body],
    record: AliasRecord,
    versions: Iterable[VersionRecord],
    target: TargetVersion,
    limit: int,
) -> tuple[Delete, ...]:
    """Deletion of the ControllerRevisions of an alias's old versions, but for the latest ones.

    None is deleted whose version may answer requests, is being loaded, or is what the source names. Of the others
    there stay those that were promoted last, so many as the limit says, and the latest rejected ones.

    Args:
        revisions: the ControllerRevisions of all aliases.
        versions: the versions of all aliases, as of this pass.
        target: the version that the alias is to serve.
    """
    needed = _needed_digests(record, target)
    old = [
        version
        for version in versions
        if version.alias == record.name and version.version.digest not in needed
    ]
    rejected = sorted((version for version in old if version.rejected), key=_rejection_order, reverse=True)
    others = sorted((version for version in old if not version.rejected), key=_promotion_order, reverse=True)
    dropped = {version.version.digest for version in (*others[limit:], *rejected[MAX_REJECTED_DIGESTS:])}
    if not dropped:
        return ()
    stored = ((revision, _read_version(revision)) for revision in revisions)
    return tuple(
        Delete.of(revision)
        for revision, version in stored
        if version is not None and version.alias == record.name and version.version.digest in dropped
    )


def plan_annotations(
    owner: Owner, record: AliasRecord, versions: Iterable[VersionRecord]
) -> tuple[Patch, ...]:
    """Annotations of promotion and rollback for the ControllerRevisions that lack them, or have one that was lifted.

    Args:
        versions: the versions stored in ControllerRevisions.
    """
    stored = {version.version.digest: version for version in versions if version.alias == record.name}
    current = {version.digest for version in _current_versions(record)}
    annotations = []
    if record.stable and record.promoted:
        revision = stored.get(record.stable.digest)
        is_other = revision is None or revision.promoted != record.promoted
        if is_other or (revision is not None and record.model not in {"", revision.model}):
            patch = promotion_patch(record.promoted, record.model)
            annotations.append(_patch(owner, record.name, record.stable, patch))
    for lift in record.lifts:
        revision = stored.get(lift.digest)
        is_lifted = revision is not None and revision.rejected is not None and revision.rejected <= lift.time
        if revision is not None and is_lifted and not record.is_rejected(lift.digest):
            annotations.append(_patch(owner, record.name, revision.version, lift_patch()))
    for rejection in record.effective_rejections:
        digest = rejection.version.digest
        revision = stored.get(digest)
        is_missing = revision is None and digest in current
        if is_missing or (revision is not None and revision.rejected != rejection.time):
            patch = rejection_patch(rejection.time, rejection.reason, rejection.message)
            annotations.append(_patch(owner, record.name, rejection.version, patch))
    return tuple(annotations)


def _read_version(revision: Body) -> VersionRecord | None:
    """The version; annotations that were edited into something else reject it, and say nothing of a promotion."""
    try:
        data = revision["data"]
        version = VersionRecord(
            alias=data["alias"],
            version=Version(version=data["version"], digest=data["digest"], uri=data["uri"]),
            evaluated=data["evaluated"],
            policy_digest=data["policyDigest"],
        )
    except (KeyError, TypeError, ValueError):
        return None
    return _with_rejection(_with_promotion(version, revision), revision)


def _with_promotion(version: VersionRecord, revision: Body) -> VersionRecord:
    try:
        return replace(version, promoted=read_promotion(revision), model=read_base_model(revision))
    except ValueError:
        return version


def _with_rejection(version: VersionRecord, revision: Body) -> VersionRecord:
    try:
        rejection = read_rejection(revision)
        if rejection is None:
            return version
        time = read_time(rejection["time"])
        reason, message = str(rejection["reason"]), str(rejection["message"])
        return replace(version, rejected=time, reason=reason, message=message)
    except (KeyError, TypeError, ValueError, json.JSONDecodeError):
        created = datetime.fromisoformat(revision["data"]["admitted"])
        return replace(version, rejected=created, reason=UNREADABLE, message="the annotation can't be read")


def _current_versions(record: AliasRecord) -> tuple[Version, ...]:
    candidate = record.candidate.version if record.candidate else None
    rejected = record.rejections[0].version if record.rejections else None
    named = (record.watch.previous, record.stable, rejected, candidate)
    return tuple({version.digest: version for version in named if version}.values())


def _needed_digests(record: AliasRecord, target: TargetVersion) -> frozenset[str]:
    """Digests of the versions that the alias serves, loads, goes back to, or is to serve."""
    named = {version.digest for version in _current_versions(record)}
    if target.version is not None:
        named.add(target.version.digest)
    if record.undo is not None:
        named |= {record.undo.version.digest, *record.undo.left}
    return frozenset(named)


def _promotion_order(version: VersionRecord) -> tuple[float, int]:
    """Order of versions by their last promotion; those that never answered all requests come first."""
    return version.promoted.timestamp() if version.promoted else 0.0, version.version.version


def _rejection_order(version: VersionRecord) -> tuple[float, int]:
    return version.rejected.timestamp() if version.rejected else 0.0, version.version.version


def _with_record(version: VersionRecord, record: AliasRecord) -> VersionRecord:
    digest = version.version.digest
    if record.stable and record.stable.digest == digest and record.promoted:
        version = replace(version, promoted=record.promoted, model=record.model or version.model)
    rejection = next((known for known in record.rejections if known.version.digest == digest), None)
    if rejection is not None and (version.rejected is None or version.rejected < rejection.time):
        version = replace(
            version, rejected=rejection.time, reason=rejection.reason, message=rejection.message
        )
    lifts = (lift.time for lift in record.lifts if lift.digest == digest)
    if version.rejected is not None and any(time >= version.rejected for time in lifts):
        return replace(version, rejected=None, reason="", message="")
    return version


def _patch(owner: Owner, alias: str, version: Version, patch: KubernetesObject) -> Patch:
    name = version_revision_name(owner, alias, version.version)
    return Patch(API_VERSION, KIND, owner.metadata.namespace, name, patch, alias)
