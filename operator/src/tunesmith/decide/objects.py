"""What the raw Jobs and Pods of the API server say."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from tunesmith.manifests.names import ATTEMPT_LABEL, STAGE_LABEL
from tunesmith.manifests.objects import Body

_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


def parse_time(text: str | None) -> datetime | None:
    """A Kubernetes time; None for an absent one."""
    return datetime.fromisoformat(text) if text else None


def created_at(body: Body) -> datetime:
    """When the API server made the object."""
    return datetime.fromisoformat(body["metadata"]["creationTimestamp"])


def is_deleting(body: Body) -> bool:
    """Whether the object is on its way out."""
    return "deletionTimestamp" in body["metadata"]


def condition_of(body: Body, kind: str, status: str = "True") -> Body | None:
    """The object's condition of this type with this status."""
    conditions: Iterable[Body] = body.get("status", {}).get("conditions") or ()
    matching = (item for item in conditions if item["type"] == kind and item["status"] == status)
    return next(matching, None)


def is_of(body: Body, stage: str, attempt: int) -> bool:
    """Whether a Job or a pod belongs to this attempt."""
    labels = body["metadata"].get("labels") or {}
    return labels.get(STAGE_LABEL) == stage and labels.get(ATTEMPT_LABEL) == str(attempt)


def job_end(job: Body) -> tuple[Literal["Complete", "Failed"], Body] | None:
    """How the Job ended, with the condition that says so; None while it is live."""
    complete, failed = condition_of(job, "Complete"), condition_of(job, "Failed")
    if complete is not None:
        return "Complete", complete
    return ("Failed", failed) if failed is not None else None


def job_started_at(job: Body) -> datetime | None:
    """When the Job became active; None while it is suspended or the controller has not seen it."""
    return parse_time(job.get("status", {}).get("startTime"))


def is_suspended(job: Body) -> bool:
    """Whether the Job may have no pods."""
    return bool(job["spec"].get("suspend"))


def completion_index(pod: Body) -> int:
    """Which pod of its gang it is."""
    return int((pod["metadata"].get("labels") or {}).get(_INDEX_LABEL, 0))


def container_status(pod: Body) -> Body:
    """The status of the pod's first container; empty before kubelet has looked at it."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    status: Body = statuses[0]
    return status


def waiting(pod: Body) -> Body | None:
    """Why the container has not started: ``reason`` and perhaps ``message``."""
    state: Body | None = container_status(pod).get("state", {}).get("waiting")
    return state


def terminated(pod: Body) -> Body | None:
    """How the container ended: ``exitCode``, ``reason``, ``message``, ``startedAt``, ``finishedAt``."""
    state: Body | None = container_status(pod).get("state", {}).get("terminated")
    return state


def is_running(pod: Body) -> bool:
    """Whether the container runs."""
    return "running" in container_status(pod).get("state", {})
