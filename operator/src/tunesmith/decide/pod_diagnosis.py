"""Diagnosis of pods that do not start: scheduling, images, missing objects, crashes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tunesmith.decide.objects import condition_of
from tunesmith.manifests.objects import Body

_CLAIM = re.compile(r'persistentvolumeclaim "(?P<name>[^"]+)" not found')
_SECRET = re.compile(r'secret "(?P<name>[^"]+)" not found', re.IGNORECASE)
_SECRET_KEY = re.compile(r"find key (?P<key>\S+) in Secret [^/]+/(?P<name>\S+)")
_CONFIG_MAP = re.compile(r'configmap "(?P<name>[^"]+)" not found', re.IGNORECASE)

_STARTING_REASONS = frozenset({"ContainerCreating", "PodInitializing"})
_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CREATION_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


class PodProblem(StrEnum):
    """Kinds of problems that keep a pod from running."""

    UNSCHEDULABLE = "Unschedulable"
    VOLUME_CLAIM_NOT_FOUND = "VolumeClaimNotFound"
    IMAGE_NOT_PULLED = "ImageNotPulled"
    SECRET_NOT_FOUND = "SecretNotFound"
    SECRET_KEY_NOT_FOUND = "SecretKeyNotFound"
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    CONTAINER_NOT_CREATED = "ContainerNotCreated"
    CRASHING = "Crashing"
    OTHER = "Other"


@dataclass(frozen=True, slots=True)
class PodDiagnosis:
    """A problem of one pod.

    Attributes:
        message: the scheduler's or the kubelet's own.
        missing: name of the claim, Secret or ConfigMap that does not exist, or that has no such key.
        key: the Secret's missing key.
        container: name of the container; empty for a problem of the whole pod.
        waiting_reason: the kubelet's word for it, such as ``ImagePullBackOff``.
        last_end: reason and exit code of the container's last run.
        last_words: what that run left as its message, or the end of its log.
    """

    problem: PodProblem
    message: str
    missing: str = ""
    key: str = ""
    container: str = ""
    waiting_reason: str = ""
    last_end: tuple[str, str] | None = None
    last_words: str = ""


def diagnose_pod(pod: Body) -> PodDiagnosis | None:
    """The pod's first problem; None where nothing but time is needed."""
    return next(diagnose_all(pod), None)


def diagnose_all(pod: Body) -> Iterator[PodDiagnosis]:
    """All problems of the pod, in the order of its containers."""
    unscheduled = condition_of(pod, "PodScheduled", "False")
    if unscheduled is not None:
        message = unscheduled.get("message", "")
        if claim := _CLAIM.search(message):
            yield PodDiagnosis(PodProblem.VOLUME_CLAIM_NOT_FOUND, message, missing=claim["name"])
        else:
            yield PodDiagnosis(PodProblem.UNSCHEDULABLE, message)
        return
    yield from _container_problems(pod)


def missing_secret(message: str) -> str | None:
    """Name of the Secret that a message of the kubelet misses."""
    secret = _SECRET.search(message)
    return secret["name"] if secret else None


def _container_problems(pod: Body) -> Iterator[PodDiagnosis]:
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if not reason or reason in _STARTING_REASONS:
            continue
        problem, missing, key = _classify(reason, message)
        ended = container.get("lastState", {}).get("terminated")
        yield PodDiagnosis(
            problem,
            message,
            missing=missing,
            key=key,
            container=container["name"],
            waiting_reason=reason,
            last_end=(ended.get("reason", "Error"), str(ended.get("exitCode", "?"))) if ended else None,
            last_words=(ended or {}).get("message", "").strip(),
        )


def _classify(reason: str, message: str) -> tuple[PodProblem, str, str]:
    """The problem, the name of what is missing, and the missing key of a Secret."""
    if reason in _IMAGE_REASONS:
        return PodProblem.IMAGE_NOT_PULLED, "", ""
    if reason == "CrashLoopBackOff":
        return PodProblem.CRASHING, "", ""
    if reason not in _CREATION_REASONS:
        return PodProblem.OTHER, "", ""
    if key := _SECRET_KEY.search(message):
        return PodProblem.SECRET_KEY_NOT_FOUND, key["name"], key["key"]
    if secret := missing_secret(message):
        return PodProblem.SECRET_NOT_FOUND, secret, ""
    if config_map := _CONFIG_MAP.search(message):
        return PodProblem.CONFIG_MAP_NOT_FOUND, config_map["name"], ""
    return PodProblem.CONTAINER_NOT_CREATED, "", ""
