"""GPUs of a node, read from its labels: product, memory, compute capability, driver, and how they are shared.

Labels are those of NVIDIA's GPU feature discovery or AMD's node labeller, else of the cloud or of Karpenter, else the
type of the machine. For GPUs of other makers, people may label nodes themselves: ``<resource>.memory``, in MiB.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.api.pod_settings import GPU_RESOURCE
from tunesmith.manifests.gpu_placement import (
    AWS_LABELS,
    CAPABILITY_LABELS,
    CUDA_LABELS,
    DRIVER_LABELS,
    FAMILIES,
    FAMILY_LABEL,
    GKE_LABEL,
)
from tunesmith.manifests.gpu_requests import AMD
from tunesmith_contract.shared_rules.gpus import Product, find_product

GIB, MIB = 2**30, 2**20

#: Memory by the data sheet, in MiB.
_AWS_MEMORY_LABELS = ("karpenter.k8s.aws/instance-gpu-memory", "eks.amazonaws.com/instance-gpu-memory")
_GKE_PARTITION_LABEL = "cloud.google.com/gke-gpu-partition-size"
_GKE_SHARED_LABEL = "cloud.google.com/gke-max-shared-clients-per-gpu"
_MACHINE_LABEL = "node.kubernetes.io/instance-type"

#: Labels of AMD's node labeller, newer name first: memory in gibibytes, such as ``192G``; product; how each GPU is
#: divided, such as ``cpx_nps4``, or ``spx_nps1`` if it is not.
_AMD_MEMORY_LABELS = ("amd.com/gpu.vram", "beta.amd.com/gpu.vram")
_AMD_PRODUCT_LABELS = ("amd.com/gpu.product-name", "beta.amd.com/gpu.product-name")
_AMD_PARTITION_LABEL = "amd.com/compute-memory-partition"
_AMD_WHOLE = "spx_"
_AMD_MEMORY = re.compile(r"([0-9]+)G(i?B)?")

#: Full version of the driver, newer name first.
_DRIVER_VERSION_LABEL = "nvidia.com/cuda.driver-version.full"

#: GPUs of AWS machines by the family of their type, such as ``g5`` of ``g5.xlarge``.
_AWS_FAMILIES = {
    "p2": "k80", "p3": "v100", "p3dn": "v100", "p4d": "a100", "p4de": "a100-80gb", "p5": "h100", "p5e": "h200",
    "p5en": "h200", "p6-b200": "b200", "p6-b300": "b300", "g3": "m60", "g4dn": "t4", "g5": "a10g", "g5g": "t4g",
    "g6": "l4", "gr6": "l4", "g6e": "l40s", "g7e": "rtx-pro-6000",
}  # fmt: skip
#: Azure machines for computing; those of the NV series have parts of GPUs.
_AZURE = re.compile(r"standard_n[cd]", re.IGNORECASE)

#: A slice of a GPU (MIG), such as ``3g.40gb``: sevenths of its multiprocessors, and gigabytes of its memory.
_SLICE = re.compile(r"\b(\d)g\.(\d+)gb")
#: Bytes that a slice has of each gibibyte in its name: 4,864 MiB of 1g.5gb, 40,192 MiB of 3g.40gb.
_SLICE_SHARE = 0.95
#: Data sheets state up to this much more memory than there is for programs to see.
_ROUNDED = 1.15


@dataclass(frozen=True, slots=True)
class NodeGPU:
    """One GPU of a node as a pod gets it: a whole one, a slice of one, or a share of one.

    Attributes:
        name: the product's name as a label says it; empty if none does.
        memory: bytes of it; None: unknown.
        product: what is known of the product, with the speed of a slice if it is one; None: unknown.
        capability: compute capability; None: unknown.
        driver: version of the driver, such as ``535.274.02`` or its first part; empty if unknown.
        cuda: newest major version of CUDA that the driver runs; None: unknown.
        shared_by: pods that share the GPU.
    """

    name: str
    memory: int | None
    product: Product | None
    capability: tuple[int, int] | None
    driver: str
    cuda: int | None
    shared_by: int


def read_gpu(labels: Mapping[str, str], resource: str = GPU_RESOURCE) -> NodeGPU:
    """GPU that a pod with one of this resource gets on a node with these labels.

    Args:
        resource: ``nvidia.com/gpu``, a slice such as ``nvidia.com/mig-3g.40gb``, or that of another maker.
    """
    prefix = resource.removesuffix(".shared")
    names = _AMD_PRODUCT_LABELS if resource.startswith(AMD) else ()
    name = _first(labels, f"{prefix}.product", *names, GKE_LABEL, *AWS_LABELS)
    product = find_product(name) or find_product(_machine_gpu(labels))
    part = _SLICE.search(" ".join((resource, name, labels.get(_GKE_PARTITION_LABEL, ""))).lower())
    shared_by = max(1, _number(_first(labels, f"{prefix}.replicas", _GKE_SHARED_LABEL)) or 1)
    memory = _memory(labels, prefix, product, part)
    if product and part:
        product = replace(product, flops=product.flops * int(part[1]) / 7)
    return NodeGPU(
        name=name or _machine_gpu(labels),
        memory=None if memory is None else memory // shared_by,
        product=product,
        capability=_capability(labels, product),
        driver=_first(labels, _DRIVER_VERSION_LABEL, *DRIVER_LABELS),
        cuda=_number(_first(labels, *CUDA_LABELS)),
        shared_by=shared_by,
    )


def labels_of(node: Mapping[str, Any]) -> Mapping[str, str]:
    """Labels of a node."""
    return node["metadata"].get("labels") or {}


def _memory(
    labels: Mapping[str, str], prefix: str, product: Product | None, part: re.Match[str] | None
) -> int | None:
    """Bytes of a whole GPU or of a slice."""
    observed = _number(labels.get(f"{prefix}.memory", ""))
    if observed:
        return observed * MIB
    if prefix.startswith(AMD):
        return _amd_memory(labels, prefix)
    if part:
        return int(_SLICE_SHARE * int(part[2]) * GIB)
    stated = (_number(_first(labels, *_AWS_MEMORY_LABELS)) or 0) * MIB
    if not stated or (product and product.memory <= stated <= _ROUNDED * product.memory):
        return product.memory if product else None
    return stated


def _amd_memory(labels: Mapping[str, str], resource: str) -> int | None:
    """Bytes of a whole GPU of AMD. What a part of one has depends on the kind of its division, so it is unknown."""
    division = labels.get(_AMD_PARTITION_LABEL, _AMD_WHOLE)
    stated = _AMD_MEMORY.fullmatch(_first(labels, *_AMD_MEMORY_LABELS))
    if stated is None or not division.startswith(_AMD_WHOLE) or "px_" in resource.replace(_AMD_WHOLE, ""):
        return None
    return int(stated[1]) * GIB


def _capability(labels: Mapping[str, str], product: Product | None) -> tuple[int, int] | None:
    major, minor = (_number(labels.get(label, "")) for label in CAPABILITY_LABELS)
    if major is not None:
        return major, minor or 0
    return product.capability if product else FAMILIES.get(labels.get(FAMILY_LABEL, ""))


def _machine_gpu(labels: Mapping[str, str]) -> str:
    """Name of the GPU of a machine type of AWS or Azure; empty for others."""
    machine = labels.get(_MACHINE_LABEL, "")
    if _AZURE.match(machine):
        return machine if find_product(machine) else ""
    return _AWS_FAMILIES.get(machine.partition(".")[0], "")


def _first(labels: Mapping[str, str], *keys: str) -> str:
    """First value of the labels that is there; empty if none is."""
    return next((labels[key] for key in keys if labels.get(key)), "")


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
