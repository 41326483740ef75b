"""The control-plane shape: what tests of the operator rely on."""

from typing import Any

import pytest

from tunesmith_cluster.api import ApiError
from tunesmith_cluster.client import KubectlError, eventually
from tunesmith_cluster.fake import ControlPlane

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def build_job(name: str, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "example.test/main:1",
        "securityContext": RESTRICTED,
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template, **spec},
    }


def pod_of(control_plane: ControlPlane, namespace: str, job: str) -> str:
    name: str = control_plane.wait_for_pod(namespace, f"job-name={job}")["metadata"]["name"]
    return name


def condition(control_plane: ControlPlane, namespace: str, job: str, kind: str) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        status = control_plane.api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs/{job}")["status"]
        return next((each for each in status.get("conditions", ()) if each["type"] == kind), None)

    return eventually(find, what=f"condition {kind} of Job {job}")


def test_a_node_holds_a_lease_so_that_its_pods_stay_ready(control_plane: ControlPlane) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

    def held() -> dict[str, Any] | None:
        leases = control_plane.api.get(path)["items"]
        return next((lease["spec"] for lease in leases if lease["metadata"]["name"] == "gpu-0"), None)

    assert eventually(held, what="a lease of gpu-0")["leaseDurationSeconds"] == 40


def test_a_job_stays_running_until_its_pod_is_told_to_succeed(control_plane: ControlPlane) -> None:
    namespace = control_plane.namespace()
    control_plane.apply(build_job("good"), namespace)
    pod = pod_of(control_plane, namespace, "good")

    def active() -> bool:
        return bool(control_plane.get("job", "good", namespace)["status"].get("active") == 1)

    eventually(active, what="the Job to count its pod")

    control_plane.finish_pod(namespace, pod, message='{"schemaVersion": 1}')

    assert condition(control_plane, namespace, "good", "Complete")["status"] == "True"
    ended = control_plane.get("pod", pod, namespace)["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (0, '{"schemaVersion": 1}')


def test_exit_code_11_fails_the_job_by_its_pod_failure_policy(control_plane: ControlPlane) -> None:
    namespace = control_plane.namespace()
    on_exit_codes = {"containerName": "main", "operator": "In", "values": [11]}
    rules = [{"action": "FailJob", "onExitCodes": on_exit_codes}]
    control_plane.apply(build_job("bad", backoffLimit=5, podFailurePolicy={"rules": rules}), namespace)

    control_plane.finish_pod(namespace, pod_of(control_plane, namespace, "bad"), exit_code=11)

    assert condition(control_plane, namespace, "bad", "Failed")["reason"] == "PodFailurePolicy"


def test_an_evicted_pod_is_known_as_a_disruption(control_plane: ControlPlane) -> None:
    namespace = control_plane.namespace()
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    rules = [{"action": "FailJob", "onPodConditions": [disrupted]}]
    control_plane.apply(build_job("moved", podFailurePolicy={"rules": rules}), namespace)

    control_plane.evict_pod(namespace, pod_of(control_plane, namespace, "moved"))

    failed = condition(control_plane, namespace, "moved", "Failed")
    assert failed["reason"] == "PodFailurePolicy"
    assert "DisruptionTarget" in failed["message"]


def test_a_held_pod_stays_terminating_until_it_is_released(control_plane: ControlPlane) -> None:
    namespace = control_plane.namespace()
    control_plane.apply(build_job("lost"), namespace)
    pod = pod_of(control_plane, namespace, "lost")
    control_plane.hold_pod(namespace, pod)
    control_plane.kubectl("delete", "pod", pod, f"--namespace={namespace}", "--wait=false")
    assert control_plane.get("pod", pod, namespace)["metadata"]["deletionTimestamp"]
    control_plane.release_pod(namespace, pod)
    control_plane.kubectl("wait", "--for=delete", f"pod/{pod}", f"--namespace={namespace}", "--timeout=30s")


def test_garbage_collection_follows_owner_references(control_plane: ControlPlane) -> None:
    namespace = control_plane.namespace()
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    owner = control_plane.api.create(maps, {"metadata": {"name": "owner"}})["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"]}
    control_plane.api.create(maps, {"metadata": {"name": "child", "ownerReferences": [reference]}})

    control_plane.api.delete(f"{maps}/owner")

    control_plane.kubectl(
        "wait", "--for=delete", "configmap/child", f"--namespace={namespace}", "--timeout=30s"
    )


def test_pod_security_refuses_a_pod_that_may_escalate(control_plane: ControlPlane) -> None:
    namespace = control_plane.namespace()
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted:latest"'):
        control_plane.kubectl("run", "bad", "--image=example.test/bad:1", f"--namespace={namespace}")


def test_a_pod_that_asks_for_more_gpus_than_there_are_is_not_scheduled(control_plane: ControlPlane) -> None:
    namespace = control_plane.namespace()
    job = build_job("greedy")
    job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "9"
    control_plane.apply(job, namespace)

    def reason() -> str | None:
        pods = control_plane.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return next(
            (each.get("reason") for pod in pods for each in pod["status"].get("conditions", ())), None
        )

    assert eventually(reason, what="the scheduler's verdict") == "Unschedulable"


def test_a_termination_message_that_a_kubelet_would_cut_is_refused(control_plane: ControlPlane) -> None:
    with pytest.raises(ValueError, match="4096 bytes"):
        control_plane.finish_pod("any", "any", message="x" * 4097)


@pytest.mark.parametrize("kind", ["ns", "namespace", "namespaces", "Namespace"])
def test_an_object_is_read_by_any_name_of_its_kind(control_plane: ControlPlane, kind: str) -> None:
    assert control_plane.get(kind, "kube-system")["kind"] == "Namespace"


def test_a_kind_that_is_not_there_is_named(control_plane: ControlPlane) -> None:
    with pytest.raises(ApiError, match="no kind 'unicorn'"):
        control_plane.get("unicorn", "any")


def test_kinds_of_groups_have_full_names(control_plane: ControlPlane) -> None:
    namespace = control_plane.namespace()
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "empty"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "empty"}},
            "template": {
                "metadata": {"labels": {"app": "empty"}},
                "spec": {"containers": [{"name": "empty", "image": "example.test/empty:1"}]},
            },
        },
    }
    control_plane.apply(manifest, namespace)
    for kind in ("deploy", "deployments.apps"):
        assert control_plane.get(kind, "empty", namespace)["metadata"]["name"] == "empty"
