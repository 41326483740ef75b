"""What only time ends, on a real API server with real controllers: begun together, so that all wait together."""

import time
from dataclasses import dataclass
from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition
from control_plane.injection import PROXY, inject_proxy
from control_plane.restartable_operator import RestartableOperator
from simulation.simulated_cluster import DIGEST, eval_run, fine_tune_job, success

from tunesmith.manifests.names import TRAINER_CONTAINER
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

JOB, RUN = "FineTuneJob", "EvalRun"
#: By then the Job controller tries again only every 40 s and more.
REFUSED_SECONDS = 37.0
#: The operator touches a Job without pods every 25 s.
RETRIED_SECONDS = 30.0
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-pods"},
    "spec": {"hard": {"pods": "0"}},
}


@dataclass(frozen=True, slots=True)
class Begun:
    """What waits.

    Attributes:
        refused: a job whose pods a quota refuses, since ``refused_at``.
        held: an EvalRun whose trainer has ended in a pod that a proxy keeps alive.
        beside: one whose pod has a sidecar of Kubernetes.
    """

    quota: Runs
    refused: dict[str, Any]
    refused_at: float
    meshes: dict[bool, Runs]
    held: dict[str, Any]
    beside: dict[str, Any]


def judge(runs: Runs, name: str) -> dict[str, Any]:
    """An EvalRun of an artifact that no job of this cluster made."""
    candidate = {"candidate": {"uri": "pvc://artifacts/mine", "digest": DIGEST}}
    body = eval_run(compute={"gpus": 0}, baseModel={"uri": "pvc://models/tiny"}, **candidate)
    return runs.create(body, name)


def wait_for_proxy(runs: Runs, native: bool) -> None:
    """Return once the policy is in force."""
    kind = "initContainers" if native else "containers"
    pod = {"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "probe", "image": "probe:1"}]}}
    path = f"/api/v1/namespaces/{runs.namespace}/pods?dryRun=All"

    def is_injected() -> bool:
        spec = runs.server.api.create(path, pod)["spec"]
        return PROXY in {each["name"] for each in spec.get(kind, ())}

    eventually(is_injected, what="the policy")


@pytest.fixture(scope="module")
def begun(
    server: ControlPlane, operator: RestartableOperator, tmp_path_factory: pytest.TempPathFactory
) -> Begun:
    """All of it."""
    folder = tmp_path_factory.mktemp("claims")
    quota, meshes = Runs(server, folder), {native: Runs(server, folder) for native in (False, True)}
    path = f"/api/v1/namespaces/{quota.namespace}/resourcequotas"
    server.api.create(path, QUOTA)
    for native, runs in meshes.items():
        inject_proxy(server, runs.namespace, native)
    eventually(lambda: "hard" in server.api.get(f"{path}/no-pods").get("status", {}), what="the quota")
    refused = quota.create(fine_tune_job(compute={"gpusPerNode": 0}), "refused")
    refused_at = time.monotonic()
    for native, runs in meshes.items():
        wait_for_proxy(runs, native)
    held, beside = judge(meshes[False], "held"), judge(meshes[True], "beside")
    pod = meshes[False].pod(held, "evaluate", 1)
    message = success("evaluate").to_termination_message().decode()
    server.finish_container(meshes[False].namespace, pod["metadata"]["name"], TRAINER_CONTAINER, 0, message)
    return Begun(quota, refused, refused_at, meshes, held, beside)


def test_a_pod_with_a_sidecar_of_kubernetes_ends_with_its_trainer(begun: Begun) -> None:
    runs = begun.meshes[True]
    pod = runs.pod(begun.beside, "evaluate", 1)
    assert [each["name"] for each in pod["spec"]["initContainers"]] == [PROXY]
    runs.finish(begun.beside, "evaluate", 1, 0, success("evaluate"))
    status = runs.wait(RUN, "beside", "Succeeded")
    assert (status["verdict"], status["attempts"]) == ("Pass", 1)


def test_a_pod_that_a_proxy_keeps_alive_is_removed_and_its_result_counts(begun: Begun) -> None:
    runs = begun.meshes[False]
    told = runs.wait_for_reason(RUN, "held", "PodKeptAlive")
    assert f'container "{PROXY}" keeps pod' in told["message"]
    status = runs.wait(RUN, "held", "Succeeded", timeout=60)
    assert (status["verdict"], status["attempts"]) == ("Pass", 1)
    runs.wait_for_no_pods(begun.held)


@pytest.mark.long
def test_a_freed_quota_is_used_within_half_a_minute(begun: Begun) -> None:
    runs = begun.quota
    told = runs.wait_for_reason(JOB, "refused", "PodNotCreated")
    assert "exceeded quota: no-pods, requested: pods=1" in told["message"]
    assert condition(runs.status(JOB, "refused"), "Stalled")["status"] == "False"
    eventually(lambda: time.monotonic() >= begun.refused_at + REFUSED_SECONDS, 40, what="the back-off")
    assert not [path for path in runs.children(begun.refused) if path.startswith("pods/")]
    runs.server.api.delete(f"/api/v1/namespaces/{runs.namespace}/resourcequotas/no-pods")
    freed_at = time.monotonic()
    runs.pod(begun.refused, "prepare", 1)
    assert time.monotonic() - freed_at < RETRIED_SECONDS
    runs.finish(begun.refused, "prepare", 1, 0, success("prepare"))
    runs.wait(JOB, "refused", "Training")
