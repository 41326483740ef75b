"""One stage of a run: one Job per attempt, judged when it ends, tried again within limits.

Shared by training and evaluation. All that is known of earlier attempts stands in their records; a record is
written before anything follows from it, so a restart at any line comes to the same answer.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from tunesmith.api.reasons import FineTuneJobReason as Reason
from tunesmith.decide.objects import (
    Manifest,
    created_at,
    is_deleting,
    is_running,
    is_suspended,
    job_end,
    job_started_at,
    parse_time,
    terminated,
)
from tunesmith.decide.plan import Action, Create, Delete, Event, Patch
from tunesmith.manifests.names import Owner
from tunesmith.manifests.result_config_map import (
    AttemptOutcome,
    AttemptRecord,
    Remedy,
    build_result_config_map,
)
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Checkpoint, Failure

from .children import Children
from .endings import Ending, failed, judge, judge_lost, newest_checkpoint, success
from .limits import Limit, is_ended_by_limit, is_stopping, nearest_limit
from .stage import Stage, StageState, Step
from .suspension import hold_or_release
from .usage import Usage, is_active, measure_usage
from .waiting import Waiting, find_waiting

BACKOFF_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 360.0
MAX_DISRUPTIONS = 100

#: A Job has ended and a pod of it is not yet known to have: its last word is waited for so long.
LAST_WORDS_SECONDS = 5.0

#: An object is on its way out: look again.
SOON_SECONDS = 2.0

#: Some of what holds a pod up shows in no change of it (a missing ConfigMap, silence): it is looked at again, ever more
#: rarely, until it runs.
MIN_POLL_SECONDS = 5.0
MAX_POLL_SECONDS = 60.0


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
    step = _go_on(stage, children, attempt + 1, now)
    return replace(step, actions=(*leftovers, *step.actions))


def _go_on(stage: Stage, children: Children, attempt: int, now: datetime) -> Step:
    job = children.job_of(stage.name, attempt)
    if job is None:
        return _start(stage, children, attempt, now)
    if is_deleting(job):
        state = StageState.SUSPENDED if stage.suspended else StageState.RUNNING
        return Step(state, children, attempt=attempt, requeue_after=SOON_SECONDS)
    return _continue(stage, children, job, attempt, now)


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


def _recorded_jobs(stage: Stage, children: Children) -> list[Manifest]:
    recorded = [record.attempt for record in children.records_of(stage.name)]
    jobs = (children.job_of(stage.name, attempt) for attempt in recorded)
    return [job for job in jobs if job is not None]


def _leftovers(stage: Stage, children: Children) -> tuple[Action, ...]:
    """Live Jobs and Services of attempts that are over: their end was decided, so they go."""
    live = [job for job in _recorded_jobs(stage, children) if job_end(job) is None]
    for record in children.records_of(stage.name):
        live += children.services_of(stage.name, record.attempt)
    return tuple(_delete(body) for body in live if not is_deleting(body))


def _delete(body: Manifest) -> Delete:
    metadata = body["metadata"]
    version = "batch/v1" if body["kind"] == "Job" else "v1"
    return Delete(version, body["kind"], metadata["namespace"], metadata["name"], metadata["uid"])


def _start(stage: Stage, children: Children, attempt: int, now: datetime) -> Step:
    limit = nearest_limit(stage.limits, children, Usage())
    if limit is not None and limit.left <= 0:
        ending = failed(limit.failure(_last_checkpoint(stage, children)), limit.reason)
        return _conclude(stage, children, None, attempt, ending, now, final=True)
    if stage.suspended:
        return Step(StageState.SUSPENDED, children, attempt=attempt - 1)
    wait = _backoff_left(children.records_of(stage.name), now)
    if wait > 0:
        return Step(StageState.BACKING_OFF, children, attempt=attempt - 1, requeue_after=wait)
    manifests = stage.build(attempt, children)
    event = Event(stage.started, f"Attempt {attempt} runs as Job {manifests[-1]['metadata']['name']}.")
    made = tuple(Create(manifest) for manifest in manifests)
    return Step(StageState.RUNNING, children, made, (event,), attempt=attempt)


def _last_checkpoint(stage: Stage, children: Children) -> Checkpoint | None:
    found = [record.checkpoint for record in children.records_of(stage.name) if record.checkpoint]
    return found[-1] if found else None


def _backoff_left(records: Sequence[AttemptRecord], now: datetime) -> float:
    if not records:
        return 0.0
    delay = min(BACKOFF_SECONDS * 2.0 ** min(len(records) - 1, 16), MAX_BACKOFF_SECONDS)
    return delay - (now - records[-1].ended_at).total_seconds()


def _continue(stage: Stage, children: Children, job: Manifest, attempt: int, now: datetime) -> Step:
    pods = children.pods_of(stage.name, attempt)
    usage = measure_usage(job, pods, stage.gpus_per_pod, now)
    limit = nearest_limit(stage.limits, children, usage)
    waiting = find_waiting(job, pods, stage.references, now)
    ending = judge(job, pods, stage.name)
    if ending is None and _is_lost(stage, job, pods, now):
        ending = judge_lost(job, pods, stage.name)
    if ending is not None and limit is not None and is_ended_by_limit(job, pods):
        ending = _limited_ending(stage, children, pods, limit)
    if ending is None and limit is not None and limit.left <= 0 and _is_held(job, pods):
        ending = _limited_ending(stage, children, pods, limit)
    if ending is None and waiting is not None and _is_past(waiting.patience_ends, now):
        ending = _impatient(waiting)
    if ending is not None and _hears_more(stage, job, pods, now):
        return Step(StageState.RUNNING, children, attempt=attempt, requeue_after=SOON_SECONDS, job=job)
    if ending is not None:
        return _conclude(stage, children, job, attempt, ending, now, final=not ending.retryable)
    if limit is not None and limit.left <= 0:
        return _stop(children, job, attempt, limit)
    return _watch(stage, children, job, attempt, waiting, limit, usage, now)


def _hears_more(stage: Stage, job: Manifest, pods: Sequence[Manifest], now: datetime) -> bool:
    """Whether the last words of a gang's other pods are on their way: one of them may know the cause."""
    end = job_end(job)
    ended_at = parse_time(end[1].get("lastTransitionTime")) if end else None
    if stage.nodes == 1 or ended_at is None or now >= ended_at + timedelta(seconds=LAST_WORDS_SECONDS):
        return False
    return any(is_active(pod) for pod in pods)


