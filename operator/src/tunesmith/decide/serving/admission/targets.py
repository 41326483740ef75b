"""Artifact that an alias is meant to serve, and the checks that admit it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from tunesmith.api.adapterdeployment import (
    RANKS,
    Adapter,
    AdapterDeploymentSpec,
    RequiredBaseline,
    RequiredVerdict,
)
from tunesmith.api.job_status import FineTuneJobStatus
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.reasons import ConditionType, FineTuneJobPhase
from tunesmith_contract.agent import Version
from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.base import short_digest
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_contract.uris import InvalidUri, Scheme, parse_uri

from .evaluations import Evaluation, GateRequirement, decide_gate

UNEVALUATED = "Unevaluated"

_NO_ADAPTERS = frozenset({ArtifactKind.MODEL, ArtifactKind.REWARD_MODEL, ArtifactKind.REWARD_ADAPTER})


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One version of an alias, as stored in its ControllerRevision.

    Attributes:
        evaluated: the verdict of its EvalRun when it was admitted, or ``Unevaluated``.
        policy_digest: the policy digest of that EvalRun.
        promoted: the time of its latest promotion; None if it was never promoted.
        model: URI of the base model that it answered on last; empty if it never did, or that is unknown.
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
    model: str = ""


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
        eval_runs: number of EvalRuns that judged it by that policy.
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
    eval_runs: int = 0


@dataclass(frozen=True, slots=True)
class Sources:
    """Observed artifacts, evaluations and versions, from which targets are resolved.

    Attributes:
        jobs: the FineTuneJobs that adapters refer to, by name; None for one that does not exist.
        evaluations: the verdicts of the namespace.
        versions: all past and present versions of all aliases.
        deployment: name of the AdapterDeployment.
        serving: digest of the stable version by alias.
        last_numbers: highest version number that was ever given, by alias.
        ranks: rank of the adapter that a job trains, by the job's name; none for a job that searches for it.
    """

    spec: AdapterDeploymentSpec
    jobs: Mapping[str, FineTuneJobStatus | None]
    evaluations: tuple[Evaluation, ...]
    versions: tuple[VersionRecord, ...]
    deployment: str = ""
    serving: Mapping[str, str] = field(default_factory=dict)
    last_numbers: Mapping[str, int] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)

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
        numbers = [record.version.version for record in self.versions if record.alias == alias]
        return 1 + max(*numbers, self.last_numbers.get(alias, 0), 0)


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
        f"{short_digest(version.digest)} was rolled back before and is not tried again without the action retry: "
        f"{existing.message}"
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


def _check_rank(target: TargetVersion, version: Version, adapter: Adapter, sources: Sources) -> TargetVersion:
    """Reject an adapter that the engine would refuse, before a pod fetches it."""
    reference, allowed = adapter.source.fine_tune_job_ref, sources.spec.engine.max_rank
    rank = sources.ranks.get(reference.name, 0) if reference else 0
    if rank <= allowed:
        return target
    needed = next((value for value in RANKS if value >= rank), None)
    advice = f"write engine.maxRank: {needed}" if needed else "train it with a lower adapter.rank"
    message = f"the adapter has rank {rank}, and engine.maxRank is {allowed}: {advice}"
    return replace(target, reason=Reason.INCOMPATIBLE, message=message)


def _check_reachable(
    target: TargetVersion, version: Version, adapter: Adapter, sources: Sources
) -> TargetVersion:
    if message := find_unreachable(version, sources.spec):
        return replace(target, reason=Reason.SOURCE_UNREACHABLE, message=message)
    return replace(target, reachable=True)


def find_unreachable(version: Version, spec: AdapterDeploymentSpec) -> str:
    """Sentence that says why the pods can't read the location of the version; empty if they can."""
    try:
        uri = parse_uri(version.uri)
    except InvalidUri as error:
        return str(error)
    if uri.scheme is Scheme.CONFIGMAP:
        return f"{version.uri}: an adapter can't be a ConfigMap, write the location of the artifact"
    if uri.scheme is Scheme.PVC and uri.name not in {volume.claim for volume in spec.artifact_volumes}:
        return (
            f"{version.uri}: the pods do not mount this claim, add {{claim: {uri.name}}} to artifactVolumes"
        )
    return ""


def _check_evaluated(
    target: TargetVersion, version: Version, adapter: Adapter, sources: Sources
) -> TargetVersion:
    needed = adapter.require_eval_run
    serving = sources.serving.get(adapter.name, "")
    requirement = GateRequirement(
        alias=f"{sources.deployment}/{adapter.name}",
        serving=serving,
        policy_digest=needed.policy_digest,
        against_serving=needed.baseline is RequiredBaseline.SERVING,
    )
    existing = sources.find_version(adapter.name, version.digest)
    passed_before = (
        existing is not None
        and existing.evaluated == Verdict.PASS
        and needed.policy_digest in {None, existing.policy_digest}
    )
    decision = decide_gate(version.digest, sources.evaluations, requirement)
    if existing is not None and passed_before and version.digest == serving:
        # It serves: a later comparison with it says nothing against it, and a verdict may be deleted.
        return replace(
            target,
            evaluated=existing.evaluated,
            policy_digest=existing.policy_digest,
            eval_runs=decision.runs,
        )
    if admitting := decision.admitting:
        return replace(
            target,
            evaluated=admitting.verdict.value,
            eval_run=admitting.name,
            policy_digest=admitting.policy_digest,
            eval_runs=decision.runs,
        )
    if needed.verdict is RequiredVerdict.NONE:
        message = "no EvalRun is required"
        return replace(target, admitted=True, reason=Reason.UNEVALUATED, message=message)
    if existing is not None and passed_before and not decision.standing:
        return replace(target, evaluated=existing.evaluated, policy_digest=existing.policy_digest)
    return replace(
        target, reason=Reason.NO_PASSING_EVAL_RUN, message=decision.message, eval_runs=decision.runs
    )


ADMISSION_CHECKS: tuple[AdmissionCheck, ...] = (
    _check_not_rejected,
    _check_servable,
    _check_rank,
    _check_reachable,
    _check_evaluated,
)
