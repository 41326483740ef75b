"""The versions of all stable names, from their ControllerRevisions and the record together."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from tunesmith.decide.plan import Create, Patch
from tunesmith.manifests.names import Owner
from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith.manifests.version_revision import (
    API_VERSION,
    KIND,
    build_version_revision,
    promotion_patch,
    read_promotion,
    read_rejection,
    rejection_patch,
    version_revision_name,
)
from tunesmith_contract.agent import Version

from .record import AliasRecord
from .sources import UNEVALUATED, VersionRecord, Wanted


def read_versions(revisions: Iterable[Body]) -> tuple[VersionRecord, ...]:
    """What the ControllerRevisions say."""
    return tuple(_read_version(revision) for revision in revisions)


def overlay(versions: Iterable[VersionRecord], records: Iterable[AliasRecord]) -> tuple[VersionRecord, ...]:
    """The versions with what the records know and the revisions do not say yet."""
    merged = {(known.alias, known.version.digest): known for known in versions}
    for record in records:
        for version in _versions_of(record):
            key = (record.name, version.digest)
            known = merged.get(key, VersionRecord(record.name, version, UNEVALUATED))
            merged[key] = _with_record(known, record)
    return tuple(merged.values())


def rebuild_record(alias: str, versions: Iterable[VersionRecord]) -> AliasRecord:
    """The record of a name whose ConfigMap is lost: the version that was promoted last is stable."""
    promoted = [known for known in versions if known.alias == alias and known.promoted and not known.rejected]
    if not promoted:
        return AliasRecord(name=alias)
    last = max(promoted, key=lambda known: (known.promoted, known.version.version))
    return AliasRecord(name=alias, stable=last.version, promoted=last.promoted)


def plan_revisions(
    owner: Owner, record: AliasRecord, versions: Iterable[VersionRecord], wanted: Wanted, now: datetime
) -> tuple[Create, ...]:
    """Create what the record names and no ControllerRevision says.

    Args:
        versions: what the ControllerRevisions say.
    """
    known = {version.version.digest for version in versions if version.alias == record.name}
    missing = (version for version in _versions_of(record) if version.digest not in known)
    return tuple(_create(owner, record.name, version, wanted, now) for version in missing)


def plan_notes(owner: Owner, record: AliasRecord, versions: Iterable[VersionRecord]) -> tuple[Patch, ...]:
    """Note on the ControllerRevisions which version took over and which was taken back, where not yet said."""
    known = {version.version.digest: version for version in versions if version.alias == record.name}
    notes = []
    if record.stable and record.promoted and _promotion(known, record.stable) != record.promoted:
        notes.append(_patch(owner, record.name, record.stable, promotion_patch(record.promoted)))
    rejection = record.rejection
    if rejection and not (known.get(rejection.version.digest) or _NOTHING).rejected:
        patch = rejection_patch(rejection.time, rejection.reason, rejection.message)
        notes.append(_patch(owner, record.name, rejection.version, patch))
    return tuple(notes)


_NOTHING = VersionRecord("", Version(version=1, digest="sha256:" + "0" * 64, uri=""), UNEVALUATED)


def _promotion(known: dict[str, VersionRecord], version: Version) -> datetime | None:
    return known.get(version.digest, _NOTHING).promoted


def _read_version(revision: Body) -> VersionRecord:
    data, rejection = revision["data"], read_rejection(revision)
    return VersionRecord(
        alias=data["alias"],
        version=Version(version=data["version"], digest=data["digest"], uri=data["uri"]),
        evaluated=data["evaluated"],
        policy_digest=data["policyDigest"],
        promoted=read_promotion(revision),
        rejected=datetime.fromisoformat(rejection["time"]) if rejection else None,
        reason=rejection["reason"] if rejection else "",
        message=rejection["message"] if rejection else "",
    )


def _versions_of(record: AliasRecord) -> tuple[Version, ...]:
    trial = record.trial.version if record.trial else None
    rejected = record.rejection.version if record.rejection else None
    found = {version.digest: version for version in (record.stable, rejected, trial) if version}
    return tuple(found.values())


def _with_record(known: VersionRecord, record: AliasRecord) -> VersionRecord:
    digest = known.version.digest
    if record.stable and record.stable.digest == digest and record.promoted:
        known = replace(known, promoted=record.promoted)
    rejection = record.rejection
    if rejection and rejection.version.digest == digest and known.rejected is None:
        known = replace(known, rejected=rejection.time, reason=rejection.reason, message=rejection.message)
    return known


def _create(owner: Owner, alias: str, version: Version, wanted: Wanted, now: datetime) -> Create:
    admitted = wanted if wanted.version and wanted.version.digest == version.digest else Wanted()
    return Create(
        build_version_revision(
            owner, alias, version, admitted.evaluated, admitted.eval_run, admitted.policy_digest, now
        )
    )


def _patch(owner: Owner, alias: str, version: Version, patch: KubernetesObject) -> Patch:
    name = version_revision_name(owner, alias, version.version)
    return Patch(API_VERSION, KIND, owner.metadata.namespace, name, patch)
