"""The FineTuneJobs whose artefacts a job begins with: waited for, then followed to what they made."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobArtifact
from tunesmith.api.reasons import ConditionType, FineTuneJobPhase, FineTuneJobReason
from tunesmith.decide.run.waiting import PATIENCE
from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Failure
from tunesmith_contract.uris import Scheme, parse_uri

from .run_config import EarlierArtifact, referred_jobs

_WHOLE = frozenset({ArtifactKind.MODEL, ArtifactKind.REWARD_MODEL})


@dataclass(frozen=True, slots=True)
class NotReady:
    """An earlier job has not made its artefact.

    Attributes:
        message: which one, and what it does.
        missing: it is not there at all, which a person may have to put right.
    """

    message: str
    missing: bool = False


def find_earlier(
    job: FineTuneJob, found: Mapping[str, FineTuneJob | None], now: datetime
) -> dict[str, EarlierArtifact] | NotReady | Failure:
    """What the job's references come to, by their names."""
    artifacts: dict[str, EarlierArtifact] = {}
    for name in referred_jobs(job.spec):
        outcome = _follow(job, name, found.get(name), now)
        if not isinstance(outcome, EarlierArtifact):
            return outcome
        artifacts[name] = outcome
    return artifacts


def base_model_of(job: FineTuneJob) -> str:
    """The model that a job tuned: the very revision, where the hub moves on."""
    resolved = job.status.resolved
    written = (resolved and resolved.base_model) or job.spec.base_model.uri
    assert written is not None
    uri, revision = parse_uri(written), resolved.base_model_revision if resolved else None
    return str(uri._replace(revision=revision) if uri.scheme is Scheme.HF and revision else uri)


def is_whole(job: FineTuneJob, artifact: JobArtifact) -> bool:
    """Whether the artefact is a whole model, not an adapter."""
    return artifact.kind in _WHOLE if artifact.kind else job.spec.adapter is None


def _follow(
    job: FineTuneJob, name: str, earlier: FineTuneJob | None, now: datetime
) -> EarlierArtifact | NotReady | Failure:
    if earlier is None:
        message = f'FineTuneJob "{name}" does not exist in namespace {job.metadata.namespace}: create it.'
        return _failed(message) if _is_impatient(job, now) else NotReady(message, missing=True)
    if earlier.status.phase is FineTuneJobPhase.FAILED:
        told = earlier.status.failure.message if earlier.status.failure else ""
        return _failed(f'FineTuneJob "{name}" failed, so there is nothing to begin with: {told}'[:2048])
    artifact = earlier.status.artifact
    if earlier.status.phase is not FineTuneJobPhase.SUCCEEDED or artifact is None:
        phase = earlier.status.phase or FineTuneJobPhase.PENDING
        return NotReady(f'FineTuneJob "{name}" has not succeeded yet: it is {phase}.')
    return EarlierArtifact(
        artifact.uri, artifact.digest, base_model_of(earlier), whole=is_whole(earlier, artifact)
    )


def _is_impatient(job: FineTuneJob, now: datetime) -> bool:
    """Whether something has been missing for so long that a person has to know. Ready is False since then."""
    ready = next((item for item in job.status.conditions if item.type == ConditionType.READY), None)
    if ready is None or ready.status != "False" or ready.reason != FineTuneJobReason.WAITING_FOR_JOB:
        return False
    return now >= ready.last_transition_time + PATIENCE


def _failed(message: str) -> Failure:
    reason = FineTuneJobReason.EARLIER_JOB_FAILED
    return Failure(category=FailureCategory.USER_ERROR, reason=reason, message=message)
