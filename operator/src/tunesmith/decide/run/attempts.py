"""Attempts of one stage: one Job each, recorded when it ends, repeated within limits.

Shared by FineTuneJob and EvalRun. The records of ended attempts are the only memory, and a record is written before
anything follows from it: a restart at any point comes to the same decision.
"""

from dataclasses import replace
from datetime import datetime

from tunesmith.api.reasons import ConditionType, RunReason
from tunesmith.decide.objects import (
    created_at,
    is_deleting,
    is_running,
    job_end,
    job_ended_at,
    job_started_at,
)
from tunesmith.decide.plan import Action, Create, Delete, Event, Patch
from tunesmith.manifests.names import Owner
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import (
    AdoptedWork,
    AttemptOutcome,
    AttemptRecord,
    Remedy,
    build_result_config_map,
)
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Failure
from tunesmith_contract.stages import Stage

from .attempt import Attempt, gather_attempt
from .children import Children
from .endings import (
    Ending,
    deleted_job_ending,
    failed,
    job_ending,
    lost_pod_ending,
    newest_checkpoint,
    reported_success,
    trainers_ending,
)
from .limits import is_ended_by_limit, is_stopping
from .patience import remember
from .refused_pods import RETRY_PERIOD, retry_creation
from .stage import StageDefinition, StageState, Step
from .suspension import suspend_or_resume
from .usage import charged_gpu_seconds, pod_started_at

BACKOFF_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 360.0
MAX_DISRUPTIONS = 100

#: How long an ended Job waits for the reports of pods that are not yet known to have ended.
REPORT_WAIT_SECONDS = 5.0

#: Until the next look at an object that is being deleted.
SOON_SECONDS = 2.0

#: Some causes show in no change of a pod (a missing ConfigMap, a silent node): pods that do not run are polled, ever
#: more rarely.
MIN_POLL_SECONDS = 5.0
MAX_POLL_SECONDS = 60.0
#: Kueue's words on a job that waits are read so often: thousands may wait, for months.
MIN_QUEUE_SECONDS = 30.0
MAX_QUEUE_SECONDS = 600.0


def advance(stage: StageDefinition, children: Children, now: datetime) -> Step:
    """The stage's next step."""
    records = children.records_of(stage.name)
    last = records[-1] if records else None
    number = last.attempt if last else 0
    jobs = [job for record in records if (job := children.job_of(stage.name, record.attempt)) is not None]
    live_jobs = [job for job in jobs if job_end(job) is None]
    services = [body for record in records for body in children.services_of(stage.name, record.attempt)]
    # The end of these attempts is recorded, so what is left of them goes.
    cleanup = tuple(Delete.of(body) for body in (*live_jobs, *services) if not is_deleting(body))
    if last is not None and last.outcome is AttemptOutcome.SUCCEEDED:
        return Step(StageState.SUCCEEDED, children, cleanup, attempt=number)
    if last is not None and last.final:
        return Step(StageState.FAILED, children, cleanup, attempt=number)
    if live_jobs:
        return Step(StageState.BACKING_OFF, children, cleanup, attempt=number, requeue_after=SOON_SECONDS)
    step = _advance_attempt(gather_attempt(stage, children, number + 1, now))
    return replace(step, actions=(*cleanup, *step.actions))


def refuse(
    owner: Owner,
    stage: Stage,
    children: Children,
    failure: Failure,
    now: datetime,
    reason: str | None = None,
) -> Step:
    """Failure of a stage that has not begun; the reason is the category's unless another is given."""
    ending = failed(failure, reason)
    record = AttemptRecord(
        stage=stage,
        attempt=1,
        outcome=ending.outcome,
        final=True,
        reason=ending.reason,
        failure=failure,
        ended_at=now.replace(microsecond=0),
        ran_seconds=0.0,
    )
    return Step(
        StageState.FAILED,
        children.with_record(record),
        (Create(build_result_config_map(owner, record)),),
        (Event(ending.reason, failure.message, "Warning"),),
        attempt=1,
    )


def _advance_attempt(attempt: Attempt) -> Step:
    job = attempt.job
    if job is None:
        return _judge_without_job(attempt) if attempt.lacks_job else _start(attempt)
    if is_deleting(job):
        state = StageState.SUSPENDED if attempt.stage.suspended else StageState.RUNNING
        return Step(state, attempt.children, attempt=attempt.number, requeue_after=SOON_SECONDS)
    ending = _decide_ending(attempt, job)
    if ending is None:
        return _stop(attempt, job) if attempt.exceeds_limit else _continue(attempt, job)
    ended_at = job_ended_at(job)
    waits = ended_at is not None and (attempt.now - ended_at).total_seconds() < REPORT_WAIT_SECONDS
    if attempt.stage.nodes > 1 and waits and attempt.has_active_pods:
        # Reports of the gang's other pods are on their way, and one of them may name the cause.
        return Step(
            StageState.RUNNING,
            attempt.children,
            attempt=attempt.number,
            requeue_after=SOON_SECONDS,
            job=job,
        )
    return _record_end(attempt, ending, final=not ending.retryable)


