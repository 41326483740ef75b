"""Reasons for which the pods of a stage do not start, with the field or object to correct."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tunesmith.api.reasons import RunReason
from tunesmith.decide.image_pulls import PullFailure, classify_pull, is_transient
from tunesmith.decide.objects import (
    condition_of,
    created_at,
    is_deleting,
    is_finished,
    is_suspended,
    job_started_at,
    lacks_pods,
    parse_time,
    running_beside,
    terminated,
    waiting,
)
from tunesmith.decide.pod_diagnosis import PodDiagnosis, PodProblem, diagnose_all, missing_secret
from tunesmith.manifests.names import ONE_NODE_ANNOTATION, TRAINER_CONTAINER
from tunesmith.manifests.objects import Body
from tunesmith_contract.exit_codes import FailureCategory

from .patience import Cause, first_seen, gives_up_at, is_user_error_so_far
from .references import References
from .refused_pods import explain_refusal

#: A Job without a pod, or a pod without a container, is reported after this long.
NO_POD_DELAY = timedelta(seconds=30)
NO_CONTAINER_DELAY = timedelta(minutes=5)

_USER_ERROR, _INFRASTRUCTURE = FailureCategory.USER_ERROR, FailureCategory.INFRASTRUCTURE


@dataclass(frozen=True, slots=True)
class Waiting:
    """Reason for which a stage does not go on.

    Attributes:
        cause: reason, what it is about, and whose it is.
        message: message of the condition that shows it.
        since: since when.
    """

    cause: Cause
    message: str
    since: datetime

    @property
    def reason(self) -> RunReason:
        """Reason of the condition that shows it."""
        return self.cause.reason

    @property
    def needs_correction(self) -> bool:
        """A person has to correct something, or the run fails."""
        return self.cause.category is _USER_ERROR

    @property
    def is_refusal(self) -> bool:
        """The API server refuses pods, and said why."""
        return self.cause.reason is RunReason.POD_NOT_CREATED and bool(self.cause.subject)

    @property
    def fails_at(self) -> datetime | None:
        """Time at which the attempt ends, unless the cause goes; None if time alone may help."""
        return gives_up_at(self.cause, self.since)


def find_waiting(job: Body, pods: Sequence[Body], references: References, now: datetime) -> Waiting | None:
    """The first pod's reason for not having started; None when all is well or it is too early to say."""
    if is_suspended(job):
        return None
    if (refusal := _find_refusal(job, pods, references, now)) is not None:
        return refusal
    if (kept_alive := _find_kept_alive(job, pods, now)) is not None:
        return kept_alive
    reasons = (_pod_waiting(job, pod, references, now) for pod in pods if not is_deleting(pod))
    return next((reason for reason in reasons if reason), None)


def _find_refusal(job: Body, pods: Sequence[Body], references: References, now: datetime) -> Waiting | None:
    """Reason for which a Job does not get all of its pods."""
    started, name = job_started_at(job), job["metadata"]["name"]
    words = references.creation_failures.get(name)
    if words is not None and lacks_pods(job, pods):
        refusal = explain_refusal(name, words)
        cause = Cause(RunReason.POD_NOT_CREATED, refusal.message, refusal.category)
        return Waiting(cause, refusal.message, first_seen(job, cause, now))
    if pods or started is None or now < started + NO_POD_DELAY:
        return None
    message = (
        f'Job "{name}" gets no pod: `kubectl describe job {name}` shows what refuses it '
        "(a quota, a missing ServiceAccount or RuntimeClass, the Pod Security level, an admission policy)."
    )
    return Waiting(Cause(RunReason.POD_NOT_CREATED, "", None), message, started)


def _find_kept_alive(job: Body, pods: Sequence[Body], now: datetime) -> Waiting | None:
    """Reason for which a Job does not end, though its trainers have: all of them, or one that failed."""
    held = [pod for pod in pods if terminated(pod) and running_beside(pod) and not is_finished(pod)]
    ends = [end for pod in pods if (end := terminated(pod)) is not None]
    over = len(ends) == len(pods) and not lacks_pods(job, pods)
    if not held or not (over or any(end["exitCode"] for end in ends)):
        return None
    name, container = held[0]["metadata"]["name"], running_beside(held[0])[0]
    cause = Cause(RunReason.POD_KEPT_ALIVE, f"{name}/{container}", _INFRASTRUCTURE)
    message = (
        f'The trainer has ended, and container "{container}" keeps pod "{name}" alive: the pod is removed. Labels or '
        "annotations in compute.template keep what injects the container from this pod."
    )
    return Waiting(cause, message, first_seen(job, cause, now))


def _pod_waiting(job: Body, pod: Body, references: References, now: datetime) -> Waiting | None:
    problem = next(_problems(job, pod, references), None)
    if problem is None and waiting(pod) is not None:
        problem = _missing_volume(pod, references)
    if problem is not None:
        cause, message = problem
        return Waiting(cause, message, first_seen(job, cause, now))
    scheduled = condition_of(pod, "PodScheduled")
    since = (parse_time(scheduled.get("lastTransitionTime")) if scheduled else None) or created_at(pod)
    if waiting(pod) is None or now < since + NO_CONTAINER_DELAY:
        return None
    name = pod["metadata"]["name"]
    message = f'Pod "{name}" has no container yet: `kubectl describe pod {name}` shows what it waits for.'
    return Waiting(Cause(RunReason.CONTAINER_NOT_STARTED, "", None), message, since)


