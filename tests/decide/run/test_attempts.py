"""One step of a stage: when an attempt starts, is repeated, is stopped, or is the last one."""

import pytest
from simulation.run_objects import after, build_job, build_pod, build_record, failed_condition, train_stage
from simulation.simulated_cluster import failure, success

from tunesmith.api.reasons import RunReason
from tunesmith.decide.plan import Create, Delete, Patch
from tunesmith.decide.run.attempts import (
    BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_DISRUPTIONS,
    MAX_POLL_SECONDS,
    REPORT_WAIT_SECONDS,
    SOON_SECONDS,
    advance,
)
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.limits import RunLimits
from tunesmith.decide.run.stage import StageState
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, Remedy
from tunesmith_contract.report import Failure
from tunesmith_contract.stages import Stage


def crashed(*records: AttemptRecord) -> Children:
    """Records of earlier attempts, and a Job of the next one that crashed 100 s after START."""
    attempt = len(records) + 1
    job = build_job(failed_condition(), attempt=attempt)
    return Children(records=records, jobs=(job,), pods=(build_pod(134, attempt=attempt),))


def test_the_first_attempt_starts_at_once() -> None:
    step = advance(train_stage(), Children(), after(0))
    assert (step.state, step.attempt) == (StageState.RUNNING, 1)
    assert [action.manifest["kind"] for action in step.actions if isinstance(action, Create)] == ["Job"]


def test_a_suspended_stage_starts_nothing() -> None:
    step = advance(train_stage(suspended=True), Children(), after(0))
    assert (step.state, step.actions, step.attempt) == (StageState.SUSPENDED, (), 0)


@pytest.mark.parametrize(("failures", "delay"), [(1, 10.0), (2, 20.0), (4, 80.0), (30, MAX_BACKOFF_SECONDS)])
def test_the_delay_doubles_with_each_attempt_up_to_a_maximum(failures: int, delay: float) -> None:
    records = tuple(build_record(number + 1) for number in range(failures))
    stage = train_stage(backoff_limit=100)
    early = advance(stage, Children(records=records), after(100 + delay - 1))
    assert (early.state, early.requeue_after) == (StageState.BACKING_OFF, 1.0)
    assert advance(stage, Children(records=records), after(100 + delay)).state is StageState.RUNNING


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_the_delay_counts_by_the_operator_s_own_clock(skew: float) -> None:
    step = advance(train_stage(), crashed(), after(100 + skew))
    assert step.requeue_after == BACKOFF_SECONDS


def test_a_failure_is_recorded_before_anything_follows_from_it() -> None:
    step = advance(train_stage(), crashed(), after(100))
    (create,) = step.actions
    assert isinstance(create, Create)
    assert create.manifest["metadata"]["name"].endswith("result-train-1")
    record = step.last_record(Stage.TRAIN)
    assert record is not None
    assert (record.outcome, record.final, record.ran_seconds) == (AttemptOutcome.FAILED, False, 100.0)
    assert (step.state, step.requeue_after) == (StageState.BACKING_OFF, BACKOFF_SECONDS)
    assert [event.reason for event in step.events] == [RunReason.RETRYING]


def test_the_last_failure_that_is_allowed_is_final() -> None:
    step = advance(train_stage(backoff_limit=1), crashed(build_record(1)), after(200))
    record = step.last_record(Stage.TRAIN)
    assert record is not None
    assert (step.state, record.reason, record.final) == (
        StageState.FAILED,
        RunReason.BACKOFF_LIMIT_EXCEEDED,
        True,
    )


def test_disruptions_have_a_limit_of_their_own() -> None:
    records = tuple(
        build_record(number + 1, AttemptOutcome.DISRUPTED) for number in range(MAX_DISRUPTIONS - 1)
    )
    job = build_job(failed_condition(), attempt=MAX_DISRUPTIONS)
    step = advance(train_stage(backoff_limit=0), Children(records=records, jobs=(job,)), after(200))
    record = step.last_record(Stage.TRAIN)
    assert record is not None
    assert (record.reason, record.final) == (RunReason.TOO_MANY_DISRUPTIONS, True)
    fewer = Children(records=records[:-1], jobs=(build_job(failed_condition(), attempt=MAX_DISRUPTIONS - 1),))
    assert advance(train_stage(backoff_limit=0), fewer, after(200)).state is StageState.BACKING_OFF


def test_a_remedy_makes_a_final_failure_one_that_is_repeated_and_does_not_count() -> None:
    remedy = Remedy(before=8, micro_batch_size=4)
    stage = train_stage(backoff_limit=0, remedy=lambda *_: remedy)
    children = Children(jobs=(build_job(failed_condition()),), pods=(build_pod(137, reason="OOMKilled"),))
    step = advance(stage, children, after(100))
    record = step.last_record(Stage.TRAIN)
    assert record is not None
    assert (record.remedy, record.final, step.children.failures) == (remedy, False, 0)
    assert [event.reason for event in step.events] == [RunReason.OUT_OF_MEMORY_REMEDY]


