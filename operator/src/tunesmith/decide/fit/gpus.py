"""Nodes that a job with GPUs may be scheduled to, those of them that can train, and what their GPUs have in common."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.api.pod_settings import GPU_RESOURCE
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.api.values import AUTO, memory_bytes
from tunesmith_contract.shared_rules.gpus import BFLOAT16_CAPABILITY, MINIMUM_DRIVERS, Product, minimum_branch

from .node_gpus import NodeGPU, labels_of, read_gpu

#: Maximum number of nodes that a message names for a cause, and of characters on all causes.
_MAX_NAMES = 3
_MAX_CAUSES = 1200


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Cause for which a node's GPUs can't train.

    Attributes:
        reason: ``DriverTooOld`` or ``UnsupportedGPU``.
        message: what the node has, and what training needs.
    """

    reason: FineTuneJobReason
    message: str


@dataclass(frozen=True, slots=True)
class ReachableGPUs:
    """GPUs that a job may get, as far as it is known before it asks for them.

    Attributes:
        memory: bytes of the smallest of them, or of its share of one; None: unknown.
        product: the slowest of them; None: unknown.
        note: a sentence on their memory: why it is unknown, or that it is shared.
        obstacle: why none of them can train, with a sentence that says what to do.
    """

    memory: int | None = None
    product: Product | None = None
    note: str = ""
    obstacle: Obstacle | None = None


def fitting_nodes(
    nodes: Iterable[Mapping[str, Any]],
    selector: Mapping[str, str] | None,
    tolerations: Iterable[Mapping[str, Any]] = (),
    gpus: int = 1,
    resource: str = GPU_RESOURCE,
) -> list[Mapping[str, Any]]:
    """Nodes that a pod with so many GPUs may be scheduled to, by labels, taints and allocatable GPUs.

    Such a pod tolerates taints with the key of GPU nodes, or of the resource, whatever their effect. Affinity is
    ignored: to consider more nodes than possible is the cautious choice.

    Args:
        resource: the resource that stands for a GPU or a slice of one.
    """
    own = ({"key": key, "operator": "Exists"} for key in (GPU_RESOURCE, resource))
    required, tolerated = (selector or {}).items(), (*tolerations, *own)
    return [
        node
        for node in nodes
        if required <= labels_of(node).items()
        and _allocatable(node, resource) >= gpus
        and all(_is_tolerated(taint, tolerated) for taint in node.get("spec", {}).get("taints") or ())
    ]


def find_obstacle(gpu: NodeGPU, cuda: int | None) -> Obstacle | None:
    """Cause for which a GPU can't train, as far as labels say.

    Args:
        cuda: major version of CUDA that the trainer image is built for; None: unknown.
    """
    if gpu.capability and gpu.capability < BFLOAT16_CAPABILITY:
        message = (
            f"{gpu.name or 'the GPU'} has compute capability {_version(gpu.capability)}, and training in bfloat16 "
            f"needs {_version(BFLOAT16_CAPABILITY)} or higher"
        )
        return Obstacle(FineTuneJobReason.UNSUPPORTED_GPU, message)
    if cuda is None:
        return None
    branch = gpu.driver.partition(".")[0]
    if branch.isdecimal():
        too_old, driver = int(branch) < minimum_branch(cuda), f"driver {gpu.driver}"
    else:
        too_old, driver = gpu.cuda is not None and gpu.cuda < cuda, f"a driver for CUDA {gpu.cuda}"
    if not too_old:
        return None
    message = f"{driver}, and CUDA {cuda} of the trainer image needs {MINIMUM_DRIVERS[cuda]} or newer"
    return Obstacle(FineTuneJobReason.DRIVER_TOO_OLD, message)


def usable_nodes(
    nodes: Iterable[Mapping[str, Any]], cuda: int | None, resource: str = GPU_RESOURCE
) -> list[Mapping[str, Any]]:
    """Nodes whose GPUs can train, as far as labels say."""
    return [node for node in nodes if find_obstacle(read_gpu(labels_of(node), resource), cuda) is None]


def describe_obstacles(
    nodes: Sequence[Mapping[str, Any]], cuda: int | None, resource: str = GPU_RESOURCE
) -> Obstacle | None:
    """Obstacles of nodes none of which can train, with their names; None if there is no node, or one that can."""
    names: dict[Obstacle, list[str]] = {}
    for node in nodes:
        obstacle = find_obstacle(read_gpu(labels_of(node), resource), cuda)
        if obstacle is None:
            return None
        names.setdefault(obstacle, []).append(node["metadata"]["name"])
    if not names:
        return None
    causes = "; ".join(f"{obstacle.message} ({_listed(each)})" for obstacle, each in names.items())
    if len(causes) > _MAX_CAUSES:
        causes = f"{causes[:_MAX_CAUSES]}…"
    # A driver can be replaced, so it is the reason if it is the obstacle of any node.
    driver = any(obstacle.reason is FineTuneJobReason.DRIVER_TOO_OLD for obstacle in names)
    reason = FineTuneJobReason.DRIVER_TOO_OLD if driver else FineTuneJobReason.UNSUPPORTED_GPU
    return Obstacle(reason, causes)


def node_memory(node: Mapping[str, Any], resource: str = GPU_RESOURCE) -> int | None:
    """Bytes of one GPU of a node by its labels, or None if unknown."""
    return read_gpu(labels_of(node), resource).memory


def smallest_memory(nodes: Iterable[Mapping[str, Any]], resource: str = GPU_RESOURCE) -> int | None:
    """Bytes of the smallest GPU of the nodes, or None if that of any node is unknown."""
    sizes = [node_memory(node, resource) for node in nodes]
    known_sizes = [size for size in sizes if size is not None]
    return min(known_sizes) if sizes and len(known_sizes) == len(sizes) else None


def slowest_product(nodes: Iterable[Mapping[str, Any]], resource: str = GPU_RESOURCE) -> Product | None:
    """Slowest GPU product of the nodes, or None if that of any node is unknown."""
    products = [read_gpu(labels_of(node), resource).product for node in nodes]
    known_products = [product for product in products if product is not None]
    if not products or len(known_products) < len(products):
        return None
    return min(known_products, key=lambda product: product.flops)


def most_sharing(nodes: Iterable[Mapping[str, Any]], resource: str = GPU_RESOURCE) -> int:
    """Largest number of pods that share a GPU on any of the nodes; 1 if none does."""
    return max((read_gpu(labels_of(node), resource).shared_by for node in nodes), default=1)


def resolve_gpu_memory(setting: str, observed: int | None) -> int | None:
    """Bytes of one GPU by ``compute.gpuMemory``, or as observed on the nodes with Auto; None: unknown."""
    return observed if setting == AUTO else memory_bytes(setting)


def _allocatable(node: Mapping[str, Any], resource: str) -> int:
    allocatable = node.get("status", {}).get("allocatable") or {}
    return int(allocatable.get(resource, 0))


def _is_tolerated(taint: Mapping[str, Any], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    """True if the taint does not keep a pod with these tolerations away."""
    if taint.get("effect") not in {"NoSchedule", "NoExecute"}:
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


def _version(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    more = len(names) - _MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
