"""Parts of all pods: ``restricted`` security contexts, placement, volumes of storage URIs, the operator's token."""

from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.api.pod_settings import CacheVolume, EnvVar
from tunesmith.api.pod_template import PodTemplate
from tunesmith_contract.layout import CA_FILE, CREDENTIALS_DIR, TOKEN_AUDIENCE, TOKEN_FILE, secret_dir
from tunesmith_contract.uris import MOUNT_ROOT, MOUNTED, Scheme, StorageUri

from .environment import Environment
from .objects import Body

TOKEN_SECONDS = 3600
RUN_AS_USER = 10001

#: Prefix of the names of volumes that people write.
OWN_VOLUME = "own-"

#: Fields of a template that are not members of the pod's spec, or not as they are written.
_NOT_PLACEMENT = frozenset(
    {
        "labels",
        "annotations",
        "volumes",
        "volumeMounts",
        "terminationGracePeriodSeconds",
        # These become variables and volumes; see ``outbound``.
        "proxy",
        "caBundle",
        "hfEndpoint",
    }
)

#: Folder of the hub's cache in a volume for caches, as below ``HF_HOME``.
HUB_CACHE = "huggingface/hub"


def restricted_pod_security(*, assigned_ids: bool) -> dict[str, Any]:
    """``securityContext`` of a pod at the ``restricted`` level.

    Args:
        assigned_ids: the namespace assigns user and file system group, and refuses others. The images run as any user
            of group 0.
    """
    ids = {"runAsUser": RUN_AS_USER, "runAsGroup": 0, "fsGroup": RUN_AS_USER}
    return {
        "runAsNonRoot": True,
        **({} if assigned_ids else ids),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def restricted_container_security(user: int | None = None) -> dict[str, Any]:
    """``securityContext`` of a container at the ``restricted`` level, with a read-only root.

    Args:
        user: another user than the pod's.
    """
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        **({} if user is None else {"runAsUser": user}),
    }


def pod_placement(
    template: PodTemplate | None, taints: Iterable[str], environment: Environment, labels: Mapping[str, str]
) -> dict[str, Any]:
    """Scheduling and identity of a pod, as written and completed for pods with devices.

    Nodes with devices are often tainted with the resource's name, so that only pods that request it run there. As
    Kubernetes' own admission plugin for this (ExtendedResourceToleration) is off by default, the toleration is part of
    the pod. It covers every effect: a node that is reserved with NoExecute is reserved for such pods as well.

    Args:
        taints: keys of the taints of nodes with the devices that the pod requests, such as ``nvidia.com/gpu``; empty
            for pods on CPUs, which run without the runtime class.
        labels: labels of the pods that a topology spread counts.
    """
    written = template.to_dict() if template else {}
    placement = {key: value for key, value in written.items() if key not in _NOT_PLACEMENT}
    if spread := placement.get("topologySpreadConstraints"):
        selector = {"labelSelector": {"matchLabels": dict(labels)}}
        placement["topologySpreadConstraints"] = [constraint | selector for constraint in spread]
    taints = tuple(taints)
    if not taints:
        placement.pop("runtimeClassName", None)
        return placement
    tolerated = placement.get("tolerations", [])
    added = [*({"key": key, "operator": "Exists"} for key in taints), *environment.gpu_tolerations]
    placement["tolerations"] = [
        *tolerated,
        *(toleration for toleration in added if toleration not in tolerated),
    ]
    if environment.gpu_runtime_class:
        placement.setdefault("runtimeClassName", environment.gpu_runtime_class)
    return placement


def pod_metadata(labels: dict[str, str], template: PodTemplate | None) -> dict[str, Any]:
    """Labels and annotations of a pod: those that people wrote, under the operator's own."""
    written = template.to_dict() if template else {}
    metadata: dict[str, Any] = {"labels": written.get("labels", {}) | labels}
    return metadata | ({"annotations": written["annotations"]} if written.get("annotations") else {})


