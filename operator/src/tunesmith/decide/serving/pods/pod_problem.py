"""Problems of serving pods, with the reasons of an AdapterDeployment."""

from dataclasses import dataclass

from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.decide.objects import condition_of
from tunesmith.decide.pod_diagnosis import PodProblem, diagnose_pod
from tunesmith.decide.refusal import steady_words
from tunesmith.manifests.objects import Body

_REASONS = {
    PodProblem.UNSCHEDULABLE: Reason.UNSCHEDULABLE,
    PodProblem.VOLUME_CLAIM_NOT_FOUND: Reason.VOLUME_CLAIM_NOT_FOUND,
    PodProblem.IMAGE_NOT_PULLED: Reason.IMAGE_NOT_PULLED,
    PodProblem.SECRET_NOT_FOUND: Reason.SECRET_NOT_FOUND,
    PodProblem.SECRET_KEY_NOT_FOUND: Reason.SECRET_NOT_FOUND,
    PodProblem.CRASHING: Reason.UNAVAILABLE,
}


#: Characters that are shown of the end of a log, where the cause is.
_MAX_LAST_WORDS = 400


@dataclass(frozen=True, slots=True)
class ServingPodProblem:
    """Reason and message for the status of a pod that does not run."""

    reason: Reason
    message: str


def find_refusal(deployment: Body) -> str | None:
    """The API server's words on pods that a Deployment may not create; None where it may."""
    failure = condition_of(deployment, "ReplicaFailure")
    return steady_words(failure.get("message", "")) if failure is not None else None


def find_pod_problem(pod: Body) -> ServingPodProblem | None:
    """The pod's first problem; None where nothing but time is needed."""
    diagnosis = diagnose_pod(pod)
    if diagnosis is None:
        return None
    reason = _REASONS.get(diagnosis.problem, Reason.ENGINE_STARTING)
    if not diagnosis.container:
        return ServingPodProblem(reason, diagnosis.message or "no node takes the pod")
    message = f"container {diagnosis.container}: {diagnosis.waiting_reason}: {diagnosis.message}"
    if diagnosis.problem is PodProblem.CRASHING and diagnosis.last_end is not None:
        ended, exit_code = diagnosis.last_end
        message = f"{message} (ended with {ended}, exit code {exit_code})"
        if diagnosis.last_words:
            message = f"{message}: {diagnosis.last_words[-_MAX_LAST_WORDS:]}"
    return ServingPodProblem(reason, message.rstrip())
