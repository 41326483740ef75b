"""FineTuneJobs that a job refers to, and their artifacts: waited for, then resolved."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.api.job_status import JobArtifact
from tunesmith.api.reasons import ConditionType, FineTuneJobPhase, FineTuneJobReason
from tunesmith.decide.run.patience import CORRECTION_TIME
from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Failure
from tunesmith_contract.sources import ArtifactSource
from tunesmith_contract.uris import Scheme, parse_uri

_WHOLE = frozenset({ArtifactKind.MODEL, ArtifactKind.REWARD_MODEL})


@dataclass(frozen=True, slots=True)
class ReferencedArtifact:
    """Artifact of a FineTuneJob that another one refers to.

    Attributes:
        uri, digest: URI and digest of the artifact.
        base_model: the model it was trained on, with its revision.
        whole_model: the artifact is a whole model, not an adapter.
    """

    uri: str
    digest: str
    base_model: str
    whole_model: bool = False


def referred_jobs(spec: FineTuneJobSpec) -> tuple[str, ...]:
    """Names of the FineTuneJobs whose artifacts the job needs before it can begin: of its base model and rewards."""
    models = (reward.model for reward in spec.method.rewards)
    references = (
        spec.base_model.fine_tune_job_ref,
        *(model.fine_tune_job_ref for model in models if model),
    )
    return tuple(dict.fromkeys(reference.name for reference in references if reference))


def resolve_base(
    spec: FineTuneJobSpec, artifacts: Mapping[str, ReferencedArtifact]
) -> tuple[str, ArtifactSource | None]:
    """URI of the base model, and the adapter of another job that training starts from.

    Another job's whole model is the base model itself; its adapter is trained further, on the same base.

    Raises:
        KeyError: the other job is not among ``artifacts``.
    """
    reference = spec.base_model.fine_tune_job_ref
    if reference is None:
        assert spec.base_model.uri is not None
        return spec.base_model.uri, None
    artifact = artifacts[reference.name]
    if artifact.whole_model:
        return artifact.uri, None
    return artifact.base_model, ArtifactSource(uri=artifact.uri, digest=artifact.digest)


@dataclass(frozen=True, slots=True)
class NotReady:
    """State of a reference to an earlier job that has no artifact yet.

    Attributes:
        message: name and state of the job that is waited for.
        missing: the job does not exist; a person may have to correct that.
    """

    message: str
    missing: bool = False


def find_artifacts(
    job: FineTuneJob, jobs: Mapping[str, FineTuneJob | None], now: datetime
) -> dict[str, ReferencedArtifact] | NotReady | Failure:
    """Artifacts of the jobs that the job refers to, by name; or the reason why one is not ready, or the failure.

    Args:
        jobs: the FineTuneJobs that the job refers to, by name.
    """
    artifacts: dict[str, ReferencedArtifact] = {}
    for name in referred_jobs(job.spec):
        outcome = _find_artifact(job, name, jobs.get(name), now)
        if not isinstance(outcome, ReferencedArtifact):
            return outcome
        artifacts[name] = outcome
    return artifacts


def base_model_of(job: FineTuneJob) -> str:
    """URI of the base model of a job, with its revision where it lies on a hub."""
    resolved = job.status.resolved
    written = (resolved and resolved.base_model) or job.spec.base_model.uri
    assert written is not None
    uri, revision = parse_uri(written), resolved.base_model_revision if resolved else None
    return str(uri._replace(revision=revision) if uri.scheme is Scheme.HF and revision else uri)


def is_whole_model(job: FineTuneJob, artifact: JobArtifact) -> bool:
    """True for a whole model, False for an adapter."""
    return artifact.kind in _WHOLE if artifact.kind else job.spec.adapter is None


def _find_artifact(
    job: FineTuneJob, name: str, earlier: FineTuneJob | None, now: datetime
) -> ReferencedArtifact | NotReady | Failure:
    if earlier is None:
        message = f'FineTuneJob "{name}" does not exist in namespace {job.metadata.namespace}: create it.'
        return _failed(message) if _waited_too_long(job, message, now) else NotReady(message, missing=True)
    if earlier.status.phase is FineTuneJobPhase.FAILED:
        failure = earlier.status.failure.message if earlier.status.failure else ""
        return _failed(
            f'FineTuneJob "{name}" failed, so there is no artifact to begin with: {failure}'[:2048]
        )
    artifact = earlier.status.artifact
    if earlier.status.phase is not FineTuneJobPhase.SUCCEEDED or artifact is None:
        phase = earlier.status.phase or FineTuneJobPhase.PENDING
        return NotReady(f'FineTuneJob "{name}" has not succeeded yet: it is {phase}.')
    return ReferencedArtifact(
        artifact.uri, artifact.digest, base_model_of(earlier), whole_model=is_whole_model(earlier, artifact)
    )


def _waited_too_long(job: FineTuneJob, message: str, now: datetime) -> bool:
    """True when the earlier job of the message has been missing for too long; Ready says so since then."""
    ready = next((item for item in job.status.conditions if item.type == ConditionType.READY), None)
    if ready is None or (ready.status, ready.reason) != ("False", FineTuneJobReason.WAITING_FOR_JOB):
        return False
    if ready.message != message:
        return False
    return now >= ready.last_transition_time + CORRECTION_TIME


def _failed(message: str) -> Failure:
    reason = FineTuneJobReason.EARLIER_JOB_FAILED
    return Failure(category=FailureCategory.USER_ERROR, reason=reason, message=message)
