"""Readers of raw Jobs and pods."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from tunesmith.manifests.names import ATTEMPT_LABEL, STAGE_LABEL, TRAINER_CONTAINER
from tunesmith.manifests.objects import Body
from tunesmith_contract.stages import Stage

_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


def parse_time(text: str | None) -> datetime | None:
    """A Kubernetes time; None for an absent one."""
    return datetime.fromisoformat(text) if text else None


def created_at(body: Body) -> datetime:
    """Creation time of the object."""
    return datetime.fromisoformat(body["metadata"]["creationTimestamp"])


def is_deleting(body: Body) -> bool:
    """True while the object is being deleted."""
    return "deletionTimestamp" in body["metadata"]


def condition_of(body: Body, kind: str, status: str = "True") -> Body | None:
    """The object's condition of this type with this status."""
    conditions: Iterable[Body] = body.get("status", {}).get("conditions") or ()
    matching = (item for item in conditions if item["type"] == kind and item["status"] == status)
    return next(matching, None)


def is_of(body: Body, stage: Stage, attempt: int) -> bool:
    """True for a Job or pod of this attempt."""
    labels = body["metadata"].get("labels") or {}
    return labels.get(STAGE_LABEL) == stage and labels.get(ATTEMPT_LABEL) == str(attempt)


def attempt_of(body: Body) -> tuple[str, str]:
    """Stage and number of the attempt that a Job or pod belongs to, as its labels tell; empty where they tell none."""
    labels = body["metadata"].get("labels") or {}
    return labels.get(STAGE_LABEL, ""), labels.get(ATTEMPT_LABEL, "")


def job_end(job: Body) -> tuple[Literal["Complete", "Failed"], Body] | None:
    """Outcome of the Job, with its condition; None while it is live."""
    complete, failed = condition_of(job, "Complete"), condition_of(job, "Failed")
    if complete is not None:
        return "Complete", complete
    return ("Failed", failed) if failed is not None else None


def job_ended_at(job: Body) -> datetime | None:
    """End of the Job; None while it is live."""
    end = job_end(job)
    return parse_time(end[1].get("lastTransitionTime")) if end else None


def job_started_at(job: Body) -> datetime | None:
    """Start of the Job; None while it is suspended or its controller has not seen it."""
    return parse_time(job.get("status", {}).get("startTime"))


def is_suspended(job: Body) -> bool:
    """True while the Job may have no pods."""
    return bool(job["spec"].get("suspend"))


def lacks_pods(job: Body, pods: Iterable[Body]) -> bool:
    """True where fewer pods are known than the Job is to have."""
    wanted: int = job["spec"].get("parallelism", 1)
    return len({completion_index(pod) for pod in pods}) < wanted


def image_of(job: Body) -> str:
    """Image of the trainer's container in the Job's pods."""
    containers = job["spec"]["template"]["spec"]["containers"]
    return next(str(item["image"]) for item in containers if item["name"] == TRAINER_CONTAINER)


def completion_index(pod: Body) -> int:
    """Index of the pod in its gang."""
    return int((pod["metadata"].get("labels") or {}).get(_INDEX_LABEL, 0))


def container_status(pod: Body) -> Body:
    """Status of the trainer's container; empty before the kubelet has reported it.

    The kubelet sorts statuses by name, and a service mesh or a secrets agent may have injected other containers.
    """
    statuses: Iterable[Body] = pod.get("status", {}).get("containerStatuses") or ()
    return next((status for status in statuses if status["name"] == TRAINER_CONTAINER), {})


def running_beside(pod: Body) -> tuple[str, ...]:
    """Names of the containers that run beside the trainer's and keep the pod alive; sidecars of Kubernetes do not."""
    statuses: Iterable[Body] = pod.get("status", {}).get("containerStatuses") or ()
    others = (status for status in statuses if status["name"] != TRAINER_CONTAINER)
    return tuple(status["name"] for status in others if "running" in status.get("state", {}))


def waiting(pod: Body) -> Body | None:
    """State of the trainer's container that has not started: ``reason`` and perhaps ``message``."""
    state: Body | None = container_status(pod).get("state", {}).get("waiting")
    return state


def terminated(pod: Body) -> Body | None:
    """End of the trainer's container: ``exitCode``, ``reason``, ``message``, ``startedAt``, ``finishedAt``."""
    state: Body | None = container_status(pod).get("state", {}).get("terminated")
    return state


def is_finished(pod: Body) -> bool:
    """True for a pod that has ended for good."""
    return pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}


def is_running(pod: Body) -> bool:
    """True while the trainer's container runs."""
    return "running" in container_status(pod).get("state", {})
