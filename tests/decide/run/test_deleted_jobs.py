"""Jobs and pods that somebody deletes: a disruption with its cost, never the same attempt again."""

import json
from typing import Any

import pytest
from simulation.simulated_cluster import DIGEST, EVALUATION, START, success
from simulation.training_world import World, created, preempted, training, world

from tunesmith.decide.conditions import timestamp
from tunesmith.decide.run.attempts import MAX_DISRUPTIONS
from tunesmith.decide.run.stage import LOST_POD_SECONDS
from tunesmith_contract.exit_codes import ExitCode

TRAIN = "expenses-0f3c9d-train-1"


def record(cluster: World, name: str = "train-1") -> Any:
    """The record of an attempt."""
    return json.loads(cluster.objects[("ConfigMap", f"expenses-0f3c9d-result-{name}")]["data"]["record.json"])


def delete_job(cluster: World, keep_pods: bool = False) -> None:
    """Somebody deletes the Job; its pods go with it at once, or stay for now."""
    name = cluster.job()["metadata"]["name"]
    del cluster.objects[("Job", name)]
    if not keep_pods:
        cluster.objects.pop(("Pod", name), None)


def test_a_job_that_was_deleted_is_a_disruption_and_the_next_attempt_waits() -> None:
    cluster = training()
    cluster.pass_time(600)
    delete_job(cluster)
    plan = cluster.reconcile()
    assert created(plan) == ["expenses-0f3c9d-result-train-1"]
    assert (cluster.status["phase"], cluster.status["disruptions"]) == ("Training", 1)
    assert cluster.condition("Ready")["reason"] == "Disrupted"
    assert "was deleted" in cluster.condition("Ready")["message"]
    assert plan.requeue_after == 10
    assert not cluster.live_jobs()
    cluster.pass_time(10)
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"] == "expenses-0f3c9d-train-2"


def test_deleting_again_and_again_takes_ever_longer_and_ends() -> None:
    cluster = training(backoffLimit=0)
    names, waits = set(), []
    while cluster.status["phase"] == "Training":
        name = cluster.job()["metadata"]["name"]
        assert name not in names
        names.add(name)
        cluster.pass_time(60)
        delete_job(cluster)
        plan = cluster.reconcile()
        waits.append(plan.requeue_after or 0)
        cluster.pass_time(waits[-1])
        cluster.reconcile()
    assert len(names) == MAX_DISRUPTIONS
    assert waits[:3] == [10, 20, 40]
    assert cluster.condition("Stalled")["reason"] == "TooManyDisruptions"


def test_the_pods_of_a_deleted_job_are_waited_for_and_paid() -> None:
    cluster = training()
    cluster.pass_time(600)
    job = cluster.job()
    delete_job(cluster, keep_pods=True)
    cluster.delete_pod(job)
    plan = cluster.reconcile()
    assert not created(plan)
    assert plan.requeue_after is not None
    cluster.pass_time(20)
    cluster.finish_pod(job, ExitCode.PREEMPTED, preempted(40))
    cluster.reconcile()
    assert cluster.status["cost"]["gpuSeconds"] == "620"
    assert record(cluster)["checkpoint"]["step"] == 40
    assert record(cluster)["ranSeconds"] == 620
    assert record(cluster)["startedAt"] == "2030-01-01T00:00:00Z"


def test_a_budget_is_used_up_by_attempts_whose_jobs_were_deleted() -> None:
    cluster = training(budget={"gpuHours": "1"})
    for _ in range(2):
        job = cluster.job()
        cluster.pass_time(1800)
        delete_job(cluster, keep_pods=True)
        cluster.delete_pod(job)
        cluster.finish_pod(job, ExitCode.PREEMPTED)
        cluster.reconcile()
        cluster.pass_time(60)
        cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "BudgetExhausted"


