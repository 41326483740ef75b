"""Precedence of failures in a gang, and endings of Jobs whose pods are gone."""

from typing import Any

import pytest
from simulation.run_objects import (
    COMPLETE,
    after,
    build_job,
    build_pod,
    failed_condition,
    failure_target,
)
from simulation.simulated_cluster import DIGEST, START, failure, success

from tunesmith.api.reasons import RunReason
from tunesmith.decide.conditions import timestamp
from tunesmith.decide.run.endings import (
    CATEGORY_REASONS,
    Ending,
    has_result,
    job_ending,
    lost_pod_ending,
    newest_checkpoint,
    reported_success,
)
from tunesmith.manifests.objects import KubernetesObject
from tunesmith.manifests.result_config_map import AttemptOutcome
from tunesmith_contract.exit_codes import ExitCode, FailureCategory
from tunesmith_contract.report import Checkpoint, Outcome, RunReport
from tunesmith_contract.stages import Stage

DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "message": "preempted",
}
EVICTED = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}


def ending_of(*pods: KubernetesObject, message: str = "") -> Ending:
    """Ending of a failed Job with these pods."""
    ending = job_ending(build_job(failed_condition(message)), pods, Stage.TRAIN)
    assert ending is not None
    return ending


def reported(category: FailureCategory, index: int = 0) -> KubernetesObject:
    """A pod that ended with a report of this failure."""
    return build_pod(1, failure("train", category, f"{category} of pod {index}"), index=index)


def preempted(index: int = 0) -> KubernetesObject:
    """A pod that stopped because it was asked to."""
    return build_pod(ExitCode.PREEMPTED, RunReport(stage=Stage.TRAIN, outcome=Outcome.PREEMPTED), index=index)


def test_a_live_job_has_no_ending() -> None:
    assert job_ending(build_job(), [build_pod()], Stage.TRAIN) is None


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        (FailureCategory.USER_ERROR, FailureCategory.DATA_ERROR),
        (FailureCategory.DATA_ERROR, FailureCategory.OUT_OF_MEMORY),
        (FailureCategory.OUT_OF_MEMORY, FailureCategory.INFRASTRUCTURE),
        (FailureCategory.OUT_OF_MEMORY, FailureCategory.COMMUNICATION),
        (FailureCategory.INFRASTRUCTURE, FailureCategory.COMMUNICATION),
    ],
)
def test_the_root_cause_wins_whichever_pod_it_is_in(winner: FailureCategory, loser: FailureCategory) -> None:
    for first, second in ((winner, loser), (loser, winner)):
        ending = ending_of(reported(first, 0), reported(second, 1))
        assert ending.failure is not None
        assert (ending.failure.category, ending.reason) == (winner, CATEGORY_REASONS[winner])


def test_a_root_cause_wins_over_a_disruption_and_a_disruption_over_a_crash() -> None:
    taken = build_pod(137, index=1, conditions=(DISRUPTED,))
    data = ending_of(taken, reported(FailureCategory.DATA_ERROR))
    assert (data.outcome, data.reason) == (AttemptOutcome.FAILED, RunReason.DATA_ERROR)
    crash = ending_of(taken, reported(FailureCategory.INFRASTRUCTURE))
    assert crash.failure is not None
    assert (crash.outcome, crash.failure.message) == (AttemptOutcome.DISRUPTED, "preempted")


def test_a_crash_wins_over_pods_that_stopped_and_these_over_lost_partners() -> None:
    crash = ending_of(preempted(), build_pod(134, "core dumped", index=1))
    assert crash.failure is not None
    assert (crash.reason, crash.failure.log) == (RunReason.INFRASTRUCTURE, "core dumped")
    stopped = ending_of(preempted(), reported(FailureCategory.COMMUNICATION, 1))
    assert stopped.outcome is AttemptOutcome.DISRUPTED
    lost = ending_of(reported(FailureCategory.COMMUNICATION))
    assert (lost.outcome, lost.reason) == (AttemptOutcome.FAILED, RunReason.COMMUNICATION)


def test_of_several_crashes_the_one_with_a_log_is_shown() -> None:
    ending = ending_of(build_pod(134), build_pod(139, "segmentation fault", index=1))
    assert ending.failure is not None
    assert (ending.failure.exit_code, ending.failure.log) == (139, "segmentation fault")


#: Ends of a pod that was asked to stop at 60 s with a grace period of 30 s.
AFTER_DELETION = {
    "killed at the end of its grace period": {"exit_code": 137, "ended_after": 90},
    "ended by a signal that it did not handle": {"exit_code": 143, "ended_after": 61},
    "failed while it stopped": {"exit_code": 1, "ended_after": 65},
    "killed for memory while it saved": {"exit_code": 137, "reason": "OOMKilled", "ended_after": 70},
    "not found by its kubelet": {
        "exit_code": 137,
        "reason": "ContainerStatusUnknown",
        "ended_after": None,
        "phase": "Failed",
    },
    "reported a fault of its own": {
        "exit_code": ExitCode.INTERNAL_ERROR,
        "report": failure("train", "InternalError"),
        "ended_after": 63,
    },
    "saved its state": {"exit_code": ExitCode.PREEMPTED, "ended_after": 70},
    "never ran": {"phase": "Failed", "containerStatuses": []},
    "not yet seen to end": {"phase": "Running"},
}