def template_volumes(
    template: PodTemplate | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts of a pod template, renamed so that they can't clash with the operator's."""
    written = template.to_dict() if template else {}
    volumes = [volume | {"name": f"{OWN_VOLUME}{volume['name']}"} for volume in written.get("volumes", ())]
    mounts = [mount | {"name": f"{OWN_VOLUME}{mount['name']}"} for mount in written.get("volumeMounts", ())]
    return volumes, mounts


def on_one_node(affinity: Mapping[str, Any] | None, labels: Mapping[str, str]) -> dict[str, Any]:
    """Affinity of a pod, as written, and to the node of the pods that carry the labels, itself among them.

    The scheduler places the first of them by the rest of its rules alone.
    """
    pods = (affinity or {}).get("podAffinity", {})
    written = pods.get("requiredDuringSchedulingIgnoredDuringExecution", ())
    term = {"labelSelector": {"matchLabels": dict(labels)}, "topologyKey": "kubernetes.io/hostname"}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [*written, term]}
    return {**(affinity or {}), "podAffinity": {**pods, **required}}


def environment_variables(
    defaults: Mapping[str, str], written: Iterable[EnvVar] = ()
) -> list[dict[str, Any]]:
    """Variables of a container: defaults, which those that people write replace."""
    values = dict(defaults) | {variable.name: variable.value for variable in written}
    return [{"name": name, "value": value} for name, value in values.items()]


def cache_volume(cache: CacheVolume, mount_path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Volume and mount of a claim with caches.

    All pods keep the cache of the Hugging Face Hub in ``HUB_CACHE`` below it, so that they share downloads.
    """
    volume = {"name": "cache", "persistentVolumeClaim": {"claimName": cache.claim_name}}
    mount = {"name": "cache", "mountPath": mount_path}
    return volume, mount | ({"subPath": cache.sub_path} if cache.sub_path else {})


def storage_volumes(
    uris: Iterable[StorageUri], writable: Iterable[StorageUri] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts for what ``pvc://`` and ``configmap://`` URIs name, each once.

    A claim is writable if any of the ``writable`` URIs is on it.
    """
    writable = tuple(writable)
    writable_claims = {uri.name for uri in writable if uri.scheme is Scheme.PVC}
    sources = sorted({(uri.scheme, uri.name) for uri in (*uris, *writable) if uri.scheme in MOUNTED})
    volumes, mounts = [], []
    for index, (scheme, name) in enumerate(sources):
        read_only = name not in writable_claims or scheme is Scheme.CONFIGMAP
        claim = {"persistentVolumeClaim": {"claimName": name}}
        source = claim if scheme is Scheme.PVC else {"configMap": {"name": name}}
        volumes.append({"name": f"storage-{index}", **source})
        path = str(MOUNT_ROOT / scheme / name)
        mounts.append({"name": f"storage-{index}", "mountPath": path, "readOnly": read_only})
    return volumes, mounts


def secret_volumes(secrets: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts of Secrets, each a folder of files.

    Args:
        secrets: the Secret's name by the role in which the pod finds it.
    """
    volumes, mounts = [], []
    for role, name in sorted(secrets.items()):
        volume = secret_volume_name(role)
        volumes.append({"name": volume, "secret": {"secretName": name, "defaultMode": 0o440}})
        mounts.append({"name": volume, "mountPath": str(secret_dir(role)), "readOnly": True})
    return volumes, mounts


def mounted_secrets(job: Body) -> dict[str, str]:
    """Names of the Secrets that the pods of a Job mount, by role."""
    prefix, volumes = secret_volume_name(""), job["spec"]["template"]["spec"].get("volumes", ())
    return {
        volume["name"].removeprefix(prefix): volume["secret"]["secretName"]
        for volume in volumes
        if "secret" in volume and volume["name"].startswith(prefix)
    }


def secret_volume_name(role: str) -> str:
    """Name of the volume with the Secret in this role."""
    return f"secret-{role}"


def credentials_volume(ca_config_map: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Volume and mount of a token that only the operator accepts, and of the operator's authority.

    Args:
        ca_config_map: a ConfigMap with the authority's PEM under ``ca.crt``.
    """
    token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE}
    authority = {"name": ca_config_map, "items": [{"key": CA_FILE, "path": CA_FILE}]}
    sources = [{"serviceAccountToken": token}, {"configMap": authority}]
    volume = {"name": "operator-credentials", "projected": {"sources": sources, "defaultMode": 0o440}}
    return volume, {"name": "operator-credentials", "mountPath": str(CREDENTIALS_DIR), "readOnly": True}


def scratch_volume(size: str = "1Gi") -> tuple[dict[str, Any], dict[str, Any]]:
    """Volume and mount of ``/tmp``, the only writable place outside claims."""
    return {"name": "tmp", "emptyDir": {"sizeLimit": size}}, {"name": "tmp", "mountPath": "/tmp"}