def test_what_ran_unseen_costs_up_to_the_last_update_of_its_pods() -> None:
    cluster = training()
    cluster.pass_time(900)
    update = timestamp(cluster.now)
    cluster.status["progress"] = {"step": 7, "totalSteps": 10, "lastUpdateTime": update}
    cluster.pass_time(5000)
    delete_job(cluster)
    cluster.reconcile()
    assert cluster.status["cost"]["gpuSeconds"] == "900"


def test_a_success_that_was_told_before_the_job_was_deleted_counts() -> None:
    cluster = training()
    cluster.pass_time(60)
    job = cluster.job()
    cluster.finish_pod(job, 0, success("train"))
    delete_job(cluster, keep_pods=True)
    cluster.reconcile()
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["artifact"]["digest"] == DIGEST


def test_a_failure_that_no_retry_cures_counts_too() -> None:
    cluster = training()
    cluster.finish_pod(cluster.job(), ExitCode.DATA_ERROR)
    delete_job(cluster, keep_pods=True)
    cluster.reconcile()
    assert cluster.status["failure"]["category"] == "DataError"


def test_pods_that_were_left_behind_run_to_their_end() -> None:
    cluster = training()
    job = cluster.job()
    delete_job(cluster, keep_pods=True)
    cluster.pass_time(10**4)
    cluster.reconcile()
    assert not cluster.live_jobs()
    cluster.finish_pod(job, 0, success("train"))
    cluster.reconcile()
    assert cluster.status["phase"] == "Succeeded"


def test_pods_that_were_left_behind_before_they_began_are_not_waited_for() -> None:
    cluster = training()
    cluster.pod_of(cluster.job())["status"] = {"phase": "Pending"}
    delete_job(cluster, keep_pods=True)
    cluster.reconcile()
    assert (cluster.status["disruptions"], cluster.status["cost"]["gpuSeconds"]) == (1, "0")


def test_pods_of_a_deleted_job_on_a_silent_node_are_given_up() -> None:
    cluster = training()
    cluster.pass_time(60)
    job = cluster.job()
    delete_job(cluster, keep_pods=True)
    cluster.delete_pod(job)
    cluster.reconcile()
    cluster.pass_time(30 + LOST_POD_SECONDS)
    cluster.reconcile()
    assert cluster.status["disruptions"] == 1
    assert cluster.status["cost"]["gpuSeconds"] == "60"


def test_a_job_deleted_in_the_foreground_is_no_new_attempt_before_it_is_gone() -> None:
    cluster = training()
    cluster.job()["metadata"]["deletionTimestamp"] = timestamp(START)
    assert not created(cluster.reconcile())
    delete_job(cluster)
    assert created(cluster.reconcile()) == ["expenses-0f3c9d-result-train-1"]


def test_a_suspended_job_whose_job_was_deleted_is_recorded_and_goes_on_when_it_may() -> None:
    cluster = training()
    cluster.resource["spec"]["suspend"] = True
    cluster.reconcile()
    delete_job(cluster)
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.status["disruptions"]) == ("Suspended", 1)
    cluster.resource["spec"]["suspend"] = False
    cluster.pass_time(60)
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"].endswith("train-2")


@pytest.mark.parametrize("spec", [{}, {"evaluation": EVALUATION}])
def test_a_job_removed_after_its_end_was_recorded_changes_nothing(spec: dict[str, Any]) -> None:
    cluster = training(**spec)
    cluster.succeed("train")
    before = cluster.status
    for key in [key for key in cluster.objects if key[0] in ("Job", "Pod")]:
        del cluster.objects[key]
    cluster.reconcile()
    assert cluster.status == before


def test_a_job_that_was_never_made_is_made_though_the_operator_died_before() -> None:
    cluster = world()
    cluster.finish(cluster.job(), 0, success("prepare"))
    plan = cluster.plan()
    assert created(plan)[-1] == TRAIN
    cluster.carry_out(plan, killed_after=len(plan.actions) - 1)
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"] == TRAIN
    assert cluster.status["disruptions"] == 0