def _stop(children: Children, job: Manifest, attempt: int, limit: Limit) -> Step:
    """Let the pods end as their grace period allows; what they said last and committed is taken over then.

    The Job's own deadline does it: deleted, it would take its pods' last words with it; suspended, its queue would
    start it again.
    """
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    if not is_stopping(job):
        metadata = job["metadata"]
        patch = {"spec": {"activeDeadlineSeconds": 1}}
        actions = (Patch("batch/v1", "Job", metadata["namespace"], metadata["name"], patch),)
        events = (Event(limit.reason, f"{limit.message} Attempt {attempt} is asked to stop.", "Warning"),)
    return Step(
        StageState.RUNNING,
        children,
        actions,
        events,
        attempt=attempt,
        requeue_after=MIN_POLL_SECONDS,
        job=job,
    )


def _limited_ending(stage: Stage, children: Children, pods: Sequence[Manifest], limit: Limit) -> Ending:
    """A pod that came to its end in time has succeeded all the same."""
    checkpoint = newest_checkpoint(pods) or _last_checkpoint(stage, children)
    done = success(pods, stage.name)
    ended = failed(limit.failure(checkpoint), limit.reason)
    return done or replace(ended, checkpoint=checkpoint)


def _is_held(job: Manifest, pods: Sequence[Manifest]) -> bool:
    """Whether the Job has no pods, and may have none."""
    return is_suspended(job) and not any(is_active(pod) for pod in pods)


def _is_past(limit: datetime | None, now: datetime) -> bool:
    return limit is not None and now >= limit


