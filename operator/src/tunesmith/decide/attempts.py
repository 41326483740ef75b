"""One stage of a run: one Job per attempt, judged when it ends, tried again within limits.

Shared by training and evaluation. All that is known of earlier attempts stands in their records; a record is
written before anything follows from it, so a restart at any line comes to the same answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from tunesmith.api.reasons import FineTuneJobReason as Reason
from tunesmith.manifests.names import Owner
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, build_result_config_map
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Failure, RunReport

from .endings import Ending, disrupted, failed, judge
from .objects import (
    Manifest,
    created_at,
    is_deleting,
    is_of,
    is_running,
    is_suspended,
    job_end,
    job_started_at,
    parse_time,
    terminated,
)
from .plan import Action, Create, Delete, Event, Patch
from .plan import Manifest as Body
from .waiting import References, Waiting, find_waiting

BACKOFF_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 360.0
MAX_DISRUPTIONS = 100

#: A pod whose node is silent can't be seen to end: after this long beyond its grace period it counts as lost.
LOST_POD = timedelta(minutes=5)

#: An object is on its way out: look again.
SOON_SECONDS = 2.0

#: Some of what holds a pod up shows in no change of it (a missing ConfigMap, silence): it is looked at again, ever more
#: rarely, until it runs.
MIN_POLL_SECONDS = 5.0
MAX_POLL_SECONDS = 60.0


class StageState(StrEnum):
    """Where a stage stands."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    RUNNING = "Running"
    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    BACKING_OFF = "BackingOff"


@dataclass(frozen=True, slots=True)
class Children:
    """What there is of a run: records of all stages, Jobs, and their pods."""

    records: tuple[AttemptRecord, ...] = ()
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()

    def records_of(self, stage: str) -> tuple[AttemptRecord, ...]:
        """The stage's records, oldest attempt first."""
        records = (record for record in self.records if record.stage == stage)
        return tuple(sorted(records, key=lambda record: record.attempt))

    def job_of(self, stage: str, attempt: int) -> Manifest | None:
        """The Job of an attempt."""
        return next((job for job in self.jobs if is_of(job, stage, attempt)), None)

    def pods_of(self, stage: str, attempt: int) -> tuple[Manifest, ...]:
        """The pods of an attempt."""
        return tuple(pod for pod in self.pods if is_of(pod, stage, attempt))

    def with_record(self, record: AttemptRecord) -> "Children":
        """With one more record."""
        return replace(self, records=(*self.records, record))

    @property
    def disruptions(self) -> int:
        """Attempts that were taken away."""
        return sum(record.outcome is AttemptOutcome.DISRUPTED for record in self.records)

    @property
    def failures(self) -> int:
        """Attempts that failed."""
        return sum(record.outcome is AttemptOutcome.FAILED for record in self.records)

    @property
    def active_seconds(self) -> float:
        """How long the Jobs of ended attempts were active."""
        return sum(record.active_seconds for record in self.records)

    @property
    def gpu_seconds(self) -> float:
        """What all ended attempts took."""
        return sum(record.gpu_seconds for record in self.records)


@dataclass(frozen=True, slots=True)
class Stage:
    """What is to be run, and how patiently.

    Attributes:
        owner: whose stage it is.
        name: ``prepare``, ``train`` or ``evaluate``.
        build_job: the Job of an attempt.
        backoff_limit: how often failed attempts of the run, over all stages, are tried again.
        deadline_seconds: how long the Jobs of the run, all together, may be active.
        references: what the pods refer to.
        started, ended: reasons of the events that say so; None where another event does.
        gpus: GPUs of all pods together.
        suspended: no pod may run.
        queued: a queue (Kueue) decides when the Job runs: its ``suspend`` is the queue's.
    """

    owner: Owner
    name: str
    build_job: Callable[[int], Body]
    backoff_limit: int
    deadline_seconds: float | None
    references: References
    started: str
    ended: str | None
    gpus: int = 0
    suspended: bool = False
    queued: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What follows for a stage.

    Attributes:
        state: where it stands once the actions are carried out.
        children: with the record that this step makes, if any.
        attempt: the current or last attempt; 0 before the first.
        waiting: why it does not go on.
        job: the live Job, as observed.
    """

    state: StageState
    children: Children
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    attempt: int = 0
    waiting: Waiting | None = None
    requeue_after: float | None = None
    job: Manifest | None = None

    def last_record(self, stage: str) -> AttemptRecord | None:
        """The stage's latest record."""
        records = self.children.records_of(stage)
        return records[-1] if records else None

    def report(self, stage: str) -> RunReport | None:
        """The report of the stage's success."""
        record = self.last_record(stage)
        return record.report if record else None


