"""Artifact that an alias is meant to serve, and the checks that admit it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tunesmith.api.adapterdeployment import Adapter, AdapterDeploymentSpec, RequiredVerdict
from tunesmith.api.evalrun import EvalRunStatus
from tunesmith.api.job_status import FineTuneJobStatus
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.reasons import ConditionType, FineTuneJobPhase, Verdict
from tunesmith_contract.agent import Version
from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.base import short_digest
from tunesmith_contract.uris import InvalidUri, Scheme, parse_uri

UNEVALUATED = "Unevaluated"

_NO_ADAPTERS = frozenset({ArtifactKind.MODEL, ArtifactKind.REWARD_MODEL, ArtifactKind.REWARD_ADAPTER})


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One version of an alias, as stored in its ControllerRevision.

    Attributes:
        evaluated: the verdict of its EvalRun when it was admitted, or ``Unevaluated``.
        policy_digest: the policy digest of that EvalRun.
        promoted: the time of its latest promotion; None if it was never promoted.
        rejected: the time of its rollback; None if it was never rolled back.
        reason: the reason for the rollback.
        message: the explanation of the rollback.
    """

    alias: str
    version: Version
    evaluated: str
    policy_digest: str = ""
    promoted: datetime | None = None
    rejected: datetime | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Verdict of an EvalRun about an artifact."""

    name: str
    digest: str
    verdict: Verdict
    policy_digest: str


@dataclass(frozen=True, slots=True)
class TargetVersion:
    """Version that a source names now, with the result of the admission checks.

    Attributes:
        version: None while the source names no artifact.
        reachable: the pods can read its location.
        admitted: it may be loaded and receive requests.
        rejected: it was rolled back before.
        reason: why it is not admitted; ``Unevaluated`` if it is admitted without an evaluation.
        message: the explanation of the reason, which says what is missing.
        evaluated: the verdict of its EvalRun, or ``Unevaluated``.
        eval_run: the EvalRun that admits it.
        policy_digest: the policy digest of that EvalRun.
    """

    version: Version | None = None
    reachable: bool = False
    admitted: bool = False
    rejected: bool = False
    reason: str = ""
    message: str = ""
    evaluated: str = UNEVALUATED
    eval_run: str = ""
    policy_digest: str = ""


@dataclass(frozen=True, slots=True)
class Sources:
    """Observed artifacts, evaluations and versions, from which targets are resolved.

    Attributes:
        jobs: the FineTuneJobs that adapters refer to, by name; None for one that does not exist.
        evaluations: the EvalRuns of the namespace that have a verdict.
        versions: all past and present versions of all aliases.
    """

    spec: AdapterDeploymentSpec
    jobs: Mapping[str, FineTuneJobStatus | None]
    evaluations: tuple[Evaluation, ...]
    versions: tuple[VersionRecord, ...]

    def find_version(self, alias: str, digest: str) -> VersionRecord | None:
        """Version of the alias with this digest, if there is one."""
        matches = (
            record for record in self.versions if (record.alias, record.version.digest) == (alias, digest)
        )
        return next(matches, None)

    def version_number(self, alias: str, digest: str) -> int:
        """Number of the version with this digest, or the next unused number of the alias."""
        if existing := self.find_version(alias, digest):
            return existing.version.version
        return 1 + max(
            (record.version.version for record in self.versions if record.alias == alias), default=0
        )


def resolve_target(adapter: Adapter, sources: Sources) -> TargetVersion:
    """Version that the adapter's source names, after the admission checks."""
    artifact = _resolve_artifact(adapter, sources)
    if isinstance(artifact, TargetVersion):
        return artifact
    uri, digest = artifact
    version = Version(version=sources.version_number(adapter.name, digest), digest=digest, uri=uri)
    target = TargetVersion(version=version)
    for check in ADMISSION_CHECKS:
        target = check(target, version, adapter, sources)
        if target.reason and not target.admitted:
            return target
    return replace(target, admitted=True)


def read_evaluations(bodies: Iterable[Mapping[str, Any]]) -> tuple[Evaluation, ...]:
    """EvalRuns that have a verdict, ordered by name."""
    evaluations = []
    for body in bodies:
        status = EvalRunStatus.model_validate(body.get("status") or {})
        if status.verdict and status.candidate and status.candidate.digest:
            name = body["metadata"]["name"]
            evaluations.append(
                Evaluation(name, status.candidate.digest, status.verdict, status.policy_digest)
            )
    return tuple(sorted(evaluations, key=lambda evaluation: evaluation.name))