@pytest.mark.parametrize("end", AFTER_DELETION.values(), ids=AFTER_DELETION)
def test_a_deleted_pod_is_a_disruption_however_it_ends(end: dict[str, Any]) -> None:
    ending = ending_of(build_pod(deleted_after=60, **end))
    assert (ending.outcome, ending.reason) == (AttemptOutcome.DISRUPTED, RunReason.DISRUPTED)
    assert ending.failure is not None
    assert "pod" in ending.failure.message.lower()


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (build_pod(134, deleted_after=101), RunReason.INFRASTRUCTURE),
        (build_pod(137, reason="OOMKilled", deleted_after=101), RunReason.OUT_OF_MEMORY),
        (build_pod(11, failure("train", "DataError"), deleted_after=101), RunReason.DATA_ERROR),
    ],
)
def test_a_pod_that_failed_before_it_was_deleted_has_failed(pod: KubernetesObject, reason: str) -> None:
    ending = ending_of(pod)
    assert (ending.outcome, ending.reason) == (AttemptOutcome.FAILED, reason)


@pytest.mark.parametrize("end", AFTER_DELETION.values(), ids=AFTER_DELETION)
@pytest.mark.parametrize(
    "partner",
    [
        # Ended by the Job, which deletes all others once one has ended.
        {"exit_code": ExitCode.PREEMPTED, "deleted_after": 92, "ended_after": 99},
        {"exit_code": 137, "deleted_after": 92, "ended_after": 122},
        {"deleted_after": 92},
        # By themselves, when the deleted one was gone.
        {"exit_code": ExitCode.COMMUNICATION, "ended_after": 91},
        {"exit_code": 134, "ended_after": 91},
        {"exit_code": 0, "ended_after": 90},
    ],
)
def test_a_deleted_pod_is_the_cause_of_what_its_partners_do(
    end: dict[str, Any], partner: dict[str, Any]
) -> None:
    pods = [build_pod(index=0, **partner), build_pod(index=1, deleted_after=60, **end)]
    job = build_job(failure_target(91), failed_condition(), ended_after=125)
    ending = job_ending(job, pods, Stage.TRAIN)
    assert ending is not None
    assert ending.outcome is AttemptOutcome.DISRUPTED


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ({"exit_code": 134, "ended_after": 60}, RunReason.INFRASTRUCTURE),
        ({"exit_code": ExitCode.COMMUNICATION, "ended_after": 60}, RunReason.COMMUNICATION),
        (
            {"exit_code": 11, "report": failure("train", "DataError"), "ended_after": 60},
            RunReason.DATA_ERROR,
        ),
    ],
)
@pytest.mark.parametrize("code", [137, 143, ExitCode.PREEMPTED])
def test_pods_that_the_job_deletes_are_no_disruption(first: dict[str, Any], reason: str, code: int) -> None:
    """A gang that fails by itself each time must reach its limit."""
    pods = [build_pod(index=0, **first), build_pod(code, index=1, deleted_after=61, ended_after=91)]
    for decided in (60, 61):
        job = build_job(failure_target(decided), failed_condition(), ended_after=95)
        ending = job_ending(job, pods, Stage.TRAIN)
        assert ending is not None
        assert (ending.outcome, ending.reason) == (AttemptOutcome.FAILED, reason)


def test_a_pod_that_knows_the_cause_is_heard_though_the_job_deletes_it() -> None:
    pods = [
        build_pod(ExitCode.COMMUNICATION, index=0, ended_after=60),
        build_pod(11, failure("train", "DataError"), index=1, deleted_after=61, ended_after=63),
    ]
    job = build_job(failure_target(60), failed_condition(), ended_after=64)
    ending = job_ending(job, pods, Stage.TRAIN)
    assert ending is not None
    assert ending.reason == RunReason.DATA_ERROR


def test_what_the_job_saw_of_a_pod_that_is_gone_counts_before_the_ends_that_follow_from_it() -> None:
    partner = build_pod(137, deleted_after=61, ended_after=91)
    message = "Container trainer for pod team/job-1-1-abc failed with exit code {} matching FailJob rule"
    data = ending_of(partner, message=message.format(int(ExitCode.DATA_ERROR)))
    assert (data.outcome, data.reason) == (AttemptOutcome.FAILED, RunReason.DATA_ERROR)
    # The pod that is told of is the deleted one itself.
    own = build_pod(ExitCode.INTERNAL_ERROR, deleted_after=61, ended_after=63)
    assert ending_of(own, message=message.format(16)).outcome is AttemptOutcome.DISRUPTED
    saved = ending_of(partner, message=message.format(int(ExitCode.PREEMPTED)))
    assert saved.outcome is AttemptOutcome.DISRUPTED