def advance(stage: Stage, children: Children, now: datetime) -> Step:
    """The stage's next step."""
    records = children.records_of(stage.name)
    last = records[-1] if records else None
    attempt = last.attempt if last else 0
    leftovers = _leftovers(stage, children)
    if last and last.outcome is AttemptOutcome.SUCCEEDED:
        return Step(StageState.SUCCEEDED, children, leftovers, attempt=attempt)
    if last and last.final:
        return Step(StageState.FAILED, children, leftovers, attempt=attempt)
    if any(job_end(job) is None for job in _recorded_jobs(stage, children)):
        return Step(StageState.BACKING_OFF, children, leftovers, attempt=attempt, requeue_after=SOON_SECONDS)
    job = children.job_of(stage.name, attempt + 1)
    if job is None:
        return _start(stage, children, attempt + 1, now)
    if is_deleting(job):
        state = StageState.SUSPENDED if stage.suspended else StageState.RUNNING
        return Step(state, children, attempt=attempt + 1, requeue_after=SOON_SECONDS)
    return _continue(stage, children, job, attempt + 1, now)


def refuse(
    owner: Owner,
    stage: str,
    children: Children,
    failure: Failure,
    now: datetime,
    reason: str | None = None,
) -> Step:
    """Fail a stage that has not begun; the reason is the category's unless another is given."""
    attempt, ending = 1, failed(failure, reason)
    record = _record(stage, attempt, ending, True, ending.reason, None, now)
    return Step(
        StageState.FAILED,
        children.with_record(record),
        (Create(build_result_config_map(owner, record)),),
        (Event(ending.reason, failure.message, "Warning"),),
        attempt=attempt,
    )


def exceeded(children: Children, limit: float | None) -> bool:
    """Whether the ended attempts alone were active for longer than the limit."""
    return limit is not None and children.active_seconds >= limit


def deadline_failure(limit: float | None) -> Failure:
    """What is said when the time is over."""
    return Failure(
        category=FailureCategory.USER_ERROR,
        reason=Reason.DEADLINE_EXCEEDED,
        message=f"It was active for longer than activeDeadlineSeconds: {limit:g}. What it committed is kept.",
    )


def _recorded_jobs(stage: Stage, children: Children) -> list[Manifest]:
    recorded = [record.attempt for record in children.records_of(stage.name)]
    jobs = (children.job_of(stage.name, attempt) for attempt in recorded)
    return [job for job in jobs if job is not None]


def _leftovers(stage: Stage, children: Children) -> tuple[Action, ...]:
    """Live Jobs of attempts that are over: their end was decided, so they go."""
    live = (job for job in _recorded_jobs(stage, children) if job_end(job) is None and not is_deleting(job))
    return tuple(_delete(job) for job in live)


def _delete(job: Manifest) -> Delete:
    metadata = job["metadata"]
    return Delete("batch/v1", "Job", metadata["namespace"], metadata["name"], metadata["uid"])


def _start(stage: Stage, children: Children, attempt: int, now: datetime) -> Step:
    if exceeded(children, stage.deadline_seconds):
        return _conclude(stage, children, None, attempt, _deadline_ending(stage), now, final=True)
    if stage.suspended:
        return Step(StageState.SUSPENDED, children, attempt=attempt - 1)
    wait = _backoff_left(children.records_of(stage.name), now)
    if wait > 0:
        return Step(StageState.BACKING_OFF, children, attempt=attempt - 1, requeue_after=wait)
    manifest = stage.build_job(attempt)
    event = Event(stage.started, f"Attempt {attempt} runs as Job {manifest['metadata']['name']}.")
    return Step(StageState.RUNNING, children, (Create(manifest),), (event,), attempt=attempt)


