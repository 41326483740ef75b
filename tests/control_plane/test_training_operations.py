"""Budgets, chains, queues, Secrets and lost nodes, on a real API server with real controllers."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_jobs import wait_established
from simulation.simulated_cluster import fine_tune_job, success
from simulation.training_world import preempted

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.exit_codes import ExitCode

KIND = "FineTuneJob"
QUEUE = "kueue.x-k8s.io/queue-name"
LOST_SECONDS = 3

WORKLOAD_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "workloads.kueue.x-k8s.io",
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/kueue"},
    },
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "Workload", "plural": "workloads", "singular": "workload"},
        "versions": [
            {
                "name": "v1beta2",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"active": {"type": "boolean", "default": True}},
                            }
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def patient(server: ControlPlane, operator: RestartableOperator) -> Iterator[None]:
    """The operator gives lost pods up soon."""
    operator.stop()
    operator.start(f"--lost-pod-seconds={LOST_SECONDS}")
    yield
    operator.stop()
    operator.start()


@pytest.fixture
def runs(server: ControlPlane, operator: RestartableOperator, tmp_path: Path) -> Runs:
    """A namespace with claims and rows."""
    made = Runs(server, tmp_path)
    rows = {"metadata": {"name": "rows"}, "data": {"train.jsonl": "{}"}}
    server.api.create(f"/api/v1/namespaces/{made.namespace}/configmaps", rows)
    return made


def train(runs: Runs, name: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A job that trains."""
    made = runs.create(fine_tune_job(**spec), name, labels)
    runs.finish(made, "prepare", 1, 0, success("prepare"))
    runs.wait(KIND, name, "Training")
    runs.pod(made, "train", 1)
    return made


def job_name(runs: Runs, made: dict[str, Any], stage: str = "train-1") -> str:
    return next(name for name in runs.children(made) if name.startswith("jobs/") and name.endswith(stage))


def test_the_budget_ends_it_with_a_checkpoint(runs: Runs) -> None:
    budget = {"gpuHours": "0.005", "pricePerGpuHour": "100", "currency": "EUR"}
    made = train(runs, "dear", budget=budget)
    pod = runs.pod(made, "train", 1)
    assert pod["spec"]["activeDeadlineSeconds"] == 18
    runs.server.hold_pod(runs.namespace, pod["metadata"]["name"])
    job = job_name(runs, made)
    eventually(lambda: runs.read_child(job)["spec"].get("activeDeadlineSeconds") == 1, 60, what="the stop")
    assert runs.status(KIND, "dear")["phase"] == "Training"
    runs.finish(made, "train", 1, ExitCode.PREEMPTED, preempted(40))
    runs.server.release_pod(runs.namespace, pod["metadata"]["name"])
    status = runs.wait(KIND, "dear", "Failed")
    assert condition(status, "Stalled")["reason"] == "BudgetExhausted"
    assert "The checkpoint of step 40 is kept" in status["failure"]["message"]
    assert 0.5 <= float(status["cost"]["amount"]) < 2


def test_a_job_begins_when_the_earlier_one_has_succeeded(runs: Runs) -> None:
    first = train(runs, "first")
    second = runs.create(fine_tune_job(baseModel={"fineTuneJobRef": {"name": "first"}}), "second")
    runs.wait_for_reason(KIND, "second", "WaitingForJob")
    assert not runs.children(second)
    runs.finish(first, "train", 1, 0, success("train"))
    runs.wait(KIND, "second", "Preparing", timeout=20)
    runs.finish(second, "prepare", 1, 0, success("prepare"))
    status = runs.wait(KIND, "second", "Training")
    artifact = runs.status(KIND, "first")["artifact"]
    assert status["resolved"]["initialDigest"] == artifact["digest"]
    assert status["resolved"]["baseModel"] == "pvc://models/tiny"