def test_without_a_remedy_the_failure_gets_its_final_message() -> None:
    def advise(failed: Failure, _: object) -> Failure:
        return failed.model_copy(update={"message": "Write less."})

    children = Children(jobs=(build_job(failed_condition()),), pods=(build_pod(137, reason="OOMKilled"),))
    record = advance(train_stage(remedy=advise), children, after(100)).last_record(Stage.TRAIN)
    assert record is not None
    assert record.failure is not None
    assert (record.failure.message, record.final) == ("Write less.", True)


def test_an_ended_gang_waits_for_the_reports_of_its_other_pods() -> None:
    job = build_job(failed_condition(), spec={"parallelism": 2})
    running = Children(jobs=(job,), pods=(build_pod(134), build_pod(index=1)))
    step = advance(train_stage(nodes=2), running, after(100))
    assert (step.state, step.actions, step.requeue_after) == (StageState.RUNNING, (), SOON_SECONDS)
    late = advance(train_stage(nodes=2), running, after(100 + REPORT_WAIT_SECONDS))
    assert late.last_record(Stage.TRAIN) is not None
    cause = build_pod(1, failure("train", "DataError"), index=1)
    known = advance(train_stage(nodes=2), Children(jobs=(job,), pods=(build_pod(134), cause)), after(100))
    record = known.last_record(Stage.TRAIN)
    assert record is not None
    assert record.reason == RunReason.DATA_ERROR


def test_a_job_beyond_its_limit_is_stopped_by_its_own_deadline_once() -> None:
    stage = train_stage(limits=RunLimits(deadline_seconds=60.0, gpus=1))
    step = advance(stage, Children(jobs=(build_job(),), pods=(build_pod(),)), after(60))
    (patch,) = step.actions
    assert isinstance(patch, Patch)
    assert patch.patch == {"spec": {"activeDeadlineSeconds": 1}}
    stopping = Children(jobs=(build_job(spec={"activeDeadlineSeconds": 1}),), pods=(build_pod(),))
    assert not advance(stage, stopping, after(65)).actions


def test_a_job_that_its_limit_ended_succeeds_with_a_report_of_success_and_else_fails() -> None:
    stage = train_stage(limits=RunLimits(deadline_seconds=60.0, gpus=1))
    job = build_job(failed_condition(reason="DeadlineExceeded"))
    done = advance(stage, Children(jobs=(job,), pods=(build_pod(0, success("train")),)), after(100))
    assert done.state is StageState.SUCCEEDED
    stopped = advance(stage, Children(jobs=(job,), pods=(build_pod(143),)), after(100))
    record = stopped.last_record(Stage.TRAIN)
    assert record is not None
    assert (record.reason, record.final) == (RunReason.DEADLINE_EXCEEDED, True)


def test_no_attempt_starts_beyond_the_limit() -> None:
    stage = train_stage(limits=RunLimits(deadline_seconds=60.0, gpus=1))
    step = advance(stage, Children(records=(build_record(ran_seconds=60.0),)), after(1000))
    record = step.last_record(Stage.TRAIN)
    assert record is not None
    assert (step.state, record.attempt, record.reason) == (StageState.FAILED, 2, RunReason.DEADLINE_EXCEEDED)


def test_a_pod_that_does_not_end_is_given_up_after_its_grace_period() -> None:
    pod = build_pod()
    pod["metadata"]["deletionTimestamp"] = after(10).isoformat()
    children = Children(jobs=(build_job(),), pods=(pod,))
    stage = train_stage(lost_pod_seconds=300.0)
    assert advance(stage, children, after(309)).last_record(Stage.TRAIN) is None
    record = advance(stage, children, after(310)).last_record(Stage.TRAIN)
    assert record is not None
    assert record.outcome is AttemptOutcome.DISRUPTED


def test_what_is_left_of_a_recorded_attempt_is_deleted_before_the_next_one() -> None:
    children = Children(records=(build_record(1),), jobs=(build_job(),), pods=(build_pod(),))
    step = advance(train_stage(), children, after(1000))
    (delete,) = step.actions
    assert isinstance(delete, Delete)
    assert (delete.api_version, delete.kind, delete.uid) == ("batch/v1", "Job", "uid-of-job-1")
    assert (step.state, step.requeue_after) == (StageState.BACKING_OFF, SOON_SECONDS)


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    job = build_job()
    job["metadata"]["deletionTimestamp"] = after(1).isoformat()
    step = advance(train_stage(), Children(jobs=(job,)), after(2))
    assert (step.state, step.actions, step.requeue_after) == (StageState.RUNNING, (), SOON_SECONDS)


def test_pods_that_do_not_run_are_looked_at_ever_more_rarely() -> None:
    children = Children(jobs=(build_job(),), pods=())
    waits = [advance(train_stage(), children, after(age)).requeue_after for age in (0, 100, 10_000)]
    assert waits == [5.0, 25.0, 60.0]
    running = Children(jobs=(build_job(),), pods=(build_pod(),))
    assert advance(train_stage(), running, after(10)).requeue_after is None


def test_pods_without_a_node_are_looked_at_seldom_since_the_scheduler_tells_when_it_has_found_one() -> None:
    no_node = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pod = build_pod(conditions=(no_node,)) | {"status": {"phase": "Pending", "conditions": [no_node]}}
    step = advance(train_stage(), Children(jobs=(build_job(),), pods=(pod,)), after(1))
    assert (step.state, step.requeue_after) == (StageState.QUEUED, MAX_POLL_SECONDS)
