"""Kinds that the operator reads or writes, and their URL paths: no discovery is needed."""

from tunesmith.manifests.names import API_VERSION, PLURALS

_CORE = {
    "ConfigMap": "configmaps",
    "Event": "events",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}

_PLURALS: dict[tuple[str, str], str] = {
    **{(API_VERSION, kind): plural for kind, plural in PLURALS.items()},
    **{("v1", kind): plural for kind, plural in _CORE.items()},
    ("apps/v1", "ControllerRevision"): "controllerrevisions",
    ("apps/v1", "Deployment"): "deployments",
    ("batch/v1", "Job"): "jobs",
    ("coordination.k8s.io/v1", "Lease"): "leases",
    ("discovery.k8s.io/v1", "EndpointSlice"): "endpointslices",
    ("events.k8s.io/v1", "Event"): "events",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    **{(f"kueue.x-k8s.io/{version}", "Workload"): "workloads" for version in ("v1beta1", "v1beta2")},
}
_CLUSTER_SCOPED: dict[tuple[str, str], str] = {
    ("v1", "Node"): "nodes",
    ("authentication.k8s.io/v1", "TokenReview"): "tokenreviews",
}


def is_known(api_version: str) -> bool:
    """True where the table has a kind of this group and version."""
    return any(version == api_version for version, _ in _PLURALS)


def path_of(api_version: str, kind: str, namespace: str | None, name: str | None = None) -> str:
    """The URL path of a collection, or of one object.

    Args:
        namespace: None for a cluster-scoped kind, and for a list over all namespaces.

    Raises:
        KeyError: a kind that is not in the table; add it there, and its verbs to docs/security.md.
    """
    key = (api_version, kind)
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    if key in _CLUSTER_SCOPED:
        collection = f"{root}/{_CLUSTER_SCOPED[key]}"
    elif namespace is None:
        collection = f"{root}/{_PLURALS[key]}"
    else:
        collection = f"{root}/namespaces/{namespace}/{_PLURALS[key]}"
    return collection if name is None else f"{collection}/{name}"