def test_secrets_are_files_of_their_stage_and_a_missing_one_is_named(runs: Runs) -> None:
    train_rows = {"uri": "s3://rows/train.jsonl", "secretRef": {"name": "rows-key"}}
    spec = fine_tune_job(dataset={"train": train_rows, "validation": {"fraction": "0.1"}})
    made = runs.create(spec, "keys")
    pod = runs.pod(made, "prepare", 1)
    name = pod["metadata"]["name"]
    assert {"secretName": "rows-key", "defaultMode": 0o440} in [
        volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume
    ]
    event = {
        "metadata": {"name": "mount", "namespace": runs.namespace},
        "regarding": {"kind": "Pod", "name": name, "namespace": runs.namespace},
        "reason": "FailedMount",
        "note": 'MountVolume.SetUp failed for volume "secret-train" : secret "rows-key" not found',
        "type": "Warning",
        "action": "Mount",
        "reportingController": "kubelet",
        "reportingInstance": "gpu-0",
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    runs.server.api.create(f"/apis/events.k8s.io/v1/namespaces/{runs.namespace}/events", event)
    runs.server.set_pod_waiting(runs.namespace, name, "ContainerCreating", "")
    # The events of a pod are read once it has hung for half a minute.
    told = runs.wait_for_reason(KIND, "keys", "SecretNotFound", timeout=90)
    assert told["message"].endswith("create it, or correct spec.dataset.train.secretRef.name.")


def test_claims_that_nodes_can_not_share_are_refused(runs: Runs) -> None:
    runs.create(fine_tune_job(compute={"nodes": 2, "gpusPerNode": 1}), "wide")
    status = runs.wait(KIND, "wide", "Failed")
    assert condition(status, "Stalled")["reason"] == "ClaimNotShared"
    assert 'PersistentVolumeClaim "artifacts" is ReadWriteOnce' in status["failure"]["message"]


def test_a_queued_job_is_held_through_its_workload(runs: Runs) -> None:
    runs.server.apply(WORKLOAD_CRD)
    wait_established(runs.server, "workloads.kueue.x-k8s.io")
    made = train(runs, "queued", {QUEUE: "gpus"})
    path = job_name(runs, made)
    job = runs.read_child(path)
    assert job["metadata"]["labels"][QUEUE] == "gpus"
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
    }
    labels = {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}
    metadata = {"name": "workload", "labels": labels, "ownerReferences": [owner]}
    workloads = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{runs.namespace}/workloads"
    workload = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata, "spec": {}}
    eventually(lambda: runs.server.api.create(workloads, workload), what="the Workload")

    def is_active() -> bool:
        active: bool = runs.server.api.get(f"{workloads}/workload")["spec"]["active"]
        return active

    def play_kueue(suspend: bool) -> None:
        runs.server.api.merge(
            f"/apis/batch/v1/namespaces/{runs.namespace}/{path}", {"spec": {"suspend": suspend}}
        )

    runs.patch(KIND, "queued", {"spec": {"suspend": True}})
    eventually(lambda: not is_active(), what="the Workload's end")
    assert runs.read_child(path)["spec"]["suspend"] is False
    started = datetime.fromisoformat(runs.pod(made, "train", 1)["status"]["startTime"])
    eventually(lambda: datetime.now(UTC) - started > timedelta(seconds=3), what="something to note")
    play_kueue(True)
    runs.wait(KIND, "queued", "Suspended")

    def is_noted() -> bool:
        return "tunesmith.dev/used" in runs.read_child(path)["metadata"].get("annotations", {})

    eventually(is_noted, what="the note of what ran")
    runs.patch(KIND, "queued", {"spec": {"suspend": False}})
    eventually(is_active, what="the Workload's return")
    runs.wait(KIND, "queued", "Queued")
    play_kueue(False)
    runs.wait(KIND, "queued", "Training")
    runs.finish(made, "train", 1, 0, success("train"))
    runs.wait(KIND, "queued", "Succeeded")


@pytest.mark.usefixtures("patient")
def test_a_lost_node_does_not_hold_up_the_next_attempt(runs: Runs) -> None:
    made = train(runs, "lost")
    pod = runs.pod(made, "train", 1)["metadata"]
    runs.server.hold_pod(runs.namespace, pod["name"])
    runs.server.api.delete(f"/api/v1/namespaces/{runs.namespace}/pods/{pod['name']}?gracePeriodSeconds=1")
    second = runs.pod(made, "train", 2)
    old = runs.read_child(f"pods/{pod['name']}")
    assert "deletionTimestamp" in old["metadata"]
    assert old["status"]["phase"] == "Running"
    [owner] = second["metadata"]["ownerReferences"]
    assert owner["uid"] != pod["ownerReferences"][0]["uid"]
    variables = {item["name"]: item.get("value") for item in second["spec"]["containers"][0]["env"]}
    assert variables["TUNESMITH_ATTEMPT"] == "2"
    runs.finish(made, "train", 2, 0, success("train"))
    status = runs.wait(KIND, "lost", "Succeeded")
    assert status["disruptions"] == 1
    runs.server.release_pod(runs.namespace, pod["name"])
