"""Facts about one attempt of a stage, gathered once per reconcile."""

from dataclasses import dataclass, field
from datetime import datetime

from tunesmith.decide.objects import is_suspended, parse_time, terminated
from tunesmith.manifests.objects import Body

from .children import Children
from .limits import Limit, nearest_limit
from .stage import StageDefinition
from .usage import Usage, is_active, measure_usage, usage_without_job
from .waiting import Waiting, find_waiting


@dataclass(frozen=True, slots=True)
class Attempt:
    """Observed state of one attempt.

    Attributes:
        children: children of the whole run, with the records of earlier attempts.
        number: counted from 1 within the stage.
        job: None before it is created.
        pods: pods of this attempt, with those that were removed and left a report.
        usage: time and GPU time that the attempt took until now.
        limit: the limit of the run that is reached first.
        waiting: reason for which the pods do not start.
    """

    stage: StageDefinition
    children: Children
    number: int
    now: datetime
    job: Body | None = None
    pods: tuple[Body, ...] = ()
    usage: Usage = field(default=Usage())
    limit: Limit | None = None
    waiting: Waiting | None = None

    @property
    def lacks_job(self) -> bool:
        """The attempt has begun, and somebody deleted its Job."""
        return self.job is None and self.children.lacks_job(self.stage.begun.count)

    @property
    def suspended(self) -> bool:
        """The Job exists and may have no pods."""
        return self.job is not None and is_suspended(self.job)

    @property
    def has_active_pods(self) -> bool:
        """A pod holds its resources."""
        return any(is_active(pod) for pod in self.pods)

    @property
    def exceeds_limit(self) -> bool:
        """A limit of the run is reached."""
        return self.limit is not None and self.limit.seconds_left <= 0

    @property
    def has_lost_pod(self) -> bool:
        """A pod should have ended long ago: its node may have gone silent."""
        if self.suspended:
            return False
        # A pod's deletionTimestamp is the end of its grace period.
        ends = (
            parse_time(pod["metadata"].get("deletionTimestamp")) for pod in self.pods if not terminated(pod)
        )
        overdue = ((self.now - end).total_seconds() for end in ends if end is not None)
        return any(seconds >= self.stage.lost_pod_seconds for seconds in overdue)


def gather_attempt(stage: StageDefinition, children: Children, number: int, now: datetime) -> Attempt:
    """The attempt of this number, from the children of the run."""
    job, pods = children.job_of(stage.name, number), children.pods_of(stage.name, number)
    usage = _measure(stage, children, job, pods, now)
    return Attempt(
        stage=stage,
        children=children,
        number=number,
        now=now,
        job=job,
        pods=pods,
        usage=usage,
        limit=nearest_limit(stage.limits, children, usage),
        waiting=find_waiting(job, pods, stage.references, now) if job is not None else None,
    )


def _measure(
    stage: StageDefinition, children: Children, job: Body | None, pods: tuple[Body, ...], now: datetime
) -> Usage:
    if job is not None:
        return measure_usage(job, pods, stage.gpus_per_pod, now)
    if not children.lacks_job(stage.begun.count):
        return Usage()
    since = max((record.ended_at for record in children.records), default=None)
    return usage_without_job(pods, stage.gpus_per_pod, stage.nodes, since, stage.begun.last_update)
