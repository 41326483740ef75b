"""Which artefact a stable name is to stand for, and whether it may: a chain of small checks."""

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
    """One version of a stable name, as its ControllerRevision has it.

    Attributes:
        evaluated: what an EvalRun said when it was admitted, or ``Unevaluated``.
        policy_digest: what that verdict meant.
        promoted: when it last took over; None if it never did.
        rejected: when it was taken back; None if it was not.
        reason: why it was taken back.
        message: the same in a sentence.
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
    """An EvalRun that came to a verdict about an artefact."""

    name: str
    digest: str
    verdict: Verdict
    policy_digest: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """The artefact that a source names now.

    Attributes:
        version: None while the source names none.
        reachable: the pods have the claim that it lies on.
        admitted: it may be loaded and get requests.
        rejected: it was taken back before.
        reason: why it is not admitted; ``Unevaluated`` for one that is admitted without proof.
        message: the same in a sentence, saying what is missing.
        evaluated: what its EvalRun said, or ``Unevaluated``.
        eval_run: the EvalRun that opens the gate.
        policy_digest: what its verdict means.
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
    """What is known about artefacts.

    Attributes:
        jobs: the FineTuneJobs that adapters name, by name; None for one that is not there.
        evaluations: the EvalRuns of the namespace that have a verdict.
        versions: all versions of all names that ever were.
    """

    spec: AdapterDeploymentSpec
    jobs: Mapping[str, FineTuneJobStatus | None]
    evaluations: tuple[Evaluation, ...]
    versions: tuple[VersionRecord, ...]

    def known(self, alias: str, digest: str) -> VersionRecord | None:
        """The version that this artefact is already."""
        found = (known for known in self.versions if (known.alias, known.version.digest) == (alias, digest))
        return next(found, None)

    def number(self, alias: str, digest: str) -> int:
        """The artefact's number within the name: the one it has, or the next that was never used."""
        if known := self.known(alias, digest):
            return known.version.version
        return 1 + max((known.version.version for known in self.versions if known.alias == alias), default=0)


def find_wanted(adapter: Adapter, sources: Sources) -> Wanted:
    """What the adapter's source names, and whether all checks let it in."""
    artifact, waiting = _artifact(adapter, sources)
    if artifact is None:
        return waiting
    uri, digest = artifact
    version = Version(version=sources.number(adapter.name, digest), digest=digest, uri=uri)
    wanted = Wanted(version=version)
    for check in CHECKS:
        wanted = check(wanted, version, adapter, sources)
        if wanted.reason and not wanted.admitted:
            return wanted
    return replace(wanted, admitted=True)


def read_evaluations(bodies: Iterable[Mapping[str, Any]]) -> tuple[Evaluation, ...]:
    """The EvalRuns that have a verdict, in the order of their names."""
    found = []
    for body in bodies:
        status = EvalRunStatus.model_validate(body.get("status") or {})
        if status.verdict and status.candidate and status.candidate.digest:
            name = body["metadata"]["name"]
            found.append(Evaluation(name, status.candidate.digest, status.verdict, status.policy_digest))
    return tuple(sorted(found, key=lambda evaluation: evaluation.name))


def _artifact(adapter: Adapter, sources: Sources) -> tuple[tuple[str, str] | None, Wanted]:
    source = adapter.source
    if source.fine_tune_job_ref is None:
        assert source.uri is not None and source.digest is not None
        return (source.uri, source.digest), Wanted()
    name = source.fine_tune_job_ref.name
    status = sources.jobs.get(name)
    if status is None:
        message = f"FineTuneJob {name} does not exist in this namespace"
        return None, Wanted(reason=Reason.WAITING_FOR_SOURCE, message=message)
    if status.artifact is not None and status.artifact.kind in _NO_ADAPTERS:
        message = (
            f"FineTuneJob {name} made a {status.artifact.kind}, and adapters of causal models are served: train a LoRA "
            "adapter"
        )
        return None, Wanted(reason=Reason.INCOMPATIBLE, message=message)
    if status.artifact is not None:
        return (status.artifact.uri, status.artifact.digest), Wanted()
    if status.phase is FineTuneJobPhase.FAILED:
        return None, Wanted(reason=Reason.SOURCE_FAILED, message=f"FineTuneJob {name} failed")
    return None, Wanted(reason=Reason.WAITING_FOR_SOURCE, message=f"FineTuneJob {name} has no artefact yet")