def _resolve_artifact(adapter: Adapter, sources: Sources) -> tuple[str, str] | TargetVersion:
    """Location and digest of the artifact, or why there is none."""
    source = adapter.source
    if source.fine_tune_job_ref is None:
        assert source.uri is not None and source.digest is not None
        return source.uri, source.digest
    name = source.fine_tune_job_ref.name
    status = sources.jobs.get(name)
    if status is None:
        message = f"FineTuneJob {name} does not exist in this namespace"
        return TargetVersion(reason=Reason.WAITING_FOR_SOURCE, message=message)
    if status.artifact is not None and status.artifact.kind in _NO_ADAPTERS:
        message = (
            f"FineTuneJob {name} produced a {status.artifact.kind}, but only LoRA adapters of causal language models "
            "can be served"
        )
        return TargetVersion(reason=Reason.INCOMPATIBLE, message=message)
    if status.artifact is not None:
        return status.artifact.uri, status.artifact.digest
    if status.phase is FineTuneJobPhase.FAILED:
        return TargetVersion(reason=Reason.SOURCE_FAILED, message=f"FineTuneJob {name} failed")
    return TargetVersion(reason=Reason.WAITING_FOR_SOURCE, message=f"FineTuneJob {name} has no artifact yet")


AdmissionCheck = Callable[[TargetVersion, Version, Adapter, Sources], TargetVersion]


def _check_not_rejected(
    target: TargetVersion, version: Version, adapter: Adapter, sources: Sources
) -> TargetVersion:
    existing = sources.find_version(adapter.name, version.digest)
    if existing is None or existing.rejected is None:
        return target
    message = (
        f"{short_digest(version.digest)} was rolled back before and is not tried again: {existing.message}"
    )
    return replace(target, rejected=True, reason=Reason.DIGEST_REJECTED, message=message)


def _check_servable(
    target: TargetVersion, version: Version, adapter: Adapter, sources: Sources
) -> TargetVersion:
    """Reject an artifact whose job judged it as not servable."""
    reference = adapter.source.fine_tune_job_ref
    status = sources.jobs.get(reference.name) if reference else None
    if status is None or status.artifact is None or status.artifact.servable is not False:
        return target
    verdicts = (
        condition.message for condition in status.conditions if condition.type == ConditionType.SERVABLE
    )
    message = next(verdicts, "") or "the artifact can't be served as an adapter"
    return replace(target, reason=Reason.INCOMPATIBLE, message=message)


def _check_reachable(
    target: TargetVersion, version: Version, adapter: Adapter, sources: Sources
) -> TargetVersion:
    try:
        uri = parse_uri(version.uri)
    except InvalidUri as error:
        return replace(target, reason=Reason.SOURCE_UNREACHABLE, message=str(error))
    if uri.scheme is Scheme.CONFIGMAP:
        message = f"{version.uri}: an adapter can't be a ConfigMap, write the location of the artifact"
        return replace(target, reason=Reason.SOURCE_UNREACHABLE, message=message)
    if uri.scheme is not Scheme.PVC:
        return replace(target, reachable=True)
    if uri.name not in {volume.claim for volume in sources.spec.artifact_volumes}:
        message = (
            f"{version.uri}: the pods do not mount this claim, add {{claim: {uri.name}}} to artifactVolumes"
        )
        return replace(target, reason=Reason.SOURCE_UNREACHABLE, message=message)
    return replace(target, reachable=True)


def _check_evaluated(
    target: TargetVersion, version: Version, adapter: Adapter, sources: Sources
) -> TargetVersion:
    needed = adapter.require_eval_run
    evaluations = [run for run in sources.evaluations if run.digest == version.digest]
    matching = [run for run in evaluations if needed.policy_digest in {None, run.policy_digest}]
    passed = next((run for run in matching if run.verdict is Verdict.PASS), None)
    if passed:
        return replace(
            target,
            evaluated=passed.verdict.value,
            eval_run=passed.name,
            policy_digest=passed.policy_digest,
        )
    if needed.verdict is RequiredVerdict.NONE:
        message = "no EvalRun is required"
        return replace(target, admitted=True, reason=Reason.UNEVALUATED, message=message)
    existing = sources.find_version(adapter.name, version.digest)
    if (
        existing
        and existing.evaluated == Verdict.PASS
        and needed.policy_digest in {None, existing.policy_digest}
    ):
        return replace(target, evaluated=existing.evaluated, policy_digest=existing.policy_digest)
    message = _missing_evaluation(version.digest, needed.policy_digest, evaluations, matching)
    return replace(target, reason=Reason.NO_PASSING_EVAL_RUN, message=message)


def _missing_evaluation(
    digest: str, policy_digest: str | None, evaluations: list[Evaluation], matching: list[Evaluation]
) -> str:
    """Explanation of what is missing.

    Args:
        evaluations: all that judged this digest.
        matching: those of them with the required policy digest.
    """
    policy = f" and policyDigest {policy_digest}" if policy_digest else ""
    needed = f"an EvalRun with verdict Pass for {short_digest(digest)}{policy} is needed"
    if matching:
        verdicts = ", ".join(f"{run.name} says {run.verdict}" for run in matching[:3])
        return f"{needed}: {verdicts}"
    if evaluations:
        policies = ", ".join(f"{run.name} has {run.policy_digest or 'none'}" for run in evaluations[:3])
        return f"{needed}: {policies}"
    return f"{needed}, and no EvalRun has judged it"


ADMISSION_CHECKS: tuple[AdmissionCheck, ...] = (
    _check_not_rejected,
    _check_servable,
    _check_reachable,
    _check_evaluated,
)
