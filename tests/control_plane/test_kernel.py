"""One operator on a real control plane: first child, refusals, events, progress."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from control_plane.operator_process import OperatorProcess, operator_process
from control_plane.pod_credentials import issue_token, read_authority
from control_plane.served_jobs import children, collection, condition, create_job, install_crds

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.layout import TOKEN_AUDIENCE
from tunesmith_contract.progress import PROGRESS_PATH

#: The garbage collector learns of a new kind every 30 s.
GARBAGE_SECONDS = 90


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> ControlPlane:
    """The API server with our three kinds established."""
    install_crds(control_plane)
    return control_plane


@pytest.fixture(scope="module")
def system(server: ControlPlane) -> str:
    """The operator's own namespace."""
    return server.namespace("system")


@pytest.fixture(scope="module")
def operator(
    server: ControlPlane, system: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator that leads."""
    with operator_process(
        server.kubeconfig, tmp_path_factory.mktemp("operator"), namespace=system
    ) as process:
        process.wait_leading()
        yield process


@pytest.fixture
def namespace(server: ControlPlane) -> str:
    """A namespace of its own."""
    return server.namespace("kernel")


def test_a_new_resource_gets_children_status_and_an_event(
    server: ControlPlane, operator: OperatorProcess, namespace: str
) -> None:
    job = create_job(server, namespace)
    eventually(lambda: children(server, job), what="the first Job")
    [snapshot] = children(server, job, "api/v1", "configmaps")
    assert snapshot["immutable"]
    assert snapshot["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    eventually(lambda: condition(server, job, "Reconciling").get("observedGeneration") == 1, what="status")

    def event() -> Any:
        events = server.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        return [item for item in events if item["regarding"].get("uid") == job["metadata"]["uid"]]

    assert eventually(event, what="an event")[0]["reportingController"] == "tunesmith.dev/operator"
    stored = server.api.get(f"{collection(namespace)}/job")
    assert "finalizers" not in stored["metadata"]
    assert not [
        key for key in stored["metadata"].get("annotations", {}) if "kopf" in key or "tunesmith" in key
    ]
    assert [operator.read(path)[0] for path in ("/livez", "/readyz")] == [200, 200]


def test_children_go_with_their_resource(
    server: ControlPlane, operator: OperatorProcess, namespace: str
) -> None:
    job = create_job(server, namespace)
    eventually(lambda: children(server, job), what="the first Job")
    server.api.delete(f"{collection(namespace)}/job")
    eventually(lambda: not children(server, job), GARBAGE_SECONDS, what="garbage collection")
    eventually(lambda: not children(server, job, "api/v1", "configmaps"), GARBAGE_SECONDS, what="more of it")


def test_a_refused_child_is_told_and_tried_again(
    server: ControlPlane, operator: OperatorProcess, namespace: str
) -> None:
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    hard = {"count/jobs.batch": "0"}
    server.api.create(quotas, {"metadata": {"name": "none"}, "spec": {"hard": hard}})
    eventually(lambda: server.api.get(f"{quotas}/none").get("status", {}).get("hard"), what="the quota")
    job = create_job(server, namespace)
    eventually(lambda: condition(server, job, "Ready").get("reason") == "Refused", what="the refusal")
    told = condition(server, job, "Ready")
    assert told["status"] == "False"
    assert "exceeded quota: none" in told["message"]
    server.api.delete(f"{quotas}/none")
    eventually(lambda: children(server, job), what="the Job after the quota")
    eventually(
        lambda: condition(server, job, "Ready").get("reason") != "Refused", what="the end of the refusal"
    )


def test_progress_needs_the_token_of_the_resources_own_pod(
    server: ControlPlane, operator: OperatorProcess, system: str, namespace: str
) -> None:
    job = create_job(server, namespace)
    pods = eventually(lambda: children(server, job, "api/v1", "pods"), what="the first pod")
    secret = server.get("secret", "tunesmith-tls", system)
    authority = read_authority(server, system)
    assert set(secret["data"]) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    now = datetime.now(UTC).isoformat()
    body = json.dumps({"trainerStatus": {"lastUpdatedTime": now, "progressPercentage": 7, "metrics": []}})

    def post(token: str, name: str = "job") -> int:
        path = PROGRESS_PATH.format(namespace=namespace, plural="finetunejobs", name=name)
        headers = {"Authorization": f"Bearer {token}"}
        return operator.post(path, body, headers, authority, f"tunesmith.{system}.svc")[0]

    good = issue_token(server, pods[0], TOKEN_AUDIENCE)
    assert post(good) == 204
    assert post(issue_token(server, pods[0], "https://kubernetes.default.svc.cluster.local")) == 401
    assert post(good + "x") == 401
    create_job(server, namespace, "other")
    eventually(lambda: post(good, "other") == 403, what="the other resource to be known")
