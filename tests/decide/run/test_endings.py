"""Precedence of failures in a gang, and endings of Jobs whose pods are gone."""

import pytest
from simulation.run_objects import COMPLETE, build_job, build_pod, failed_condition
from simulation.simulated_cluster import DIGEST, START, failure, success

from tunesmith.api.reasons import RunReason
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