def test_a_pod_of_before_a_suspension_says_nothing_of_the_end() -> None:
    before = build_pod(137, deleted_after=10, ended_after=40)
    crashed = build_pod(134, "core dumped")
    crashed["metadata"] |= {"name": "again", "uid": "again", "creationTimestamp": timestamp(after(60))}
    ending = ending_of(before, crashed)
    assert ending.outcome is AttemptOutcome.FAILED
    crashed["status"] = build_pod(ExitCode.PREEMPTED)["status"]
    assert ending_of(before, crashed).outcome is AttemptOutcome.DISRUPTED


def test_a_kill_for_memory_needs_no_report() -> None:
    ending = ending_of(build_pod(137, reason="OOMKilled"))
    assert ending.failure is not None
    assert (ending.reason, ending.failure.reason) == (RunReason.OUT_OF_MEMORY, "OOMKilled")
    assert not ending.retryable


def test_an_eviction_for_want_of_a_resource_is_a_failure_of_the_attempt() -> None:
    pod = build_pod(137, conditions=(EVICTED,), phase="Failed", message="The node was low on disk.")
    pod["status"]["reason"] = "Evicted"
    ending = ending_of(pod)
    assert ending.failure is not None
    assert (ending.outcome, ending.failure.reason) == (AttemptOutcome.FAILED, "Error")
    assert ending.failure.message == "The node was low on disk. Exit code 137."
    pod["metadata"]["deletionTimestamp"] = timestamp(after(50))
    assert ending_of(pod).outcome is AttemptOutcome.FAILED
    pod["status"]["reason"] = "NodeShutdown"
    assert ending_of(pod).outcome is AttemptOutcome.DISRUPTED


def test_a_report_of_another_stage_does_not_count() -> None:
    ending = ending_of(build_pod(ExitCode.USER_ERROR, failure("prepare", "DataError")))
    assert ending.failure is not None
    assert (ending.failure.category, ending.failure.reason) == (FailureCategory.USER_ERROR, "Error")


@pytest.mark.parametrize(
    ("message", "outcome", "category"),
    [
        ("Container trainer failed with exit code 64", AttemptOutcome.FAILED, FailureCategory.USER_ERROR),
        ("Pod has condition DisruptionTarget", AttemptOutcome.DISRUPTED, FailureCategory.INFRASTRUCTURE),
        (
            "Job has reached the specified backoff limit",
            AttemptOutcome.DISRUPTED,
            FailureCategory.INFRASTRUCTURE,
        ),
    ],
)
def test_without_pods_the_job_s_own_message_counts(
    message: str, outcome: AttemptOutcome, category: FailureCategory
) -> None:
    code = int(ExitCode.USER_ERROR)
    ending = ending_of(message=message.replace("64", str(code)))
    assert ending.failure is not None
    assert (ending.outcome, ending.failure.category) == (outcome, category)


def test_a_complete_job_succeeds_by_the_report_of_any_pod() -> None:
    job = build_job(COMPLETE)
    ending = job_ending(job, [build_pod(0, index=1), build_pod(0, success("train"))], Stage.TRAIN)
    assert ending is not None
    assert ending.outcome is AttemptOutcome.SUCCEEDED
    assert ending.report == success("train")


def test_a_complete_job_without_a_report() -> None:
    job = build_job(COMPLETE)
    foreign = job_ending(job, [build_pod(0, "hello")], Stage.TRAIN)
    assert foreign is not None
    assert foreign.failure is not None
    assert (foreign.outcome, foreign.failure.reason) == (AttemptOutcome.FAILED, "NoReport")
    for pods in ([], [preempted()], [build_pod(0, index=1)]):
        vanished = job_ending(job, pods, Stage.TRAIN)
        assert vanished is not None
        assert vanished.outcome is AttemptOutcome.DISRUPTED


def test_a_lost_pod_is_a_disruption_unless_another_failed_before() -> None:
    lost = build_pod(index=1)
    failing = {"type": "FailureTarget", "status": "True", "message": ""}
    assert lost_pod_ending(build_job(), [lost], Stage.TRAIN).outcome is AttemptOutcome.DISRUPTED
    job = build_job()
    job["status"]["conditions"] = [failing]
    ending = lost_pod_ending(job, [reported(FailureCategory.DATA_ERROR), lost], Stage.TRAIN)
    assert ending.reason == RunReason.DATA_ERROR


def test_the_newest_checkpoint_of_all_pods_counts() -> None:
    def stopped(step: int, index: int) -> KubernetesObject:
        checkpoint = Checkpoint(step=step, uri=f"pvc://w/{step}", digest=DIGEST, time=START)
        report = RunReport(stage=Stage.TRAIN, outcome=Outcome.PREEMPTED, checkpoint=checkpoint)
        return build_pod(ExitCode.PREEMPTED, report, index=index)

    newest = newest_checkpoint([stopped(200, 0), stopped(300, 1), build_pod(1, "no report", index=2)])
    assert newest is not None
    assert newest.step == 300
    assert newest_checkpoint([]) is None


def test_only_a_report_with_the_stage_s_result_is_a_success() -> None:
    for stage in Stage:
        assert has_result(success(stage))
        assert not has_result(RunReport(stage=stage, outcome=Outcome.SUCCEEDED))
    assert reported_success([build_pod(0, success("prepare"))], Stage.TRAIN) is None
