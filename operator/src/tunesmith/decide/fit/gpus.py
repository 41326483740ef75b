"""The GPUs of a cluster's nodes: what they are by their labels, and which of them a job may get."""

from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.api.values import AUTO, memory_bytes
from tunesmith_contract.shared_rules.gpus import Product, find_product

MIB = 2**20

GPU_RESOURCE = "nvidia.com/gpu"

#: MiB of one GPU, by NVIDIA's GPU feature discovery; a slice's where GPUs are divided (MIG).
MEMORY_LABEL = "nvidia.com/gpu.memory"
PRODUCT_LABEL = "nvidia.com/gpu.product"
#: Google Kubernetes Engine's name of the GPU.
GKE_LABEL = "cloud.google.com/gke-accelerator"


def node_memory(node: Mapping[str, Any]) -> int | None:
    """Bytes of one of a node's GPUs by its labels; None: it has none, or nobody says."""
    labels = node["metadata"].get("labels") or {}
    written = labels.get(MEMORY_LABEL, "")
    if written.isdecimal() and int(written):
        return int(written) * MIB
    product = node_product(node)
    return product.memory if product else None


def node_product(node: Mapping[str, Any]) -> Product | None:
    """What a node's GPUs are, by its labels."""
    labels = node["metadata"].get("labels") or {}
    names = (labels[key] for key in (PRODUCT_LABEL, GKE_LABEL) if labels.get(key))
    return next(filter(None, map(find_product, names)), None)


def fitting_nodes(
    nodes: Iterable[Mapping[str, Any]],
    selector: Mapping[str, str] | None,
    tolerations: Iterable[Mapping[str, Any]] = (),
    gpus: int = 1,
) -> list[Mapping[str, Any]]:
    """Nodes on which a pod may come to lie that asks for so many GPUs: by labels, taints and what there is in all.

    Affinity is not looked at: more nodes than can be are the cautious side.
    """
    wanted, tolerated = (selector or {}).items(), tuple(tolerations)
    return [
        node
        for node in nodes
        if wanted <= (node["metadata"].get("labels") or {}).items()
        and _gpus(node) >= gpus
        and all(_is_tolerated(taint, tolerated) for taint in node.get("spec", {}).get("taints") or ())
    ]


def smallest_memory(nodes: Iterable[Mapping[str, Any]]) -> int | None:
    """Bytes of the smallest GPU among nodes; None where one has GPUs of which nobody says how much they have."""
    found = [node_memory(node) for node in nodes]
    known = [memory for memory in found if memory is not None]
    return min(known) if found and len(known) == len(found) else None


def slowest_product(nodes: Iterable[Mapping[str, Any]]) -> Product | None:
    """The slowest of the products on nodes; None where one is not in the table."""
    found = [node_product(node) for node in nodes]
    known = [product for product in found if product is not None]
    return min(known, key=lambda product: product.flops) if found and len(known) == len(found) else None


def _gpus(node: Mapping[str, Any]) -> int:
    allocatable = node.get("status", {}).get("allocatable") or {}
    return int(allocatable.get(GPU_RESOURCE, 0))


def _is_tolerated(taint: Mapping[str, Any], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a pod may come in spite of a taint; the GPU's own is tolerated by whoever asks for GPUs."""
    if taint.get("effect") not in {"NoSchedule", "NoExecute"} or taint.get("key") == GPU_RESOURCE:
        return True
    return any(_tolerates(toleration, taint) for toleration in tolerations)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    exists = toleration.get("operator") == "Exists"
    if not toleration.get("key"):
        return exists
    same = toleration["key"] == taint.get("key")
    return same and (exists or toleration.get("value", "") == taint.get("value", ""))


def resolve_gpu_memory(written: str, found: int | None) -> int | None:
    """Bytes of one GPU: what is written, else what was found on the nodes; None: nobody knows."""
    return found if written == AUTO else memory_bytes(written)
