"""Parts of all pods: ``restricted`` security contexts, volumes of storage URIs, the operator's token."""

from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith_contract.layout import CA_FILE, CREDENTIALS_DIR, TOKEN_AUDIENCE, TOKEN_FILE, secret_dir
from tunesmith_contract.uris import MOUNT_ROOT, MOUNTED, Scheme, StorageUri

TOKEN_SECONDS = 3600
RUN_AS_USER = 10001


def restricted_pod_security() -> dict[str, Any]:
    """``securityContext`` of a pod at the ``restricted`` level; group 0 owns the volumes."""
    return {
        "runAsNonRoot": True,
        "runAsUser": RUN_AS_USER,
        "runAsGroup": 0,
        "fsGroup": RUN_AS_USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def restricted_container_security() -> dict[str, Any]:
    """``securityContext`` of a container at the ``restricted`` level, with a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


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
        volume = f"secret-{role}"
        volumes.append({"name": volume, "secret": {"secretName": name, "defaultMode": 0o440}})
        mounts.append({"name": volume, "mountPath": str(secret_dir(role)), "readOnly": True})
    return volumes, mounts


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
