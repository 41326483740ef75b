"""Pods with GPUs on a real API server: the spec is valid, and Pod Security levels admit it as documented."""

import json
from typing import Any

import pytest
from simulation.simulated_cluster import fine_tune_job, success
from simulation.training_world import World

from tunesmith_cluster.client import KubectlError
from tunesmith_cluster.fake import ControlPlane

RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "nvidia"},
    "handler": "nvidia",
}


CLAIMS = [{"name": "gpus", "resourceClaimTemplateName": "eight-gpus"}]


def train_pod(ip_lock: bool = False, **template: Any) -> dict[str, Any]:
    """A pod of a job that sets all that concerns GPUs.

    Args:
        template: further pod settings.
    """
    compute: dict[str, Any] = {
        "nodes": 2,
        "gpusPerNode": 8,
        "network": {"resource": "rdma/hca_shared_devices_a", "count": 2, "ipcLock": ip_lock},
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "OMP_NUM_THREADS", "value": "4"}],
        "cacheVolume": {"claimName": "caches", "subPath": "team-a"},
        "template": {
            "runtimeClassName": "nvidia",
            "schedulerName": "gangs",
            "terminationGracePeriodSeconds": 900,
            **template,
        },
    }
    cluster = World(fine_tune_job(compute=compute))
    cluster.reconcile()
    cluster.end(0, success("prepare"))
    template = cluster.job()["spec"]["template"]
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "train"}}


def create(server: ControlPlane, level: str, pod: dict[str, Any]) -> str:
    flags = ["--dry-run=server", f"--namespace={server.namespace(enforce=level)}", "-f", "-"]
    return server.kubectl("create", *flags, stdin=json.dumps(pod))


def test_levels_admit_pods_with_gpus(server: ControlPlane) -> None:
    server.kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
    assert "created" in create(server, "restricted", train_pod(ip_lock=False))
    for level in ("restricted", "baseline"):
        with pytest.raises(KubectlError) as refused:
            create(server, level, train_pod(ip_lock=True))
        assert '"IPC_LOCK"' in refused.value.stderr
    assert "created" in create(server, "privileged", train_pod(ip_lock=True))


def test_a_pod_with_resource_claims_is_kept_as_it_is_written(server: ControlPlane) -> None:
    server.kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
    flags = [
        "--dry-run=server",
        f"--namespace={server.namespace(enforce='restricted')}",
        "-o",
        "json",
        "-f",
        "-",
    ]
    pod = json.loads(server.kubectl("create", *flags, stdin=json.dumps(train_pod(resourceClaims=CLAIMS))))
    assert pod["spec"]["resourceClaims"] == CLAIMS
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["claims"] == [{"name": "gpus"}]
    assert set(resources["limits"]) == {"rdma/hca_shared_devices_a"}
