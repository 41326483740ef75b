"""Versions of all aliases, merged from their ControllerRevisions and the rollout record."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.decide.plan import Create, Patch
from tunesmith.manifests.names import Owner
from tunesmith.manifests.objects import Body, KubernetesObject
from tunesmith.manifests.serving_config_maps import RECORD_KEY
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

from .record import AliasRecord, ServingRecord
from .targets import UNEVALUATED, TargetVersion, VersionRecord


def read_versions(revisions: Iterable[Body]) -> tuple[VersionRecord, ...]:
    """Versions stored in ControllerRevisions."""
    return tuple(_read_version(revision) for revision in revisions)


def merge_records(
    versions: Iterable[VersionRecord], records: Iterable[AliasRecord]
) -> tuple[VersionRecord, ...]:
    """Versions with the changes of the records that their ControllerRevisions do not have yet."""
    merged = {(version.alias, version.version.digest): version for version in versions}
    for record in records:
        for version in _versions_of(record):
            key = (record.name, version.digest)
            stored = merged.get(key, VersionRecord(record.name, version, UNEVALUATED))
            merged[key] = _with_record(stored, record)
    return tuple(merged.values())


def rebuild_record(alias: str, versions: Iterable[VersionRecord]) -> AliasRecord:
    """Record of an alias whose ConfigMap is lost: the version that was promoted last is stable."""
    promoted = [
        version
        for version in versions
        if version.alias == alias and version.promoted and not version.rejected
    ]
    if not promoted:
        return AliasRecord(name=alias)
    last = max(promoted, key=lambda version: (version.promoted, version.version.version))
    return AliasRecord(name=alias, stable=last.version, promoted=last.promoted)


def read_records(
    deployment: AdapterDeployment, config_map: Body | None, versions: Iterable[VersionRecord]
) -> dict[str, AliasRecord]:
    """Records of all aliases by name, from the ConfigMap, or rebuilt from the versions where it is lost."""
    if config_map is None:
        names = [adapter.name for adapter in deployment.spec.adapters]
        versions = tuple(versions)
        return {name: rebuild_record(name, versions) for name in names}
    document = ServingRecord.model_validate_json(config_map["data"][RECORD_KEY])
    return {record.name: record for record in document.aliases}


def plan_revisions(
    owner: Owner, record: AliasRecord, versions: Iterable[VersionRecord], target: TargetVersion, now: datetime
) -> tuple[Create, ...]:
    """Creation of a ControllerRevision for each version of the record that has none.

    Args:
        versions: the versions stored in ControllerRevisions.
    """
    stored = {version.version.digest for version in versions if version.alias == record.name}
    creations = []
    for version in _versions_of(record):
        if version.digest not in stored:
            is_target = target.version is not None and target.version.digest == version.digest
            admitted = target if is_target else TargetVersion()
            evaluation = (admitted.evaluated, admitted.eval_run, admitted.policy_digest)
            creations.append(Create(build_version_revision(owner, record.name, version, *evaluation, now)))
    return tuple(creations)


def plan_annotations(
    owner: Owner, record: AliasRecord, versions: Iterable[VersionRecord]
) -> tuple[Patch, ...]:
    """Annotations of promotion and rollback for the ControllerRevisions that lack them."""
    stored = {version.version.digest: version for version in versions if version.alias == record.name}
    annotations = []
    if record.stable and record.promoted:
        revision = stored.get(record.stable.digest)
        if revision is None or revision.promoted != record.promoted:
            annotations.append(_patch(owner, record.name, record.stable, promotion_patch(record.promoted)))
    if rejection := record.rejection:
        revision = stored.get(rejection.version.digest)
        if revision is None or not revision.rejected:
            patch = rejection_patch(rejection.time, rejection.reason, rejection.message)
            annotations.append(_patch(owner, record.name, rejection.version, patch))
    return tuple(annotations)


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
    candidate = record.candidate.version if record.candidate else None
    rejected = record.rejection.version if record.rejection else None
    versions = {version.digest: version for version in (record.stable, rejected, candidate) if version}
    return tuple(versions.values())


def _with_record(version: VersionRecord, record: AliasRecord) -> VersionRecord:
    digest = version.version.digest
    if record.stable and record.stable.digest == digest and record.promoted:
        version = replace(version, promoted=record.promoted)
    rejection = record.rejection
    if rejection and rejection.version.digest == digest and version.rejected is None:
        version = replace(
            version, rejected=rejection.time, reason=rejection.reason, message=rejection.message
        )
    return version


def _patch(owner: Owner, alias: str, version: Version, patch: KubernetesObject) -> Patch:
    name = version_revision_name(owner, alias, version.version)
    return Patch(API_VERSION, KIND, owner.metadata.namespace, name, patch)