def _backoff_left(records: Sequence[AttemptRecord], now: datetime) -> float:
    if not records:
        return 0.0
    delay = min(BACKOFF_SECONDS * 2.0 ** min(len(records) - 1, 16), MAX_BACKOFF_SECONDS)
    return delay - (now - records[-1].ended_at).total_seconds()


def _continue(stage: Stage, children: Children, job: Manifest, attempt: int, now: datetime) -> Step:
    pods = children.pods_of(stage.name, attempt)
    waiting = find_waiting(job, pods, stage.references, now)
    ending = judge(job, pods, stage.name)
    if ending is not None:
        return _conclude(stage, children, job, attempt, ending, now, final=not ending.retryable)
    if _is_lost(job, pods, now):
        ending = disrupted("The pod's node does not answer: the pod is given up.")
        return _conclude(stage, children, job, attempt, ending, now, final=False)
    if _is_past(_deadline(stage, children, job), now):
        return _conclude(stage, children, job, attempt, _deadline_ending(stage), now, final=True)
    if waiting is not None and _is_past(waiting.patience_ends, now):
        return _conclude(stage, children, job, attempt, _impatient(waiting), now, final=True)
    return _watch(stage, children, job, attempt, waiting, now)


def _is_past(limit: datetime | None, now: datetime) -> bool:
    return limit is not None and now >= limit


def _is_lost(job: Manifest, pods: Sequence[Manifest], now: datetime) -> bool:
    """Whether a pod should have ended long ago."""
    if is_suspended(job):
        return False
    # A pod's deletionTimestamp is the end of its grace period.
    ends = (parse_time(pod["metadata"].get("deletionTimestamp")) for pod in pods if not terminated(pod))
    return any(end is not None and now >= end + LOST_POD for end in ends)


def _deadline(stage: Stage, children: Children, job: Manifest) -> datetime | None:
    started = job_started_at(job)
    if stage.deadline_seconds is None or started is None or is_suspended(job):
        return None
    return started + timedelta(seconds=stage.deadline_seconds - children.active_seconds)


def _deadline_ending(stage: Stage) -> Ending:
    return failed(deadline_failure(stage.deadline_seconds), Reason.DEADLINE_EXCEEDED)


def _impatient(waiting: Waiting) -> Ending:
    failure = Failure(category=FailureCategory.USER_ERROR, reason=waiting.reason, message=waiting.message)
    return failed(failure, waiting.reason)


def _conclude(
    stage: Stage,
    children: Children,
    job: Manifest | None,
    attempt: int,
    ending: Ending,
    now: datetime,
    final: bool,
) -> Step:
    """Record how the attempt ended; whatever follows is decided from the record."""
    reason, final = _limited(stage, children, ending, final)
    gpu_seconds = stage.gpus * _container_seconds(children.pods_of(stage.name, attempt), job, now)
    record = _record(stage.name, attempt, ending, final, reason, job, now, gpu_seconds)
    after = advance(stage, children.with_record(record), now)
    return replace(
        after,
        actions=(Create(build_result_config_map(stage.owner, record)), *after.actions),
        events=(*_ending_events(stage, record, after), *after.events),
    )


def _limited(stage: Stage, children: Children, ending: Ending, final: bool) -> tuple[str, bool]:
    """The reason to give, and whether the ending is final, by the limits on failures and disruptions."""
    if final or ending.outcome is AttemptOutcome.SUCCEEDED:
        return ending.reason, final and ending.outcome is not AttemptOutcome.SUCCEEDED
    if ending.outcome is AttemptOutcome.DISRUPTED:
        over = children.disruptions + 1 >= MAX_DISRUPTIONS
        return (Reason.TOO_MANY_DISRUPTIONS if over else ending.reason), over
    over = children.failures + 1 > stage.backoff_limit
    return (Reason.BACKOFF_LIMIT_EXCEEDED if over else ending.reason), over