Problem = tuple[Cause, str]
"""Cause and message."""


def _problems(job: Body, pod: Body, references: References) -> Iterator[Problem]:
    """Problems of the pod that are worth telling, those of the trainer's container first."""
    diagnoses = sorted(diagnose_all(pod), key=lambda diagnosis: diagnosis.container != TRAINER_CONTAINER)
    for diagnosis in diagnoses:
        problem = _describe(job, pod, diagnosis, references)
        if problem is not None:
            yield problem


def _describe(job: Body, pod: Body, diagnosis: PodDiagnosis, references: References) -> Problem | None:
    """Cause and message of a diagnosis; None where the kubelet may still go on by itself."""
    missing, detail = diagnosis.missing, diagnosis.message
    match diagnosis.problem:
        case PodProblem.UNSCHEDULABLE:
            cause = Cause(RunReason.UNSCHEDULABLE, "", None)
            return cause, f"No node takes the pod: {detail}{_one_node(pod)}"
        case PodProblem.VOLUME_CLAIM_NOT_FOUND:
            return _missing(RunReason.VOLUME_CLAIM_NOT_FOUND, "pvc", missing, references)
        case PodProblem.IMAGE_NOT_PULLED:
            return _describe_pull(job, pod, diagnosis)
        case PodProblem.SECRET_KEY_NOT_FOUND:
            cause = Cause(RunReason.SECRET_NOT_FOUND, f"{missing}/{diagnosis.key}", _USER_ERROR)
            return cause, f'Secret "{missing}" has no key "{diagnosis.key}": add it.'
        case PodProblem.SECRET_NOT_FOUND:
            return _missing(RunReason.SECRET_NOT_FOUND, "secret", missing, references)
        case PodProblem.CONFIG_MAP_NOT_FOUND:
            return _missing(RunReason.CONFIG_MAP_NOT_FOUND, "configmap", missing, references)
        case PodProblem.CONTAINER_NOT_CREATED:
            category = _INFRASTRUCTURE if is_transient(detail) else _USER_ERROR
            cause = Cause(RunReason.CONTAINER_NOT_STARTED, diagnosis.container, category)
            return cause, f"The container can't be started: {detail}"
        case PodProblem.CRASHING | PodProblem.OTHER:
            return None


def _missing(reason: RunReason, scheme: str, name: str, references: References) -> Problem:
    return Cause(reason, name, _USER_ERROR), references.describe_missing(scheme, name)


def _describe_pull(job: Body, pod: Body, diagnosis: PodDiagnosis) -> Problem:
    """Cause and message of an image that can't be pulled.

    Between two pulls older kubelets tell only that they wait: the cause is then that of the last pull.
    """
    image, detail = _image_of(pod, diagnosis.container), diagnosis.message or diagnosis.waiting_reason
    failure = classify_pull(diagnosis.waiting_reason, diagnosis.message)
    correctable = failure is PullFailure.PERMANENT or (
        failure is PullFailure.UNKNOWN and is_user_error_so_far(job, RunReason.IMAGE_NOT_PULLED, image)
    )
    cause = Cause(RunReason.IMAGE_NOT_PULLED, image, _USER_ERROR if correctable else _INFRASTRUCTURE)
    advice = "correct its name, or add imagePullSecrets" if correctable else "the node tries again"
    return cause, f'Image "{image}" can\'t be pulled: {advice}: {detail}'


def _one_node(pod: Body) -> str:
    """Sentence on the claim for which all pods of the Job have to run on one node; empty if they need not."""
    claim = pod["metadata"].get("annotations", {}).get(ONE_NODE_ANNOTATION)
    if not claim:
        return ""
    return (
        f' All pods of the Job have to run on one node, because PersistentVolumeClaim "{claim}" can be mounted on one '
        "at a time: name a ReadWriteMany claim or a bucket, or write a lower parallelism."
    )


def _missing_volume(pod: Body, references: References) -> Problem | None:
    """A missing ConfigMap or Secret of a volume: no pod's status names it while the container is being created.

    The operator looks for ConfigMaps itself; of Secrets the nodes tell in events.
    """
    if references.missing_config_maps:
        name = references.missing_config_maps[0]
        return _missing(RunReason.CONFIG_MAP_NOT_FOUND, "configmap", name, references)
    volumes = pod["spec"].get("volumes", ())
    mounted = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    missing = mounted & {missing_secret(message) for message in references.mount_failures}
    if not missing:
        return None
    return _missing(RunReason.SECRET_NOT_FOUND, "secret", min(missing), references)


def _image_of(pod: Body, container: str) -> str:
    containers = (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
    images = {item["name"]: item["image"] for item in containers if "name" in item}
    return str(images.get(container) or pod["spec"]["containers"][0]["image"])
