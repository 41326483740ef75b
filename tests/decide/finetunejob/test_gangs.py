"""Training on several nodes: one Job and one Service per attempt, and the cause found among many endings."""

from typing import Any

import pytest
from simulation.simulated_cluster import failure, success
from simulation.training_world import World, created, preempted, training

from tunesmith.decide.plan import Create, Delete
from tunesmith_contract.exit_codes import ExitCode, FailureCategory

NODES = 2
TARGET = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "drained",
}


def gang(**spec: Any) -> World:
    """A job that trains on two nodes."""
    return training(compute={"nodes": NODES, "gpusPerNode": 4}, **spec)


def end(cluster: World, *ends: tuple[int, Any]) -> None:
    """Let the pods end, in the order of their indexes, and the Job with them."""
    job = cluster.job()
    for index, (code, report) in enumerate(ends):
        cluster.finish_pod(job, code, report, index)
    cluster.end_job(job, max(code for code, _ in ends))
    cluster.reconcile()


def test_an_attempt_is_a_job_and_the_service_of_its_name() -> None:
    cluster = gang()
    name = "expenses-0f3c9d-train-1"
    job, service = cluster.job(), cluster.objects[("Service", name)]
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (2, 2)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert service["metadata"]["ownerReferences"][0]["kind"] == "FineTuneJob"
    pod = job["spec"]["template"]["spec"]
    variables = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert pod["subdomain"] == name
    assert variables["PET_MASTER_ADDR"] == f"{name}-0.{name}"
    assert (variables["PET_NNODES"], variables["TUNESMITH_ATTEMPT"]) == ("2", "1")


def test_the_longest_names_are_still_host_names() -> None:
    longest = len("n" * 40 + "-0f3c9d-train-120-63")
    assert longest <= 63


def test_each_attempt_is_a_new_gang_and_the_old_ones_service_goes() -> None:
    cluster = gang()
    end(cluster, (ExitCode.PREEMPTED, preempted(10)), (ExitCode.PREEMPTED, None))
    assert not cluster.children("Service")
    cluster.pass_time(400)
    plan = cluster.reconcile()
    assert created(plan) == ["expenses-0f3c9d-train-2"] * 2
    kinds = [action.manifest["kind"] if isinstance(action, Create) else action for action in plan.actions]
    assert kinds == ["Service", "Job"]


def test_the_first_pods_report_tells_of_success() -> None:
    cluster = gang()
    end(cluster, (0, success("train")), (0, None))
    assert cluster.status["phase"] == "Succeeded"
    assert not cluster.children("Service")
    assert cluster.status["cost"]["gpuSeconds"] == "0"


@pytest.mark.parametrize("code", [ExitCode.COMMUNICATION, ExitCode.PREEMPTED, ExitCode.INFRASTRUCTURE, 137])
def test_of_several_endings_the_cause_counts(code: int) -> None:
    told = failure("train", "Communication") if code == ExitCode.COMMUNICATION else None
    cluster = gang()
    end(cluster, (code, told), (ExitCode.DATA_ERROR, failure("train", "DataError", "line 7")))
    assert cluster.status["failure"]["category"] == FailureCategory.DATA_ERROR
    assert cluster.status["failure"]["message"] == "line 7"


def test_a_full_disk_is_not_taken_for_the_preemption_that_follows_from_it() -> None:
    cluster = gang(backoffLimit=0)
    end(cluster, (ExitCode.PREEMPTED, preempted(3)), (14, failure("train", "Infrastructure", "disk full")))
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["failure"]["message"] == "disk full"


@pytest.mark.parametrize("code", [ExitCode.COMMUNICATION, ExitCode.INFRASTRUCTURE, 134])
def test_a_pod_that_was_taken_away_is_the_cause_of_what_its_partners_say(code: int) -> None:
    cluster = gang(backoffLimit=0)
    job = cluster.job()
    cluster.finish_pod(job, code)
    cluster.finish_pod(job, 143, index=1)
    cluster.pod_of(job, 1)["status"]["conditions"] = [TARGET]
    cluster.end_job(job, code)
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.status["disruptions"]) == ("Training", 1)
    assert "drained" in cluster.condition("Ready")["message"]


def test_a_pod_that_somebody_deleted_spends_no_retry_though_all_had_to_be_killed() -> None:
    cluster = gang(backoffLimit=0)
    job = cluster.job()
    for index in (1, 0):
        cluster.delete_pod(job, index)
        cluster.pass_time(30)
        cluster.finish_pod(job, 137, index=index)
    cluster.end_job(job, 137)
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.status["disruptions"]) == ("Training", 1)
    assert "was deleted and ended with exit code 137" in cluster.condition("Ready")["message"]


def test_a_silent_node_is_given_up_and_its_pod_is_not_waited_for_any_more() -> None:
    cluster = gang()
    job = cluster.job()
    cluster.finish_pod(job, ExitCode.COMMUNICATION, failure("train", "Communication"))
    cluster.pod_of(job, 1)["metadata"]["deletionTimestamp"] = cluster.now.isoformat()
    cluster.pass_time(299)
    cluster.reconcile()
    assert cluster.status["disruptions"] == 0
    cluster.pass_time(1)
    plan = cluster.reconcile()
    assert [action.kind for action in plan.actions if isinstance(action, Delete)] == ["Job", "Service"]
    assert cluster.status["disruptions"] == 1


def test_a_job_that_fails_for_a_reason_is_not_held_up_by_a_silent_node() -> None:
    cluster = gang()
    job = cluster.job()
    cluster.finish_pod(job, ExitCode.DATA_ERROR, failure("train", "DataError", "line 7"))
    job["status"]["conditions"] = [{"type": "FailureTarget", "status": "True", "message": "exit code 11"}]
    cluster.pod_of(job, 1)["metadata"]["deletionTimestamp"] = cluster.now.isoformat()
    cluster.pass_time(301)
    cluster.reconcile()
    assert cluster.status["failure"]["message"] == "line 7"


def test_all_pods_gpus_count_from_their_start_to_their_end() -> None:
    cluster = gang(backoffLimit=0)
    job = cluster.job()
    cluster.pass_time(100)
    cluster.finish_pod(job, ExitCode.COMMUNICATION, failure("train", "Communication"))
    cluster.pass_time(50)
    cluster.finish_pod(job, ExitCode.PREEMPTED, index=1)
    cluster.end_job(job, ExitCode.COMMUNICATION)
    cluster.reconcile()
    cluster.pass_time(400)
    cluster.reconcile()
    assert cluster.status["cost"]["gpuSeconds"] == str(4 * 100 + 4 * 150)


def test_a_pod_that_vanished_took_its_gpus_as_long_as_its_partner() -> None:
    cluster = gang(backoffLimit=0)
    job = cluster.job()
    cluster.pass_time(100)
    cluster.finish_pod(job, ExitCode.COMMUNICATION, failure("train", "Communication"))
    del cluster.objects[("Pod", cluster.pod_name(job, 1))]
    cluster.end_job(job, ExitCode.COMMUNICATION)
    cluster.reconcile()
    assert cluster.status["cost"]["gpuSeconds"] == str(2 * 4 * 100)