def _record(
    stage: str,
    attempt: int,
    ending: Ending,
    final: bool,
    reason: str,
    job: Manifest | None,
    now: datetime,
    gpu_seconds: float = 0.0,
) -> AttemptRecord:
    return AttemptRecord(
        stage=stage,
        attempt=attempt,
        outcome=ending.outcome,
        final=final,
        reason=reason,
        report=ending.report,
        failure=ending.failure,
        started_at=(job_started_at(job) or created_at(job)) if job else None,
        ended_at=_ended_at(job, now),
        gpu_seconds=gpu_seconds,
    )


def _ended_at(job: Manifest | None, now: datetime) -> datetime:
    end = job_end(job) if job else None
    at = parse_time(end[1].get("lastTransitionTime")) if end else None
    return at or now.replace(microsecond=0)


def _container_seconds(pods: Sequence[Manifest], job: Manifest | None, now: datetime) -> float:
    """The longest time that a container of the attempt held its GPUs; the Job's where the pods are gone."""
    ends = [end for pod in pods if (end := terminated(pod))]
    spans = [(parse_time(end.get("startedAt")), parse_time(end.get("finishedAt"))) for end in ends]
    if not spans and job is not None:
        spans = [(job_started_at(job), _ended_at(job, now))]
    return max(((end - start).total_seconds() for start, end in spans if start and end), default=0.0)


def _ending_events(stage: Stage, record: AttemptRecord, after: Step) -> tuple[Event, ...]:
    name = f"Attempt {record.attempt} of {stage.name}"
    if record.outcome is AttemptOutcome.SUCCEEDED:
        return (Event(stage.ended, f"{name} succeeded."),) if stage.ended else ()
    told = record.failure.message if record.failure else ""
    if record.final:
        return (Event(record.reason, f"{name} failed: {told}", "Warning"),)
    again = f"The next one starts in {after.requeue_after or 0:.0f} s."
    reason = Reason.DISRUPTED if record.outcome is AttemptOutcome.DISRUPTED else Reason.RETRYING
    return (Event(reason, f"{name} ended: {told} {again}", "Warning"),)


def _watch(
    stage: Stage, children: Children, job: Manifest, attempt: int, waiting: Waiting | None, now: datetime
) -> Step:
    """The Job is live: hold it or let it go, say what it waits for, look again when a limit is reached."""
    actions, events = _sync_suspension(stage, job)
    limits = [_deadline(stage, children, job), waiting.patience_ends if waiting else None]
    left = [(limit - now).total_seconds() for limit in limits if limit is not None]
    if _needs_polling(stage, job, children.pods_of(stage.name, attempt)):
        age = (now - created_at(job)).total_seconds()
        left.append(min(max(age / 4, MIN_POLL_SECONDS), MAX_POLL_SECONDS))
    return Step(
        _live_state(stage, job, waiting),
        children,
        actions,
        events,
        attempt=attempt,
        waiting=waiting,
        requeue_after=max(min(left), 0.0) if left else None,
        job=job,
    )


def _needs_polling(stage: Stage, job: Manifest, pods: Sequence[Manifest]) -> bool:
    if is_suspended(job) and not stage.suspended:
        return False
    return not pods or any(is_deleting(pod) or not is_running(pod) for pod in pods)


def _live_state(stage: Stage, job: Manifest, waiting: Waiting | None) -> StageState:
    if stage.suspended and not stage.queued:
        return StageState.SUSPENDED
    if is_suspended(job) and stage.queued:
        return StageState.QUEUED
    if waiting is not None and waiting.reason is Reason.UNSCHEDULABLE:
        return StageState.QUEUED
    return StageState.RUNNING


def _sync_suspension(stage: Stage, job: Manifest) -> tuple[tuple[Action, ...], tuple[Event, ...]]:
    if stage.queued or is_suspended(job) == stage.suspended:
        return (), ()
    metadata = job["metadata"]
    patch = Patch(
        "batch/v1", "Job", metadata["namespace"], metadata["name"], {"spec": {"suspend": stage.suspended}}
    )
    if stage.suspended:
        return (patch,), (Event(Reason.SUSPENDED, f"Job {metadata['name']} is held."),)
    return (patch,), (Event(Reason.RESUMED, f"Job {metadata['name']} goes on."),)
