"""Run time and GPU time of an attempt.

A pod holds its GPUs from ``status.startTime`` to the end of its container, not while it waits for a node. A Job that is
suspended loses its pods, so their usage is saved in an annotation of the Job. Pods that end because their check of the
GPUs failed cost no GPU time.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tunesmith.decide.objects import (
    completion_index,
    container_status,
    is_finished,
    job_end,
    job_ended_at,
    job_started_at,
    parse_time,
    terminated,
)
from tunesmith.manifests.names import GROUP
from tunesmith.manifests.objects import Body, deletion_requested_at
from tunesmith_contract.report import Checkpoint, Failure, GPUReason

USED_ANNOTATION = f"{GROUP}/used"

_GPU_REASONS = frozenset(GPUReason)

Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Usage:
    """Run time and GPU time of an attempt.

    Attributes:
        active_seconds: while at least one of its pods ran.
        gpu_seconds: GPUs times seconds, over its pods.
        until: time up to which pods are counted; None where no usage was saved.
    """

    active_seconds: float = 0.0
    gpu_seconds: float = 0.0
    until: datetime | None = None

    def to_annotation(self) -> str:
        """The value of the Job's annotation."""
        until = self.until.isoformat() if self.until else None
        return json.dumps({"active": self.active_seconds, "gpu": self.gpu_seconds, "until": until})


def saved_usage(job: Body) -> Usage:
    """Usage saved in the Job's annotation when it was suspended."""
    text = (job["metadata"].get("annotations") or {}).get(USED_ANNOTATION)
    if text is None:
        return Usage()
    try:
        saved = json.loads(text)
        return Usage(float(saved["active"]), float(saved["gpu"]), datetime.fromisoformat(saved["until"]))
    except (ValueError, KeyError, TypeError):
        return Usage()


def measure_usage(job: Body, pods: Sequence[Body], gpus_per_pod: float, now: datetime) -> Usage:
    """Usage of the attempt so far: the saved part, and that of its pods since."""
    saved = saved_usage(job)
    spans = [clipped for span in _spans(job, pods, now) if (clipped := _clip(span, saved.until))]
    return Usage(
        active_seconds=saved.active_seconds + _union(spans),
        gpu_seconds=saved.gpu_seconds
        + gpus_per_pod * sum((end - start).total_seconds() for start, end in spans),
        until=now,
    )


def usage_without_job(
    pods: Sequence[Body], gpus: float, pods_wanted: int, since: datetime | None, last_update: datetime | None
) -> Usage:
    """Usage of an attempt whose Job was deleted: that of its pods, or what is known where they were never seen to end.

    Args:
        gpus: GPUs of one pod.
        pods_wanted: pods of the attempt.
        since: earliest time at which it can have begun.
        last_update: time of the last update by a pod.
    """
    spans = [
        (start, end)
        for pod in pods
        if (start := pod_started_at(pod)) and (end := _end(pod) or deletion_requested_at(pod) or last_update)
    ]
    spans = [span for span in spans if span[1] > span[0]]
    if not spans and since is not None and last_update is not None and last_update > since:
        spans = [(since, last_update)] * pods_wanted
    seconds = sum((end - start).total_seconds() for start, end in spans)
    return Usage(active_seconds=_union(spans), gpu_seconds=gpus * seconds)


def charged_gpu_seconds(
    usage: Usage, job: Body | None, failure: Failure | None, checkpoint: Checkpoint | None
) -> float:
    """GPU time that an ended attempt costs.

    Args:
        usage: usage of the attempt.
        job: its Job; None where none was made.
        failure: how it failed; None if it succeeded.
        checkpoint: checkpoint that its pods committed: they have computed, even if a later process finds no GPU.
    """
    if failure is None or failure.reason not in _GPU_REASONS or checkpoint is not None:
        return usage.gpu_seconds
    # Pods before a suspension have computed.
    return saved_usage(job).gpu_seconds if job is not None else 0.0


def is_active(pod: Body) -> bool:
    """True while the pod holds its resources."""
    return pod_started_at(pod) is not None and terminated(pod) is None and not is_finished(pod)


def _spans(job: Body, pods: Sequence[Body], now: datetime) -> list[Span]:
    """Spans in which pods ran; pods of an ended Job that were never observed count as long as the others or the Job."""
    spans = [(start, _end(pod) or now) for pod in pods if (start := pod_started_at(pod))]
    started = job_started_at(job)
    if job_end(job) is None or started is None:
        return spans
    ended = job_ended_at(job) or now
    unseen = job["spec"].get("parallelism", 1) - len({completion_index(pod) for pod in pods})
    since = min((start for start, _ in spans), default=started)
    return spans + [(since, ended)] * max(0, unseen)


def pod_started_at(pod: Body) -> datetime | None:
    """When the pod got its resources; None before a node has taken it."""
    state = container_status(pod).get("state", {})
    running = state.get("running") or state.get("terminated") or {}
    return parse_time(pod.get("status", {}).get("startTime") or running.get("startedAt"))


def _end(pod: Body) -> datetime | None:
    ended = terminated(pod)
    if ended is not None:
        return parse_time(ended.get("finishedAt"))
    return pod_started_at(pod) if is_finished(pod) else None


def _clip(span: Span, until: datetime | None) -> Span | None:
    start, end = span
    start = start if until is None else max(start, until)
    return (start, end) if end > start else None


def _union(spans: Iterable[Span]) -> float:
    """Seconds that at least one of the spans covers."""
    total, reached = 0.0, None
    for start, end in sorted(spans):
        start = start if reached is None else max(start, reached)
        if end > start:
            total += (end - start).total_seconds()
            reached = end
    return total
