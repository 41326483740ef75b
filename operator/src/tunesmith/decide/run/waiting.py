"""Reasons for which the pods of a stage do not start, with the field or object to correct."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tunesmith.api.reasons import RunReason
from tunesmith.decide.objects import (
    condition_of,
    created_at,
    is_deleting,
    is_suspended,
    job_started_at,
    parse_time,
    waiting,
)
from tunesmith.decide.pod_diagnosis import PodDiagnosis, PodProblem, diagnose_pod, missing_secret
from tunesmith.manifests.names import ONE_NODE_ANNOTATION
from tunesmith.manifests.objects import Body
from tunesmith_contract.uris import parse_uri_or_none

#: The run fails when something that a person has to correct is missing for so long.
CORRECTION_TIME = timedelta(minutes=10)

#: A Job without a pod, or a pod without a container, is reported after this long.
NO_POD_DELAY = timedelta(seconds=30)
NO_CONTAINER_DELAY = timedelta(minutes=5)

_KINDS = {"pvc": "PersistentVolumeClaim", "configmap": "ConfigMap", "secret": "Secret"}


@dataclass(frozen=True, slots=True)
class References:
    """Objects that the pods of a stage refer to, with the fields in which people wrote them.

    Attributes:
        namespace: where all of them have to be.
        fields: ``pvc://name``, ``configmap://name`` or ``secret://name`` to the field's path.
        missing_config_maps: ConfigMaps that were looked for and do not exist.
        mount_failures: messages of nodes about volumes that they can't mount.
    """

    namespace: str
    fields: Mapping[str, str]
    missing_config_maps: tuple[str, ...] = ()
    mount_failures: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        namespace: str,
        uris: Mapping[str, str | None],
        secrets: Mapping[str, str | None],
        missing_config_maps: tuple[str, ...] = (),
        mount_failures: tuple[str, ...] = (),
    ) -> "References":
        """From field paths to the URIs and Secret names that are written there; the first mention counts."""
        named = [
            (f"{parsed.scheme}://{parsed.name}", path)
            for path, uri in uris.items()
            if uri and (parsed := parse_uri_or_none(uri))
        ]
        named += [(f"secret://{name}", path) for path, name in secrets.items() if name]
        return cls(namespace, dict(reversed(named)), missing_config_maps, mount_failures)

    def field_of(self, scheme: str, name: str) -> str:
        """Path of the field that names an object."""
        return self.fields.get(f"{scheme}://{name}", "the spec")

    def describe_missing(self, scheme: str, name: str) -> str:
        """A sentence that names the missing object and the field to correct."""
        field = self.field_of(scheme, name)
        return (
            f'{_KINDS[scheme]} "{name}" does not exist in namespace {self.namespace}: '
            f"create it, or correct {field}."
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """Reason for which a stage does not go on.

    Attributes:
        reason, message: reason and message of the condition that shows it.
        since: since when.
        needs_correction: a person has to correct something, or the run fails; otherwise time alone may help.
    """

    reason: RunReason
    message: str
    since: datetime
    needs_correction: bool

    @property
    def fails_at(self) -> datetime | None:
        """Time at which the run fails, unless it is corrected."""
        return self.since + CORRECTION_TIME if self.needs_correction else None


def find_waiting(job: Body, pods: Sequence[Body], references: References, now: datetime) -> Waiting | None:
    """The first pod's reason for not having started; None when all is well or it is too early to say."""
    if is_suspended(job):
        return None
    if not pods:
        started = job_started_at(job)
        if started is None or now < started + NO_POD_DELAY:
            return None
        name = job["metadata"]["name"]
        message = (
            f'Job "{name}" gets no pod: `kubectl describe job {name}` shows what refuses it '
            "(a quota, a missing ServiceAccount or RuntimeClass, the Pod Security level, an admission policy)."
        )
        return Waiting(RunReason.POD_NOT_CREATED, message, started, needs_correction=False)
    reasons = (_pod_waiting(pod, references, now) for pod in pods if not is_deleting(pod))
    return next((reason for reason in reasons if reason), None)