def _judge_without_job(attempt: Attempt) -> Step:
    """Record the end of an attempt whose Job was deleted, once its pods are gone: they may still compute and tell."""
    if attempt.has_active_pods and not attempt.has_lost_pod:
        return Step(StageState.RUNNING, attempt.children, attempt=attempt.number, requeue_after=SOON_SECONDS)
    ending = deleted_job_ending(attempt.pods, attempt.stage.name)
    return _record_end(attempt, ending, final=not ending.retryable)


def _start(attempt: Attempt) -> Step:
    """Create the Job, unless a limit, a suspension or the back-off forbids it."""
    stage, children, number = attempt.stage, attempt.children, attempt.number
    if attempt.limit is not None and attempt.exceeds_limit:
        failure = attempt.limit.failure(children.last_checkpoint(stage.name))
        return _record_end(attempt, failed(failure, attempt.limit.reason), final=True)
    if stage.suspended:
        return Step(StageState.SUSPENDED, children, attempt=number - 1)
    if records := children.records_of(stage.name):
        delay = min(BACKOFF_SECONDS * 2.0 ** min(len(records) - 1, 16), MAX_BACKOFF_SECONDS)
        seconds_left = delay - (attempt.now - records[-1].noticed_at).total_seconds()
        if seconds_left > 0:
            return Step(StageState.BACKING_OFF, children, attempt=number - 1, requeue_after=seconds_left)
    manifests = stage.build(number, children)
    message, condition = (
        f"Attempt {number} runs as Job {manifests[-1]['metadata']['name']}.",
        ConditionType.JOB_CREATED,
    )
    event = Event(stage.started, message, condition=condition)
    creates = tuple(Create(manifest, condition=condition) for manifest in manifests)
    return Step(StageState.RUNNING, children, creates, (event,), attempt=number)


def _decide_ending(attempt: Attempt, job: Body) -> Ending | None:
    """Ending of the attempt: by its Job, a lost pod, a limit, or a problem that nobody corrected."""
    stage, pods = attempt.stage.name, attempt.pods
    ending = job_ending(job, pods, stage)
    if ending is None and attempt.has_lost_pod:
        ending = lost_pod_ending(job, pods, stage)
    if attempt.limit is not None:
        ended_by_limit = ending is not None and is_ended_by_limit(job, pods)
        held_beyond_limit = (
            ending is None and attempt.exceeds_limit and attempt.suspended and not attempt.has_active_pods
        )
        if ended_by_limit or held_beyond_limit:
            checkpoint = newest_checkpoint(pods) or attempt.children.last_checkpoint(stage)
            stopped = failed(attempt.limit.failure(checkpoint), attempt.limit.reason)
            # A pod that finished in time has succeeded all the same.
            return reported_success(pods, stage) or replace(stopped, checkpoint=checkpoint)
    waiting = attempt.waiting
    if ending is None and waiting is not None and waiting.fails_at and attempt.now >= waiting.fails_at:
        if waiting.reason is RunReason.POD_KEPT_ALIVE:
            return trainers_ending(job, pods, stage)
        category = waiting.cause.category or FailureCategory.INFRASTRUCTURE
        failure = Failure(category=category, reason=waiting.reason, message=waiting.message)
        return failed(failure, waiting.reason)
    return ending


def _record_end(attempt: Attempt, ending: Ending, final: bool) -> Step:
    """Record how the attempt ended; whatever follows is decided from the record.

    Args:
        final: another attempt of the same kind would fail as well.
    """
    stage, children, job = attempt.stage, attempt.children, attempt.job
    succeeded, remedy = ending.outcome is AttemptOutcome.SUCCEEDED, None
    if final and ending.failure is not None:
        changed = stage.remedy(ending.failure, children.records_of(stage.name))
        if isinstance(changed, Remedy):
            remedy = changed
        else:
            ending = replace(ending, failure=changed)
    reason, final = ending.reason, final and remedy is None and not succeeded
    if not final and ending.outcome is AttemptOutcome.DISRUPTED:
        if children.disruptions + 1 >= MAX_DISRUPTIONS:
            reason, final = RunReason.TOO_MANY_DISRUPTIONS, True
    elif not final and remedy is None and not succeeded and children.failures + 1 > stage.backoff_limit:
        reason, final = RunReason.BACKOFF_LIMIT_EXCEEDED, True
    adopted = _find_adopted(stage, ending)
    ended_at = (job_ended_at(job) if job is not None else None) or attempt.now.replace(microsecond=0)
    record = AttemptRecord(
        stage=stage.name,
        attempt=attempt.number,
        outcome=ending.outcome,
        final=final,
        reason=reason,
        report=ending.report,
        failure=ending.failure,
        checkpoint=ending.checkpoint,
        remedy=remedy,
        started_at=_started_at(attempt),
        # A verdict counts from when the models answered: it must not overtake those that came after it.
        ended_at=adopted.finished_at if adopted is not None else ended_at,
        ran_seconds=attempt.usage.active_seconds,
        gpu_seconds=charged_gpu_seconds(attempt.usage, job, ending.failure, ending.checkpoint),
        recorded_at=attempt.now.replace(microsecond=0),
        adopted=adopted,
    )
    step = advance(stage, children.with_record(record), attempt.now)
    return replace(
        step,
        actions=(Create(build_result_config_map(stage.owner, record)), *step.actions),
        events=(*_end_events(stage, record, step.requeue_after or 0), *step.events),
    )


