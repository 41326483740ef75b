"""What is known of GPUs: how much memory they have, how fast they multiply, and which of them a job may get."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

GIB = 2**30
MIB = 2**20

GPU_RESOURCE = "nvidia.com/gpu"

#: MiB of one GPU, by NVIDIA's GPU feature discovery; a slice's where GPUs are divided (MIG).
MEMORY_LABEL = "nvidia.com/gpu.memory"
PRODUCT_LABEL = "nvidia.com/gpu.product"
#: Google Kubernetes Engine's name of the GPU.
GKE_LABEL = "cloud.google.com/gke-accelerator"


@dataclass(frozen=True, slots=True)
class Product:
    """A GPU by its maker's data sheet.

    Attributes:
        memory: bytes, as the driver gives them to programs.
        flops: dense bfloat16 (or float16, where there is none) multiplications and additions a second.
    """

    memory: int
    flops: float


def _product(gibibytes: float, teraflops: float) -> Product:
    return Product(int(gibibytes * GIB), teraflops * 1e12)


#: By a part of the product's name, the more special ones first. Data sheets count in 10^9 bytes or round up; these are
#: what ``nvidia-smi`` shows.
PRODUCTS: tuple[tuple[str, Product], ...] = (
    ("b300", _product(268, 2250)),
    ("gb200", _product(184, 2500)),
    ("b200", _product(178, 2250)),
    ("h200", _product(140, 989)),
    ("gh200", _product(95, 989)),
    ("h100-nvl", _product(93.5, 835)),
    ("h100-pcie", _product(79.6, 756)),
    ("h100", _product(79.6, 989)),
    ("h800", _product(79.6, 989)),
    ("h20", _product(95.5, 148)),
    ("a100-80gb", _product(80, 312)),
    ("a100-sxm4-80gb", _product(80, 312)),
    ("a100-pcie-80gb", _product(80, 312)),
    ("a100", _product(40, 312)),
    ("a800", _product(80, 312)),
    ("a40", _product(45, 150)),
    ("a30", _product(24, 165)),
    ("a10g", _product(22.5, 70)),
    ("a10", _product(22.5, 125)),
    ("l40s", _product(45, 362)),
    ("l40", _product(45, 181)),
    ("l4", _product(22.5, 121)),
    ("rtx-pro-6000", _product(95.6, 500)),
    ("rtx-6000-ada", _product(48, 364)),
    ("rtx-a6000", _product(48, 155)),
    ("rtx-a5000", _product(24, 111)),
    ("rtx-5090", _product(31.8, 210)),
    ("rtx-4090", _product(24, 165)),
    ("rtx-3090", _product(24, 71)),
    ("v100-sxm2-32gb", _product(32, 125)),
    ("v100", _product(16, 125)),
    ("p100", _product(16, 19)),
    ("t4", _product(15, 65)),
)


def find_product(name: str) -> Product | None:
    """The product a label names, such as ``NVIDIA-H100-80GB-HBM3`` or ``nvidia-tesla-t4``; None: not in the table."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return next((product for part, product in PRODUCTS if f"-{part}-" in f"-{words}-"), None)


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
