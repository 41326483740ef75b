"""GPUs of the cluster's nodes, identified by labels, and the nodes that a job may be scheduled to."""

from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.api.values import AUTO, memory_bytes
from tunesmith_contract.shared_rules.gpus import Product, find_product

MIB = 2**20

GPU_RESOURCE = "nvidia.com/gpu"

#: Label of NVIDIA's GPU feature discovery: MiB of one GPU, or of one slice if GPUs are partitioned (MIG).
MEMORY_LABEL = "nvidia.com/gpu.memory"
PRODUCT_LABEL = "nvidia.com/gpu.product"
#: Label of Google Kubernetes Engine: name of the GPU.
GKE_LABEL = "cloud.google.com/gke-accelerator"


def node_memory(node: Mapping[str, Any]) -> int | None:
    """Bytes of one GPU of a node by its labels, or None if unknown."""
    labels = node["metadata"].get("labels") or {}
    mebibytes = labels.get(MEMORY_LABEL, "")
    if mebibytes.isdecimal() and int(mebibytes):
        return int(mebibytes) * MIB
    product = node_product(node)
    return product.memory if product else None


def node_product(node: Mapping[str, Any]) -> Product | None:
    """Product of a node's GPUs by its labels, or None if unknown."""
    labels = node["metadata"].get("labels") or {}
    names = (labels[key] for key in (PRODUCT_LABEL, GKE_LABEL) if labels.get(key))
    return next(filter(None, map(find_product, names)), None)


def fitting_nodes(
    nodes: Iterable[Mapping[str, Any]],
    selector: Mapping[str, str] | None,
    tolerations: Iterable[Mapping[str, Any]] = (),
    gpus: int = 1,
) -> list[Mapping[str, Any]]:
    """Nodes that a pod with so many GPUs may be scheduled to, by labels, taints and allocatable GPUs.

    Affinity is ignored: to consider more nodes than possible is the cautious choice.
    """
    required, tolerated = (selector or {}).items(), tuple(tolerations)
    return [
        node
        for node in nodes
        if required <= (node["metadata"].get("labels") or {}).items()
        and _allocatable_gpus(node) >= gpus
        and all(_is_tolerated(taint, tolerated) for taint in node.get("spec", {}).get("taints") or ())
    ]


def smallest_memory(nodes: Iterable[Mapping[str, Any]]) -> int | None:
    """Bytes of the smallest GPU of the nodes, or None if that of any node is unknown."""
    sizes = [node_memory(node) for node in nodes]
    known_sizes = [size for size in sizes if size is not None]
    return min(known_sizes) if sizes and len(known_sizes) == len(sizes) else None


def slowest_product(nodes: Iterable[Mapping[str, Any]]) -> Product | None:
    """Slowest GPU product of the nodes, or None if that of any node is unknown."""
    products = [node_product(node) for node in nodes]
    known_products = [product for product in products if product is not None]
    if not products or len(known_products) < len(products):
        return None
    return min(known_products, key=lambda product: product.flops)


def _allocatable_gpus(node: Mapping[str, Any]) -> int:
    allocatable = node.get("status", {}).get("allocatable") or {}
    return int(allocatable.get(GPU_RESOURCE, 0))


def _is_tolerated(taint: Mapping[str, Any], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    """True if the taint does not keep a pod away; a pod with GPUs tolerates the taint of GPU nodes."""
    if taint.get("effect") not in {"NoSchedule", "NoExecute"} or taint.get("key") == GPU_RESOURCE:
        return True
    return any(_tolerates(toleration, taint) for toleration in tolerations)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    exists = toleration.get("operator") == "Exists"
    if not toleration.get("key"):
        return exists
    return toleration["key"] == taint.get("key") and (
        exists or toleration.get("value", "") == taint.get("value", "")
    )


def resolve_gpu_memory(setting: str, observed: int | None) -> int | None:
    """Bytes of one GPU by ``compute.gpuMemory``, or as observed on the nodes with Auto; None: unknown."""
    return observed if setting == AUTO else memory_bytes(setting)
