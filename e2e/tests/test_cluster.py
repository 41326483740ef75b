"""Cluster with a node: features that the project's pods rely on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node_cluster import NodeCluster

from tunesmith_cluster.binaries import program
from tunesmith_cluster.client import eventually
from tunesmith_cluster.cluster import Cluster
from tunesmith_cluster.host import BRIDGE, HARDWARE_ADDRESS
from tunesmith_cluster.images import write_static_image
from tunesmith_demo.playground import Playground

IMAGE = "tunesmith.test/probe:1"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def cluster(playground: Playground, tmp_path_factory: pytest.TempPathFactory) -> NodeCluster:
    archive = tmp_path_factory.mktemp("probe") / "probe.tar"
    write_static_image(archive, IMAGE, Path(program("probe")))
    playground.cluster.load_image(archive)
    return NodeCluster(playground.cluster)


@pytest.fixture
def namespace(cluster: NodeCluster) -> Iterator[str]:
    name = cluster.namespace()
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def build_pod(name: str, *arguments: str, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "probe",
        "image": IMAGE,
        "args": list(arguments),
        "securityContext": RESTRICTED,
        **spec.pop("container", {}),
    }
    body = {"restartPolicy": "Never", "containers": [container], **spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": body,
    }


def run_pod(cluster: NodeCluster, namespace: str, pod: dict[str, Any]) -> str:
    """Run a pod to its end; returns its last words, fails where it did not end with 0."""
    cluster.apply(pod, namespace)
    name = pod["metadata"]["name"]

    def ended() -> dict[str, Any] | None:
        (status,) = cluster.get("pod", name, namespace)["status"].get("containerStatuses") or [{}]
        terminated: dict[str, Any] | None = status.get("state", {}).get("terminated")
        return terminated

    last = eventually(ended, 60, what=f"pod {name} to end")
    message: str = last.get("message", "")
    assert last["exitCode"] == 0, message
    return message


def start_pod(cluster: NodeCluster, namespace: str, pod: dict[str, Any]) -> None:
    cluster.apply(pod, namespace)
    name = pod["metadata"]["name"]
    cluster.kubectl(
        "wait", "--for=condition=Ready", f"pod/{name}", f"--namespace={namespace}", "--timeout=60s"
    )


def test_a_restricted_pod_runs_and_its_log_and_last_words_come_back(
    cluster: NodeCluster, namespace: str
) -> None:
    assert run_pod(cluster, namespace, build_pod("talk", "say", "good", "bye")) == "good bye"
    assert cluster.kubectl("logs", "talk", f"--namespace={namespace}") == "good bye"


def test_a_program_can_be_run_in_a_running_pod(cluster: NodeCluster, namespace: str) -> None:
    start_pod(cluster, namespace, build_pod("alive", "wait"))
    answer = cluster.kubectl("exec", f"--namespace={namespace}", "alive", "--", "/probe", "say", "inside")
    assert answer == "inside"


def test_the_api_servers_name_resolves(cluster: NodeCluster, namespace: str) -> None:
    assert run_pod(cluster, namespace, build_pod("look", "resolve", "kubernetes.default.svc")) == "10.96.0.1"


def test_a_service_reaches_its_pod(cluster: NodeCluster, namespace: str) -> None:
    start_pod(cluster, namespace, build_pod("server", "serve", ":8080", "served"))
    ports = [{"port": 80, "targetPort": 8080}]
    spec = {"selector": {"app": "server"}, "ports": ports}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}, namespace
    )
    assert run_pod(cluster, namespace, build_pod("client", "get", "http://web/")) == "served"


def test_pods_reach_the_node_at_one_hardware_address(cluster: NodeCluster, namespace: str) -> None:
    """The bridge does not take that of a pod, with which the connections of other pods would end."""
    if not isinstance(cluster.engine, Cluster):
        pytest.skip("another cluster has another network")
    bridge = Path("/sys/class/net") / BRIDGE
    start_pod(cluster, namespace, build_pod("neighbor", "wait"))
    pods = {(port / "address").read_text().strip() for port in bridge.glob("lower_*")}
    assert pods
    assert (bridge / "address").read_text().strip() == HARDWARE_ADDRESS
    # The kernel's word for an address that was set, which it does not change by itself.
    assert (bridge / "addr_assign_type").read_text().strip() == "3"


def test_the_pods_of_an_indexed_job_are_found_by_name(cluster: NodeCluster, namespace: str) -> None:
    pod = build_pod("member", "wait", subdomain="gang")["spec"]
    spec = {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "backoffLimit": 0,
        "template": {"metadata": {"labels": {"gang": "a"}}, "spec": pod},
    }
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"gang": "a"}}
    cluster.apply(
        [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gang"}, "spec": service},
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "gang"}, "spec": spec},
        ],
        namespace,
    )
    found = {
        run_pod(cluster, namespace, build_pod(f"look-{index}", "resolve", f"gang-{index}.gang"))
        for index in range(2)
    }
    listing = cluster.kubectl("get", "pods", "-l", "gang=a", "-o", "json", f"--namespace={namespace}")
    assert found == {pod["status"]["podIP"] for pod in json.loads(listing)["items"]}


def test_a_projected_token_is_bound_to_its_audience_and_pod(cluster: NodeCluster, namespace: str) -> None:
    token = {"serviceAccountToken": {"audience": "tunesmith", "path": "token", "expirationSeconds": 600}}
    volumes = [{"name": "identity", "projected": {"sources": [token]}}]
    mounts = {"volumeMounts": [{"name": "identity", "mountPath": "/identity"}]}
    pod = build_pod("known", "wait", volumes=volumes, container=mounts)
    start_pod(cluster, namespace, pod)
    read = cluster.kubectl(
        "exec", f"--namespace={namespace}", "known", "--", "/probe", "read", "/identity/token"
    )

    review = {"spec": {"token": read, "audiences": ["tunesmith"]}}
    user = cluster.api.create("/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]["user"]

    assert user["username"] == f"system:serviceaccount:{namespace}:default"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["known"]


def test_a_claim_is_shared_by_users_of_one_group(cluster: NodeCluster, namespace: str) -> None:
    cluster.add_claim(namespace, "data")
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}

    def pod(name: str, user: int, *arguments: str) -> dict[str, Any]:
        context = {"runAsUser": user, "runAsGroup": 0, "fsGroup": 2000}
        return build_pod(name, *arguments, securityContext=context, volumes=volumes, container=mounts)

    run_pod(cluster, namespace, pod("writer", 12345, "write", "/data/note", "kept"))
    assert run_pod(cluster, namespace, pod("reader", 54321, "read", "/data/note")) == "kept"
