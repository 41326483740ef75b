"""Containers that the API server puts into the pods of a namespace, as a service mesh does."""

from typing import Any

from tunesmith_cluster.client import ENFORCE_LABEL
from tunesmith_cluster.fake import ControlPlane

API = "admissionregistration.k8s.io/v1beta1"
PROXY = "istio-proxy"


def inject_proxy(server: ControlPlane, namespace: str, native: bool) -> None:
    """Put a proxy into each new pod: before the trainer's container, or as a sidecar of Kubernetes."""
    # The proxy has no security context of its own.
    server.api.merge(
        f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {ENFORCE_LABEL: "privileged"}}}
    )
    mutation = _native_mutation() if native else _mutation()
    rules = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec: dict[str, Any] = {
        "matchConstraints": {"resourceRules": [rules]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [mutation],
    }
    name = f"proxy-of-{namespace}"
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": name, "matchResources": selector}
    _create(server, "mutatingadmissionpolicies", "MutatingAdmissionPolicy", name, spec)
    _create(server, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", name, binding)


def _mutation() -> dict[str, Any]:
    container = f'Object.spec.containers{{name: "{PROXY}", image: "proxy:1"}}'
    patch = f'[JSONPatch{{op: "add", path: "/spec/containers/0", value: {container}}}]'
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}


def _native_mutation() -> dict[str, Any]:
    container = f'Object.spec.initContainers{{name: "{PROXY}", image: "proxy:1", restartPolicy: "Always"}}'
    applied = f"Object{{spec: Object.spec{{initContainers: [{container}]}}}}"
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": applied}}


def _create(server: ControlPlane, plural: str, kind: str, name: str, spec: dict[str, Any]) -> None:
    body = {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
    server.api.create(f"/apis/{API}/{plural}", body)
