"""Persistent volumes in folders of the node."""

from tunesmith_cluster.api import Document

STORAGE_CLASS = "tunesmith-local"


def build_storage_class() -> Document:
    """Volumes of this class are made by hand; a claim waits for its pod, as with every node-bound volume."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def build_volume(namespace: str, claim: str, path: str, node: str, size: str, access_mode: str) -> Document:
    """A `local` volume, reserved for one claim. Kubelet ignores fsGroup on hostPath, so that would not do."""
    hostname = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": [access_mode],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            "claimRef": {"namespace": namespace, "name": claim},
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [hostname]}]}},
        },
    }


def build_claim(namespace: str, name: str, size: str, access_mode: str) -> Document:
    """A claim on the volume that is reserved for it."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "accessModes": [access_mode],
            "resources": {"requests": {"storage": size}},
        },
    }