def _pod_waiting(pod: Body, references: References, now: datetime) -> Waiting | None:
    scheduled = condition_of(pod, "PodScheduled")
    since = (parse_time(scheduled.get("lastTransitionTime")) if scheduled else None) or created_at(pod)
    diagnosis = diagnose_pod(pod)
    problem = _describe(pod, diagnosis, references) if diagnosis else None
    if problem is None and waiting(pod) is not None:
        problem = _missing_volume(pod, references)
    if problem is not None:
        reason, message = problem
        return Waiting(reason, message, since, needs_correction=reason is not RunReason.UNSCHEDULABLE)
    if waiting(pod) is None or now < since + NO_CONTAINER_DELAY:
        return None
    name = pod["metadata"]["name"]
    message = f'Pod "{name}" has no container yet: `kubectl describe pod {name}` shows what it waits for.'
    return Waiting(RunReason.CONTAINER_NOT_STARTED, message, since, needs_correction=False)


def _describe(pod: Body, diagnosis: PodDiagnosis, references: References) -> tuple[RunReason, str] | None:
    """Reason and message of a diagnosis; None where the kubelet may still go on by itself."""
    missing = diagnosis.missing
    match diagnosis.problem:
        case PodProblem.UNSCHEDULABLE:
            return RunReason.UNSCHEDULABLE, f"No node takes the pod: {diagnosis.message}{_one_node(pod)}"
        case PodProblem.VOLUME_CLAIM_NOT_FOUND:
            return RunReason.VOLUME_CLAIM_NOT_FOUND, references.describe_missing("pvc", missing)
        case PodProblem.IMAGE_NOT_PULLED:
            detail = diagnosis.message or diagnosis.waiting_reason
            image = _image_of(pod, diagnosis.container)
            advice = "correct its name, or add imagePullSecrets"
            return RunReason.IMAGE_NOT_PULLED, f'Image "{image}" can\'t be pulled: {advice}: {detail}'
        case PodProblem.SECRET_KEY_NOT_FOUND:
            return RunReason.SECRET_NOT_FOUND, f'Secret "{missing}" has no key "{diagnosis.key}": add it.'
        case PodProblem.SECRET_NOT_FOUND:
            return RunReason.SECRET_NOT_FOUND, references.describe_missing("secret", missing)
        case PodProblem.CONFIG_MAP_NOT_FOUND:
            return RunReason.CONFIG_MAP_NOT_FOUND, references.describe_missing("configmap", missing)
        case PodProblem.CONTAINER_NOT_CREATED:
            return RunReason.CONTAINER_NOT_STARTED, f"The container can't be started: {diagnosis.message}"
        case PodProblem.CRASHING | PodProblem.OTHER:
            return None


def _one_node(pod: Body) -> str:
    """Sentence on the claim for which all pods of the Job have to run on one node; empty if they need not."""
    claim = pod["metadata"].get("annotations", {}).get(ONE_NODE_ANNOTATION)
    if not claim:
        return ""
    return (
        f' All pods of the Job have to run on one node, because PersistentVolumeClaim "{claim}" can be mounted on one '
        "at a time: name a ReadWriteMany claim or a bucket, or write a lower parallelism."
    )


def _missing_volume(pod: Body, references: References) -> tuple[RunReason, str] | None:
    """A missing ConfigMap or Secret of a volume: no pod's status names it while the container is being created.

    The operator looks for ConfigMaps itself; of Secrets the nodes tell in events.
    """
    if references.missing_config_maps:
        name = references.missing_config_maps[0]
        return RunReason.CONFIG_MAP_NOT_FOUND, references.describe_missing("configmap", name)
    volumes = pod["spec"].get("volumes", ())
    mounted = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    missing = mounted & {missing_secret(message) for message in references.mount_failures}
    if not missing:
        return None
    return RunReason.SECRET_NOT_FOUND, references.describe_missing("secret", min(missing))


def _image_of(pod: Body, container: str) -> str:
    containers = (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
    images = {item["name"]: item["image"] for item in containers if "name" in item}
    return str(images.get(container) or pod["spec"]["containers"][0]["image"])