def _find_adopted(stage: StageDefinition, ending: Ending) -> AdoptedWork | None:
    """Origin of a result that the pod did not come to itself, but found to be valid still."""
    finished, report = stage.finished, ending.report
    if finished is None or report is None or report.evaluation is None or report.reused != finished.uid:
        return None
    return AdoptedWork(uid=finished.uid, finished_at=finished.finished_at)


def _started_at(attempt: Attempt) -> datetime | None:
    """When the attempt began: its Job, or where that was deleted its first pod."""
    if attempt.job is not None:
        return job_started_at(attempt.job) or created_at(attempt.job)
    return min((start for pod in attempt.pods if (start := pod_started_at(pod))), default=None)


def _end_events(
    stage: StageDefinition, record: AttemptRecord, next_attempt_seconds: float
) -> tuple[Event, ...]:
    name = f"Attempt {record.attempt} of {stage.name}"
    if record.outcome is AttemptOutcome.SUCCEEDED:
        return (Event(stage.ended, f"{name} succeeded."),) if stage.ended else ()
    message = record.failure.message if record.failure else ""
    if record.final:
        return (Event(record.reason, f"{name} failed: {message}", "Warning"),)
    retry = f"The next one starts in {next_attempt_seconds:.0f} s."
    if record.remedy is not None:
        before, after = record.remedy.before, record.remedy.micro_batch_size
        retry = f"The micro batch is reduced from {before} to {after} rows. {retry}"
        reason = RunReason.OUT_OF_MEMORY_REMEDY
    else:
        disrupted = record.outcome is AttemptOutcome.DISRUPTED
        reason = RunReason.DISRUPTED if disrupted else RunReason.RETRYING
    return (Event(reason, f"{name} ended: {message} {retry}", "Warning"),)


def _stop(attempt: Attempt, job: Body) -> Step:
    """Let the pods end within their grace period; their reports and last checkpoints are used then.

    The Job's own deadline does it: deleted, it would take its pods' reports with it; suspended, its queue would start
    it again.
    """
    assert attempt.limit is not None
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    if not is_stopping(job):
        actions = (Patch.of(job, {"spec": {"activeDeadlineSeconds": 1}}),)
        message = f"{attempt.limit.message} Attempt {attempt.number} is asked to stop."
        events = (Event(attempt.limit.reason, message, "Warning"),)
    return Step(
        StageState.RUNNING,
        attempt.children,
        actions,
        events,
        attempt=attempt.number,
        requeue_after=MIN_POLL_SECONDS,
        job=job,
    )


def _continue(attempt: Attempt, job: Body) -> Step:
    """Hold or resume the live Job, show what it waits for, and come back when a limit is reached."""
    stage, now, waiting = attempt.stage, attempt.now, attempt.waiting
    actions, events = suspend_or_resume(attempt, job)
    actions = (*actions, *remember(job, waiting.cause if waiting else None, now))
    timers: list[float] = []
    if waiting is not None and waiting.is_refusal:
        actions = (*actions, *retry_creation(job, now))
        timers.append(RETRY_PERIOD.total_seconds())
    if waiting is not None and waiting.fails_at is not None:
        timers.append((waiting.fails_at - now).total_seconds())
    if attempt.limit is not None and attempt.has_active_pods:
        timers.append(attempt.limit.seconds_left)
    held_by_queue = attempt.suspended and not stage.suspended
    all_running = bool(attempt.pods) and all(is_running(pod) and not is_deleting(pod) for pod in attempt.pods)
    age = (now - created_at(job)).total_seconds()
    unschedulable = waiting is not None and waiting.reason is RunReason.UNSCHEDULABLE
    if not held_by_queue and not all_running:
        # The scheduler tells when it has found a node: until then nothing else can go wrong unseen.
        seldom = MAX_POLL_SECONDS if unschedulable else MIN_POLL_SECONDS
        timers.append(min(max(age / 4, seldom), MAX_POLL_SECONDS))
    elif held_by_queue and attempt.children.workloads is not None:
        timers.append(min(max(age / 4, MIN_QUEUE_SECONDS), MAX_QUEUE_SECONDS))
    if stage.suspended and (attempt.suspended or not stage.queued):
        state = StageState.SUSPENDED
    elif (attempt.suspended and stage.queued) or unschedulable:
        state = StageState.QUEUED
    else:
        state = StageState.RUNNING
    return Step(
        state,
        attempt.children,
        actions,
        events,
        attempt=attempt.number,
        waiting=waiting,
        requeue_after=max(min(timers), 0.0) if timers else None,
        job=job,
    )
