"""What the raw Jobs and Pods of the API server say."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from tunesmith.manifests.names import ATTEMPT_LABEL, STAGE_LABEL

Manifest = Mapping[str, Any]

_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


def parse_time(text: str | None) -> datetime | None:
    """A Kubernetes time; None for an absent one."""
    return datetime.fromisoformat(text) if text else None


def created_at(manifest: Manifest) -> datetime:
    """When the API server made the object."""
    return datetime.fromisoformat(manifest["metadata"]["creationTimestamp"])


def is_deleting(manifest: Manifest) -> bool:
    """Whether the object is on its way out."""
    return "deletionTimestamp" in manifest["metadata"]


def condition_of(manifest: Manifest, kind: str, status: str = "True") -> Manifest | None:
    """The object's condition of this type with this status."""
    conditions: Iterable[Manifest] = manifest.get("status", {}).get("conditions") or ()
    matching = (item for item in conditions if item["type"] == kind and item["status"] == status)
    return next(matching, None)


def is_of(manifest: Manifest, stage: str, attempt: int) -> bool:
    """Whether a Job or a pod belongs to this attempt."""
    labels = manifest["metadata"].get("labels") or {}
    return labels.get(STAGE_LABEL) == stage and labels.get(ATTEMPT_LABEL) == str(attempt)


def job_end(job: Manifest) -> tuple[Literal["Complete", "Failed"], Manifest] | None:
    """How the Job ended, with the condition that says so; None while it is live."""
    complete, failed = condition_of(job, "Complete"), condition_of(job, "Failed")
    if complete is not None:
        return "Complete", complete
    return ("Failed", failed) if failed is not None else None


def job_started_at(job: Manifest) -> datetime | None:
    """When the Job became active; None while it is suspended or the controller has not seen it."""
    return parse_time(job.get("status", {}).get("startTime"))


def is_suspended(job: Manifest) -> bool:
    """Whether the Job may have no pods."""
    return bool(job["spec"].get("suspend"))


def completion_index(pod: Manifest) -> int:
    """Which pod of its gang it is."""
    return int((pod["metadata"].get("labels") or {}).get(_INDEX_LABEL, 0))


def container_status(pod: Manifest) -> Manifest:
    """The status of the pod's first container; empty before kubelet has looked at it."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    status: Manifest = statuses[0]
    return status


def waiting(pod: Manifest) -> Manifest | None:
    """Why the container has not started: ``reason`` and perhaps ``message``."""
    state: Manifest | None = container_status(pod).get("state", {}).get("waiting")
    return state


def terminated(pod: Manifest) -> Manifest | None:
    """How the container ended: ``exitCode``, ``reason``, ``message``, ``startedAt``, ``finishedAt``."""
    state: Manifest | None = container_status(pod).get("state", {}).get("terminated")
    return state


def is_running(pod: Manifest) -> bool:
    """Whether the container runs."""
    return "running" in container_status(pod).get("state", {})