def _is_lost(stage: Stage, job: Manifest, pods: Sequence[Manifest], now: datetime) -> bool:
    """Whether a pod should have ended long ago."""
    if is_suspended(job):
        return False
    # A pod's deletionTimestamp is the end of its grace period.
    ends = (parse_time(pod["metadata"].get("deletionTimestamp")) for pod in pods if not terminated(pod))
    patience = timedelta(seconds=stage.lost_pod_seconds)
    return any(end is not None and now >= end + patience for end in ends)


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
    records = children.records_of(stage.name)
    changed = stage.remedy(ending.failure, records) if final and ending.failure else None
    remedy = changed if isinstance(changed, Remedy) else None
    if isinstance(changed, Failure):
        ending = replace(ending, failure=changed)
    reason, final = _limited(stage, children, ending, final and remedy is None, remedy)
    pods = children.pods_of(stage.name, attempt)
    usage = measure_usage(job, pods, stage.gpus_per_pod, now) if job else None
    record = _record(stage.name, attempt, ending, final, reason, job, now, usage, remedy)
    after = advance(stage, children.with_record(record), now)
    return replace(
        after,
        actions=(Create(build_result_config_map(stage.owner, record)), *after.actions),
        events=(*_ending_events(stage, record, after), *after.events),
    )


def _limited(
    stage: Stage, children: Children, ending: Ending, final: bool, remedy: Remedy | None
) -> tuple[str, bool]:
    """The reason to give, and whether the ending is final, by the limits on failures and disruptions."""
    if final or remedy is not None or ending.outcome is AttemptOutcome.SUCCEEDED:
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
    usage: Usage | None = None,
    remedy: Remedy | None = None,
) -> AttemptRecord:
    return AttemptRecord(
        stage=stage,
        attempt=attempt,
        outcome=ending.outcome,
        final=final,
        reason=reason,
        report=ending.report,
        failure=ending.failure,
        checkpoint=ending.checkpoint,
        remedy=remedy,
        started_at=(job_started_at(job) or created_at(job)) if job else None,
        ended_at=_ended_at(job, now),
        ran_seconds=usage.active_seconds if usage else 0.0,
        gpu_seconds=usage.gpu_seconds if usage else 0.0,
    )


def _ended_at(job: Manifest | None, now: datetime) -> datetime:
    end = job_end(job) if job else None
    at = parse_time(end[1].get("lastTransitionTime")) if end else None
    return at or now.replace(microsecond=0)


def _ending_events(stage: Stage, record: AttemptRecord, after: Step) -> tuple[Event, ...]:
    name = f"Attempt {record.attempt} of {stage.name}"
    if record.outcome is AttemptOutcome.SUCCEEDED:
        return (Event(stage.ended, f"{name} succeeded."),) if stage.ended else ()
    told = record.failure.message if record.failure else ""
    if record.final:
        return (Event(record.reason, f"{name} failed: {told}", "Warning"),)
    again = f"The next one starts in {after.requeue_after or 0:.0f} s."
    if record.remedy is not None:
        change = f"The micro batch is reduced from {record.remedy.before} to {record.remedy.micro_batch_size} rows."
        return (Event(Reason.OUT_OF_MEMORY_REMEDY, f"{name} ended: {told} {change} {again}", "Warning"),)
    reason = Reason.DISRUPTED if record.outcome is AttemptOutcome.DISRUPTED else Reason.RETRYING
    return (Event(reason, f"{name} ended: {told} {again}", "Warning"),)


def _watch(
    stage: Stage,
    children: Children,
    job: Manifest,
    attempt: int,
    waiting: Waiting | None,
    limit: Limit | None,
    usage: Usage,
    now: datetime,
) -> Step:
    """The Job is live: hold it or let it go, say what it waits for, look again when a limit is reached."""
    pods = children.pods_of(stage.name, attempt)
    actions, events = hold_or_release(stage.suspended, stage.queued, job, pods, children.workloads, usage)
    left = [(waiting.patience_ends - now).total_seconds()] if waiting and waiting.patience_ends else []
    if limit is not None and any(is_active(pod) for pod in pods):
        left.append(limit.left)
    if _needs_polling(stage, job, pods):
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
    if stage.suspended and (is_suspended(job) or not stage.queued):
        return StageState.SUSPENDED
    if is_suspended(job) and stage.queued:
        return StageState.QUEUED
    if waiting is not None and waiting.reason is Reason.UNSCHEDULABLE:
        return StageState.QUEUED
    return StageState.RUNNING
