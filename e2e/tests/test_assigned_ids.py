"""Real pods where the namespace assigns their user, as on OpenShift, behind a proxy that does not answer."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoices import ANSWERS, MODEL, Installation, build_data
from jobs import SECONDS_OF_A_RUN, build_job, wait_for
from office import ASKED, SERVING_SECONDS, build_deployment, stable_digest

from tunesmith_cluster.certificates import Authority
from tunesmith_cluster.node import NODE_NAME
from tunesmith_demo.ask import ask, forwarded
from tunesmith_demo.installation import CHART, chart_values, helm

NAMESPACE = "assigned"
RELEASE = "tunesmith-assigned"
USER = 1000680000
LABEL = "tunesmith.test/ids"
CLAIMS = {"models": "ReadWriteMany", "artifacts": "ReadWriteOnce"}
#: A name that no host has (RFC 6761): what goes through the proxy fails.
PROXY = {"name": "HTTPS_PROXY", "value": "http://proxy.invalid:3128"}


def build_policies() -> list[dict[str, Any]]:
    """What restricted-v2 does: pods get the namespace's user, and no other; here no group for volumes either."""
    pods = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    match = {
        "resourceRules": pods,
        "namespaceSelector": {"matchLabels": {LABEL: NAMESPACE}},
    }
    patch = (
        f"Object{{spec: Object.spec{{securityContext: Object.spec.securityContext{{runAsUser: {USER}}}}}}}"
    )
    containers = (
        "object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])"
    )
    own_ids = "has(c.securityContext.runAsUser) || has(c.securityContext.runAsGroup)"
    checks = [
        f"object.spec.securityContext.runAsUser == {USER}",
        "!has(object.spec.securityContext.runAsGroup) && !has(object.spec.securityContext.fsGroup)",
        f"({containers}).all(c, !({own_ids}))",
    ]
    assignment = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "matchConstraints": match,
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": patch}}],
    }
    refusal = {
        "failurePolicy": "Fail",
        "matchConstraints": match,
        "validations": [{"expression": check} for check in checks],
    }
    return [
        *_policy("MutatingAdmissionPolicy", "v1beta1", assignment, {}),
        *_policy("ValidatingAdmissionPolicy", "v1", refusal, {"validationActions": ["Deny"]}),
    ]


def _policy(kind: str, version: str, spec: dict[str, Any], binding: dict[str, Any]) -> list[dict[str, Any]]:
    common = {"apiVersion": f"admissionregistration.k8s.io/{version}", "metadata": {"name": NAMESPACE}}
    return [
        {**common, "kind": kind, "spec": spec},
        {**common, "kind": f"{kind}Binding", "spec": {"policyName": NAMESPACE, **binding}},
    ]


@pytest.fixture(scope="module")
def assigned(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An operator of its own for a namespace that assigns users, and a model, rows and authorities in it."""
    if installation.processes is None:
        pytest.skip("volumes are made on the cluster's own node")
    client = installation.client
    labels = {"pod-security.kubernetes.io/enforce": "restricted", LABEL: NAMESPACE}
    metadata = {"name": NAMESPACE, "labels": labels}
    client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    client.apply(build_policies())
    for claim, access_mode in CLAIMS.items():
        folder = tmp_path_factory.mktemp(claim)
        # Group 0 may write, as volumes without a group for them have it at best.
        folder.chmod(0o775)
        client.add_volume(NAMESPACE, claim, folder, NODE_NAME, access_mode=access_mode)
        if claim == "models":
            volume = client.get("persistentvolume", f"{installation.namespace}-{claim}")
            shutil.copytree(Path(volume["spec"]["local"]["path"]) / MODEL, folder / MODEL)
    data = build_data()
    authorities = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "trust", "namespace": NAMESPACE},
        "data": {"ca.crt": Path(Authority(tmp_path_factory.mktemp("ca")).path("ca")).read_text()},
    }
    client.apply([{**data, "metadata": {"name": "invoices", "namespace": NAMESPACE}}, authorities])
    values = {
        **chart_values(installation.images),
        "platform": "OpenShift",
        "controllerName": NAMESPACE,
        "watchNamespaces": [NAMESPACE],
        "crds": {"install": False},
        "defaults": {"env": [PROXY], "caBundle": {"configMap": "trust"}},
    }
    options = ["-n", NAMESPACE, "--wait", "--timeout", "5m", "-f", "-"]
    helm(client, "install", RELEASE, str(CHART), *options, stdin=json.dumps(values))
    yield replace(installation, namespace=NAMESPACE)
    client.kubectl("-n", NAMESPACE, "delete", "ad,ftj,er", "--all", timeout=300)
    helm(client, "uninstall", RELEASE, "-n", NAMESPACE)
    client.kubectl("delete", "namespace", NAMESPACE, timeout=300)


def controlled(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource for the operator of this namespace."""
    metadata = resource["metadata"]
    labels = {"tunesmith.dev/controller": NAMESPACE}
    return {**resource, "metadata": {**metadata, "namespace": NAMESPACE, "labels": labels}}


@pytest.mark.long
def test_jobs_evaluations_and_serving_run_as_the_user_of_their_namespace(assigned: Installation) -> None:
    client = assigned.client
    client.apply(controlled(build_job("tuned", "first")))
    job = wait_for(
        assigned, "ftj", "tuned", lambda status: status.get("phase") == "Succeeded", SECONDS_OF_A_RUN
    )
    run = wait_for(assigned, "er", "tuned", lambda status: "verdict" in status, SECONDS_OF_A_RUN)
    assert run["status"]["verdict"] == "Pass"
    # Progress reached the operator past the proxy.
    assert job["status"]["progress"]["percent"] == "100%"
    digest = job["status"]["artifact"]["digest"]
    client.apply(controlled(build_deployment("tuned")))
    deployment = wait_for(
        assigned, "ad", "office", lambda status: stable_digest(status) == digest, SERVING_SECONDS
    )
    service = deployment["status"]["url"].removeprefix("http://").partition(".")[0]
    with forwarded(client, NAMESPACE, service) as address:
        assert ask(address, "clerk", ASKED).text.strip() == ANSWERS["first"]
    selector = "tunesmith.dev/stage=serving"
    agent = client.kubectl("-n", NAMESPACE, "get", "pod", "-l", selector, "-o", "name").strip()
    identity = client.kubectl("-n", NAMESPACE, "exec", agent, "-c", "agent", "--", "id")
    assert identity.startswith(f"uid={USER} gid=0(root) groups=0(root)")
