"""Training on several nodes, on a real API server with real controllers."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition
from control_plane.restartable_operator import RestartableOperator
from simulation.simulated_cluster import failure, fine_tune_job, success
from simulation.training_world import preempted

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.exit_codes import ExitCode

KIND = "FineTuneJob"


@pytest.fixture
def runs(server: ControlPlane, operator: RestartableOperator, tmp_path: Path) -> Runs:
    """A namespace with claims that several nodes may write to, and rows."""
    made = Runs(server, tmp_path, access_mode="ReadWriteMany")
    rows = {"metadata": {"name": "rows"}, "data": {"train.jsonl": "{}"}}
    server.api.create(f"/api/v1/namespaces/{made.namespace}/configmaps", rows)
    return made


def gang(runs: Runs, name: str, **spec: Any) -> dict[str, Any]:
    """A job that trains on two nodes."""
    made = runs.create(fine_tune_job(compute={"nodes": 2, "gpusPerNode": 1}, **spec), name)
    runs.finish(made, "prepare", 1, 0, success("prepare"))
    runs.wait(KIND, name, "Training")
    return made


def services(runs: Runs, made: dict[str, Any]) -> list[str]:
    return [name for name in runs.children(made) if name.startswith("services/")]


def test_a_gang_finds_its_first_pod_and_ends_with_its_service(runs: Runs) -> None:
    made = gang(runs, "wide")
    pods = [runs.pod(made, "train", 1, index) for index in (0, 1)]
    [name] = services(runs, made)
    service = runs.read_child(name)
    assert service["spec"]["clusterIP"] == "None"
    variables = {item["name"]: item.get("value") for item in pods[1]["spec"]["containers"][0]["env"]}
    first = f"{pods[0]['spec']['hostname']}.{pods[0]['spec']['subdomain']}"
    assert variables["PET_MASTER_ADDR"] == first
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{runs.namespace}/endpointslices"
    selector = f"labelSelector=kubernetes.io/service-name%3D{service['metadata']['name']}"

    def published() -> set[str]:
        found = runs.server.api.get(f"{slices}?{selector}")["items"]
        return {each.get("hostname", "") for item in found for each in item.get("endpoints") or ()}

    hosts = {pod["spec"]["hostname"] for pod in pods}
    eventually(lambda: published() == hosts, what="the names of both pods")
    runs.finish(made, "train", 1, 0, success("train"))
    runs.finish(made, "train", 1, 0, index=1)
    runs.wait(KIND, "wide", "Succeeded")
    eventually(lambda: not services(runs, made), what="the end of the Service")


def test_the_pod_that_knows_the_cause_is_heard_though_the_job_removes_it(runs: Runs) -> None:
    made = gang(runs, "cause")
    knows = runs.pod(made, "train", 1, 0)["metadata"]["name"]
    runs.server.hold_pod(runs.namespace, knows)
    runs.finish(made, "train", 1, ExitCode.COMMUNICATION, failure("train", "Communication"), index=1)
    path = f"pods/{knows}"
    eventually(
        lambda: "deletionTimestamp" in runs.read_child(path)["metadata"], what="the end of its partner"
    )
    runs.finish(made, "train", 1, ExitCode.DATA_ERROR, failure("train", "DataError", "line 7"))
    runs.server.release_pod(runs.namespace, knows)
    status = runs.wait(KIND, "cause", "Failed")
    assert (status["failure"]["category"], status["failure"]["message"]) == ("DataError", "line 7")


def test_a_deleted_pod_spends_no_retry_though_all_had_to_be_killed(runs: Runs) -> None:
    """The Job of the real controller deletes the other pod; neither saves its state in time."""
    made = gang(runs, "deleted", backoffLimit=0)
    names = [runs.pod(made, "train", 1, index)["metadata"]["name"] for index in (0, 1)]
    for name in names:
        runs.server.hold_pod(runs.namespace, name)
    runs.server.api.delete(f"/api/v1/namespaces/{runs.namespace}/pods/{names[1]}")

    def is_deleted(name: str) -> bool:
        return "deletionTimestamp" in runs.read_child(f"pods/{name}")["metadata"]

    for name in reversed(names):
        eventually(partial(is_deleted, name), what="its deletion")
        runs.server.finish_pod(runs.namespace, name, 137)
    for name in names:
        runs.server.release_pod(runs.namespace, name)
    ready = runs.wait_for_reason(KIND, "deleted", "Disrupted")
    assert "was deleted and ended with exit code 137" in ready["message"]
    for index in (0, 1):
        runs.finish(made, "train", 2, 0, success("train") if index == 0 else None, index=index)
    status = runs.wait(KIND, "deleted", "Succeeded")
    assert (status["attempts"], status["disruptions"]) == (3, 1)


def test_out_of_memory_leads_to_a_smaller_micro_batch(runs: Runs) -> None:
    method = {"sft": {"maxLength": 256, "packing": False}}
    made = gang(runs, "large", backoffLimit=0, method=method)
    told = failure("train", "OutOfMemory", "CUDA out of memory")
    runs.finish(made, "train", 1, ExitCode.OUT_OF_MEMORY, told)
    pod = runs.pod(made, "train", 2)
    variables = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    assert variables["TUNESMITH_MICRO_BATCH_SIZE"] == "4"
    assert variables["TUNESMITH_ATTEMPT"] == "2"
    runs.finish(made, "train", 2, ExitCode.OUT_OF_MEMORY, told)
    status = runs.wait(KIND, "large", "Failed")
    assert condition(status, "Stalled")["reason"] == "OutOfMemory"
    assert "maxLength, such as 128" in status["failure"]["message"]


def test_the_deadline_lets_pods_commit_a_checkpoint(runs: Runs) -> None:
    made = gang(runs, "late", activeDeadlineSeconds=60)
    for index in (0, 1):
        runs.server.hold_pod(runs.namespace, runs.pod(made, "train", 1, index)["metadata"]["name"])
    job = next(name for name in runs.children(made) if name.startswith("jobs/") and "train" in name)
    eventually(lambda: runs.read_child(job)["spec"].get("activeDeadlineSeconds") == 1, 90, what="the stop")
    runs.finish(made, "train", 1, ExitCode.PREEMPTED, preempted(40))
    runs.finish(made, "train", 1, ExitCode.PREEMPTED, index=1)
    for name in [name for name in runs.children(made) if name.startswith("pods/") and "train" in name]:
        runs.server.release_pod(runs.namespace, name.removeprefix("pods/"))
    status = runs.wait(KIND, "late", "Failed")
    assert condition(status, "Stalled")["reason"] == "DeadlineExceeded"
    assert "The checkpoint of step 40 is kept" in status["failure"]["message"]
