"""Containers that the API server puts into the pods of a namespace, as a service mesh does."""

from typing import Any

from tunesmith_cluster.fake import ControlPlane

API = "admissionregistration.k8s.io/v1beta1"
PROXY = "istio-proxy"
_SECURITY = (
    "securityContext: {base}.securityContext{{allowPrivilegeEscalation: false, "
    'capabilities: {base}.securityContext.capabilities{{drop: ["ALL"]}}}}'
)
_CONTAINER = "Object.spec.containers"
_INIT_CONTAINER = "Object.spec.initContainers"


def inject_proxy(server: ControlPlane, namespace: str, native: bool) -> None:
    """Put a proxy into each new pod: before the trainer's container, or as a sidecar of Kubernetes."""
    base = _INIT_CONTAINER if native else _CONTAINER
    restart = ', restartPolicy: "Always"' if native else ""
    value = f'{base}{{name: "{PROXY}", image: "proxy:1", {_SECURITY.format(base=base)}{restart}}}'
    path = "/spec/containers/0"
    if native:
        # The list is there where the pod has other init containers.
        path, value = "/spec/initContainers", f"[{value}]"
    rules = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec: dict[str, Any] = {
        "matchConstraints": {"resourceRules": [rules]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [
            {
                "patchType": "JSONPatch",
                "jsonPatch": {"expression": f'[JSONPatch{{op: "add", path: "{path}", value: {value}}}]'},
            }
        ],
    }
    name = f"proxy-of-{namespace}"
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": name, "matchResources": selector}
    _create(server, "mutatingadmissionpolicies", "MutatingAdmissionPolicy", name, spec)
    _create(server, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", name, binding)


def _create(server: ControlPlane, plural: str, kind: str, name: str, spec: dict[str, Any]) -> None:
    body = {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
    server.api.create(f"/apis/{API}/{plural}", body)
