"""What keeps a pod from running, in words for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.api.reasons import AdapterDeploymentReason as Reason

_ORDINARY = frozenset({"ContainerCreating", "PodInitializing"})
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not run."""

    reason: str
    message: str


def find_trouble(pod: Mapping[str, Any]) -> Trouble | None:
    """What keeps the pod from running; None where nothing but time is needed."""
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if (condition["type"], condition["status"]) == ("PodScheduled", "False"):
            return _unscheduled(condition.get("message", ""))
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if trouble := _container_trouble(container):
            return trouble
    return None


def _unscheduled(message: str) -> Trouble:
    if "persistentvolumeclaim" in message and "not found" in message:
        return Trouble(Reason.VOLUME_CLAIM_NOT_FOUND, message)
    return Trouble(Reason.UNSCHEDULABLE, message or "no node takes the pod")


def _container_trouble(container: Mapping[str, Any]) -> Trouble | None:
    waiting = container.get("state", {}).get("waiting", {})
    reason, said = waiting.get("reason", ""), waiting.get("message", "")
    if not reason or reason in _ORDINARY:
        return None
    message = f"container {container['name']}: {reason}: {said}"
    if reason in _IMAGE:
        return Trouble(Reason.IMAGE_NOT_PULLED, message)
    if reason == "CreateContainerConfigError" and "secret" in said:
        return Trouble(Reason.SECRET_NOT_FOUND, message)
    if reason == "CrashLoopBackOff":
        return Trouble(Reason.UNAVAILABLE, f"{message} {_last_end(container)}".rstrip())
    return Trouble(Reason.ENGINE_STARTING, message)


def _last_end(container: Mapping[str, Any]) -> str:
    ended = container.get("lastState", {}).get("terminated", {})
    if not ended:
        return ""
    return f"(ended with {ended.get('reason', 'Error')}, exit code {ended.get('exitCode', '?')})"
