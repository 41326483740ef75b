"""How long the pods of an attempt ran, and what that took of GPUs.

A pod holds its GPUs from its node's first sight of it (``status.startTime``) to the end of its container: not while it
waits for a node. A Job that is held loses its pods, so what they took is noted at the Job when it is held.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tunesmith.decide.objects import (
    Manifest,
    completion_index,
    container_status,
    job_end,
    job_started_at,
    parse_time,
    terminated,
)
from tunesmith.manifests.names import GROUP

USED_ANNOTATION = f"{GROUP}/used"

Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Usage:
    """What an attempt took.

    Attributes:
        active_seconds: while at least one of its pods ran.
        gpu_seconds: GPUs times seconds, over its pods.
        until: what ran before this time is counted; None where nothing has been noted.
    """

    active_seconds: float = 0.0
    gpu_seconds: float = 0.0
    until: datetime | None = None

    def to_annotation(self) -> str:
        """The value of the Job's annotation."""
        until = self.until.isoformat() if self.until else None
        return json.dumps({"active": self.active_seconds, "gpu": self.gpu_seconds, "until": until})


def noted_usage(job: Manifest) -> Usage:
    """What was noted at the Job when it was held."""
    text = (job["metadata"].get("annotations") or {}).get(USED_ANNOTATION)
    if text is None:
        return Usage()
    try:
        noted = json.loads(text)
        return Usage(float(noted["active"]), float(noted["gpu"]), datetime.fromisoformat(noted["until"]))
    except (ValueError, KeyError, TypeError):
        return Usage()


def measure_usage(job: Manifest, pods: Sequence[Manifest], gpus_per_pod: float, now: datetime) -> Usage:
    """What the attempt took so far: what was noted, and what its pods took since."""
    noted = noted_usage(job)
    spans = [clipped for span in _spans(job, pods, now) if (clipped := _since(span, noted.until))]
    return Usage(
        active_seconds=noted.active_seconds + _union(spans),
        gpu_seconds=noted.gpu_seconds
        + gpus_per_pod * sum((end - start).total_seconds() for start, end in spans),
        until=now,
    )


def is_active(pod: Manifest) -> bool:
    """Whether the pod holds what it was given."""
    return _start(pod) is not None and terminated(pod) is None and not _is_over(pod)


def _spans(job: Manifest, pods: Sequence[Manifest], now: datetime) -> list[Span]:
    """When pods ran; of an ended Job also those that nobody saw, as long as the Job or the others."""
    spans = [(start, _end(pod) or now) for pod in pods if (start := _start(pod))]
    started, end = job_started_at(job), job_end(job)
    if end is None or started is None:
        return spans
    ended = parse_time(end[1].get("lastTransitionTime")) or now
    unseen = job["spec"].get("parallelism", 1) - len({completion_index(pod) for pod in pods})
    since = min((start for start, _ in spans), default=started)
    return spans + [(since, ended)] * max(0, unseen)


def _start(pod: Manifest) -> datetime | None:
    state = container_status(pod).get("state", {})
    running = state.get("running") or state.get("terminated") or {}
    return parse_time(pod.get("status", {}).get("startTime") or running.get("startedAt"))


def _end(pod: Manifest) -> datetime | None:
    ended = terminated(pod)
    if ended is not None:
        return parse_time(ended.get("finishedAt"))
    return _start(pod) if _is_over(pod) else None


def _is_over(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}


def _since(span: Span, until: datetime | None) -> Span | None:
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
