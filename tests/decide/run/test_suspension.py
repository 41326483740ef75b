"""Holding a run: by its Job, or through Kueue's Workload; what ran before is counted."""

import json
from typing import Any

import pytest
from simulation.simulated_cluster import fine_tune_job
from simulation.training_world import World, training

from tunesmith.decide.plan import Patch

QUEUE = "kueue.x-k8s.io/queue-name"


def queued() -> World:
    """A job that a queue lets train, with its Workload."""
    cluster = World(fine_tune_job())
    cluster.resource["metadata"]["labels"] = {QUEUE: "gpus"}
    cluster.reconcile()
    cluster.succeed("prepare")
    job = cluster.job()
    cluster.workloads = (workload(job),)
    cluster.objects[("Workload", "job-x")] = cluster.workloads[0]
    return cluster


def workload(job: dict[str, Any]) -> dict[str, Any]:
    """Kueue's Workload of a Job."""
    owners = [{"uid": job["metadata"]["uid"], "kind": "Job"}]
    metadata = {"name": "job-x", "namespace": "team", "ownerReferences": owners}
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata, "spec": {}}


def suspend(cluster: World, wanted: bool) -> Any:
    """Write spec.suspend and reconcile."""
    cluster.resource["spec"]["suspend"] = wanted
    return cluster.reconcile()


def test_a_queued_job_is_held_through_its_workload() -> None:
    cluster = queued()
    job = cluster.job()
    plan = suspend(cluster, True)
    (patch,) = plan.actions
    assert isinstance(patch, Patch)
    assert (patch.kind, patch.name, patch.patch["spec"]) == ("Workload", "job-x", {"active": False})
    assert "suspend" not in job["spec"]
    assert cluster.status["phase"] == "Training"
    assert not cluster.reconcile().actions
    job["spec"]["suspend"] = True  # by Kueue, which evicts what is not active
    cluster.reconcile()
    assert cluster.status["phase"] == "Suspended"
    (patch,) = suspend(cluster, False).actions
    assert patch.patch == {
        "metadata": {"annotations": {"tunesmith.dev/held": None}},
        "spec": {"active": True},
    }
    assert cluster.status["phase"] == "Queued"
    assert job["spec"]["suspend"] is True


def test_a_workload_that_others_hold_is_left_alone() -> None:
    cluster = queued()
    cluster.objects[("Workload", "job-x")]["spec"]["active"] = False
    cluster.job()["spec"]["suspend"] = True
    cluster.reconcile()
    assert not cluster.reconcile().actions
    assert not suspend(cluster, True).actions
    assert not suspend(cluster, False).actions


def unmet(kind: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": "False", "reason": "Pending", "message": message}


def test_a_queued_job_repeats_what_kueue_says() -> None:
    cluster = queued()
    cluster.job()["spec"]["suspend"] = True
    cluster.reconcile()
    waits = "Attempt 1 of train waits in the queue gpus"
    command = "kubectl describe workloads -n team"
    assert cluster.condition("Ready")["message"] == f"{waits}. {command} tells for what."
    told = cluster.objects[("Workload", "job-x")]["status"] = {
        "conditions": [
            unmet("Admitted", "The workload has no reservation"),
            unmet("QuotaReserved", "insufficient unused quota for nvidia.com/gpu,\n8 more needed"),
        ]
    }
    plan = cluster.reconcile()
    words = "insufficient unused quota for nvidia.com/gpu, 8 more needed"
    assert cluster.condition("Ready")["message"] == f'{waits}: "{words}". {command} tells more.'
    assert plan.requeue_after == 30
    told["conditions"][1] = unmet("QuotaReserved", "ä" * 1000)
    cluster.reconcile()
    message = cluster.condition("Ready")["message"]
    assert "ä…" in message
    assert len(message.encode()) < 520
    told["conditions"][1] |= {"status": "True"}
    cluster.pass_time(3600)
    plan = cluster.reconcile()
    assert "The workload has no reservation" in cluster.condition("Ready")["message"]
    assert plan.requeue_after == 600


def test_without_a_workload_it_is_said_and_the_job_is_left_to_its_queue() -> None:
    cluster = queued()
    cluster.workloads = None
    assert not suspend(cluster, True).actions
    assert "Workload" in cluster.condition("Ready")["message"]


@pytest.mark.parametrize("by_queue", [False, True])
def test_what_ran_before_it_was_held_counts(by_queue: bool) -> None:
    cluster = queued() if by_queue else training(compute={"gpusPerNode": 2})
    gpus = 1 if by_queue else 2
    cluster.pass_time(100)
    if by_queue:
        job = cluster.job()
        job["spec"]["suspend"] = True
        cluster.finish_pod(job, 143)
        cluster.reconcile()
    else:
        suspend(cluster, True)
    cluster.run_job_controller()
    noted = json.loads(cluster.job()["metadata"]["annotations"]["tunesmith.dev/used"])
    assert (noted["active"], noted["gpu"]) == (100, gpus * 100)
    cluster.pass_time(10_000)
    cluster.reconcile()
    if by_queue:
        cluster.job()["spec"]["suspend"] = False
        cluster.run_job_controller()
    else:
        suspend(cluster, False)
    cluster.pass_time(50)
    cluster.succeed("train")
    assert cluster.status["cost"]["gpuSeconds"] == str(gpus * 150)


def test_time_before_it_was_held_counts_against_the_deadline() -> None:
    cluster = training(activeDeadlineSeconds=100)
    cluster.pass_time(80)
    suspend(cluster, True)
    cluster.pass_time(10**5)
    suspend(cluster, False)
    cluster.pass_time(19)
    assert cluster.reconcile().requeue_after == 1
    cluster.pass_time(1)
    (stop,) = cluster.reconcile().actions
    assert isinstance(stop, Patch)
    assert stop.patch == {"spec": {"activeDeadlineSeconds": 1}}


def test_what_is_held_past_its_limit_ends() -> None:
    cluster = training(activeDeadlineSeconds=100)
    cluster.pass_time(99)
    suspend(cluster, True)
    cluster.resource["spec"]["activeDeadlineSeconds"] = 60
    cluster.reconcile()
    assert cluster.condition("Stalled")["reason"] == "DeadlineExceeded"
    assert not cluster.live_jobs()


def test_a_pod_that_waits_for_a_node_does_not_use_up_its_time() -> None:
    cluster = training(activeDeadlineSeconds=100)
    refused = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient nvidia.com/gpu"}
    cluster.pod_of(cluster.job())["status"] = {"phase": "Pending", "conditions": [refused]}
    cluster.pass_time(10**5)
    assert not cluster.reconcile().actions
    assert cluster.status["phase"] == "Queued"