Check = Callable[[Wanted, Version, Adapter, Sources], Wanted]


def _check_not_rejected(wanted: Wanted, version: Version, adapter: Adapter, sources: Sources) -> Wanted:
    known = sources.known(adapter.name, version.digest)
    if known is None or known.rejected is None:
        return wanted
    message = f"{short_digest(version.digest)} was taken back before and is not tried again: {known.message}"
    return replace(wanted, rejected=True, reason=Reason.DIGEST_REJECTED, message=message)


def _check_servable(wanted: Wanted, version: Version, adapter: Adapter, sources: Sources) -> Wanted:
    """What the job said of its artefact before it was trained."""
    reference = adapter.source.fine_tune_job_ref
    status = sources.jobs.get(reference.name) if reference else None
    if status is None or status.artifact is None or status.artifact.servable is not False:
        return wanted
    said = next((each.message for each in status.conditions if each.type == ConditionType.SERVABLE), "")
    return replace(
        wanted, reason=Reason.INCOMPATIBLE, message=said or "the artefact can't be served as an adapter"
    )


def _check_reachable(wanted: Wanted, version: Version, adapter: Adapter, sources: Sources) -> Wanted:
    try:
        uri = parse_uri(version.uri)
    except InvalidUri as error:
        return replace(wanted, reason=Reason.SOURCE_UNREACHABLE, message=str(error))
    if uri.scheme is Scheme.CONFIGMAP:
        message = f"{version.uri}: an adapter is no ConfigMap, write where the artefact lies"
        return replace(wanted, reason=Reason.SOURCE_UNREACHABLE, message=message)
    if uri.scheme is not Scheme.PVC:
        return replace(wanted, reachable=True)
    if uri.name not in {volume.claim for volume in sources.spec.artifact_volumes}:
        message = (
            f"{version.uri}: the pods do not have this claim, add {{claim: {uri.name}}} to artifactVolumes"
        )
        return replace(wanted, reason=Reason.SOURCE_UNREACHABLE, message=message)
    return replace(wanted, reachable=True)


def _check_evaluated(wanted: Wanted, version: Version, adapter: Adapter, sources: Sources) -> Wanted:
    needed = adapter.require_eval_run
    about = [run for run in sources.evaluations if run.digest == version.digest]
    meant = [run for run in about if needed.policy_digest in {None, run.policy_digest}]
    passed = next((run for run in meant if run.verdict is Verdict.PASS), None)
    if passed:
        return replace(
            wanted,
            evaluated=passed.verdict.value,
            eval_run=passed.name,
            policy_digest=passed.policy_digest,
        )
    if needed.verdict is RequiredVerdict.NONE:
        message = "no EvalRun is asked for"
        return replace(wanted, admitted=True, reason=Reason.UNEVALUATED, message=message)
    known = sources.known(adapter.name, version.digest)
    if known and known.evaluated == Verdict.PASS and needed.policy_digest in {None, known.policy_digest}:
        return replace(wanted, evaluated=known.evaluated, policy_digest=known.policy_digest)
    message = _what_is_missing(version.digest, needed.policy_digest, about, meant)
    return replace(wanted, reason=Reason.NO_PASSING_EVAL_RUN, message=message)


def _what_is_missing(
    digest: str, policy_digest: str | None, about: list[Evaluation], meant: list[Evaluation]
) -> str:
    policy = f" and policyDigest {policy_digest}" if policy_digest else ""
    needed = f"an EvalRun with verdict Pass for {short_digest(digest)}{policy} is needed"
    if meant:
        said = ", ".join(f"{run.name} says {run.verdict}" for run in meant[:3])
        return f"{needed}: {said}"
    if about:
        others = ", ".join(f"{run.name} has {run.policy_digest or 'none'}" for run in about[:3])
        return f"{needed}: {others}"
    return f"{needed}, and none has judged it"


CHECKS: tuple[Check, ...] = (_check_not_rejected, _check_servable, _check_reachable, _check_evaluated)
