"""Quotas that count limits, and pools of GPU nodes, on a real API server with the real scheduler."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane.cluster_runs import Runs
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_adapters import Serving
from simulation.serving_world import build_adapter
from simulation.simulated_cluster import GENERATE, fine_tune_job, success

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

KIND = "FineTuneJob"
LIMITED = {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"cpu": "4", "memory": "16Gi"}}
COUNTED = {"requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}
GKE_POOL = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def limit_namespace(server: ControlPlane, namespace: str) -> None:
    """A quota of a team that counts requests and limits; there is no LimitRange."""
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    hard = {name: "64" if name.endswith("cpu") else "512Gi" for name in COUNTED}
    hard["requests.nvidia.com/gpu"] = "8"
    server.api.create(path, {"metadata": {"name": "team"}, "spec": {"hard": hard}})
    eventually(lambda: server.api.get(f"{path}/team").get("status", {}).get("hard"), what="the quota")


@pytest.fixture
def runs(server: ControlPlane, operator: RestartableOperator, tmp_path: Path) -> Runs:
    """A namespace with claims, rows, and the teacher's key."""
    made = Runs(server, tmp_path)
    key = {"metadata": {"name": "teacher"}, "stringData": {"token": "sesame"}}
    server.api.create(f"/api/v1/namespaces/{made.namespace}/secrets", key)
    rows = {"metadata": {"name": "rows"}, "data": {"train.jsonl": "{}"}}
    server.api.create(f"/api/v1/namespaces/{made.namespace}/configmaps", rows)
    return made


@pytest.fixture
def pool(server: ControlPlane) -> Iterator[None]:
    """A pool of tainted GPU nodes, and a node without GPUs."""
    server.add_node("pool-l4", labels=GKE_POOL)
    server.add_node("cpu-only", gpus=0)
    server.api.merge("/api/v1/nodes/pool-l4", {"spec": {"taints": [TAINT]}})
    yield
    for name in ("pool-l4", "cpu-only"):
        server.api.delete(f"/api/v1/nodes/{name}")


def test_all_pods_of_a_job_are_made_under_a_quota_that_counts_limits(runs: Runs) -> None:
    limit_namespace(runs.server, runs.namespace)
    suite = {"name": "code", "dataset": {"uri": "pvc://data/test.jsonl"}, "metrics": [{"type": "CodeTests"}]}
    evaluation: dict[str, Any] = {
        "suites": [suite],
        "gates": [{"suite": "code", "metric": "CodeTests", "expect": "Better", "margin": "0.1"}],
        "compute": {"gpus": 1, "resources": LIMITED},
    }
    compute = {"gpusPerNode": 1, "resources": LIMITED}
    body = fine_tune_job(compute=compute, dataset={"generate": GENERATE}, evaluation=evaluation)
    made = runs.create(body, "limited")
    for stage in ("generate", "prepare", "train"):
        runs.pod(made, stage, 1)
        runs.finish(made, stage, 1, 0, success(stage))
    runs.wait(KIND, "limited", "Succeeded")
    pod = runs.pod(runs.read("EvalRun", "limited"), "evaluate", 1)
    assert [each["name"] for each in pod["spec"]["initContainers"]] == ["sandbox", "pause"]


def test_serving_pods_are_made_under_a_quota_that_counts_limits(
    server: ControlPlane, operator: RestartableOperator, tmp_path: Path
) -> None:
    serving = Serving(server, tmp_path, operator)
    limit_namespace(server, serving.namespace)
    serving.apply(build_adapter("one"), engine={"gpus": 1, "resources": LIMITED})
    server.wait_for_pod(serving.namespace, "tunesmith.dev/stage=serving")


def test_rows_are_prepared_on_nodes_without_gpus_and_training_has_the_pool(runs: Runs, pool: None) -> None:
    body = fine_tune_job(
        baseModel={"uri": "hf://example-org/example-model@main"},
        compute={"gpusPerNode": 1, "template": {"nodeSelector": GKE_POOL}},
        output={"uri": "s3://bucket/depot"},
        workspace={"uri": "s3://bucket/work"},
    )
    made = runs.create(body, "pooled")
    prepare = runs.pod(made, "prepare", 1)
    assert prepare["spec"]["nodeName"] == "cpu-only"
    runs.finish(made, "prepare", 1, 0, success("prepare"))
    assert runs.pod(made, "train", 1)["spec"]["nodeName"] == "pool-l4"
