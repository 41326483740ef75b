"""GPUs that pods may get: of the nodes that they may be scheduled to, or that their node selector names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.api.pod_template import PodTemplate
from tunesmith.api.values import AUTO
from tunesmith.manifests.environment import GPUNeeds
from tunesmith_contract.report import GPUReason

from .gpus import (
    Obstacle,
    ReachableGPUs,
    describe_obstacles,
    fitting_nodes,
    largest_memory,
    most_sharing,
    resolve_gpu_memory,
    slowest_product,
    smallest_memory,
    usable_nodes,
    version_text,
)


@dataclass(frozen=True, slots=True)
class GPURequest:
    """GPUs that each pod requests, and where the pods may be scheduled, as a resource's spec says.

    Attributes:
        gpus: number of GPUs of each pod.
        resource: the resource that stands for a GPU or a slice of one; empty: they come with resource claims.
        memory: memory of one GPU, such as ``24Gi``, or ``Auto``.
        template: scheduling of the pods.
        field: the field with these settings, ``compute`` or ``engine``.
    """

    gpus: int
    resource: str
    memory: str
    template: PodTemplate | None
    field: str

    @property
    def selector(self) -> Mapping[str, str]:
        """Labels that a node must have."""
        return (self.template.node_selector if self.template else None) or {}

    @property
    def tolerations(self) -> list[dict[str, Any]]:
        """Tolerations of the pods, as written."""
        return [each.to_dict() for each in (self.template.tolerations or ())] if self.template else []


def find_reachable_gpus(
    request: GPURequest,
    nodes: Iterable[Mapping[str, Any]],
    needs: GPUNeeds,
    tolerations: Iterable[Mapping[str, Any]] = (),
) -> ReachableGPUs:
    """GPUs that the pods may get.

    Nodes whose GPUs the image can't use are left out: the pods are kept off them. Where there are no others, the pods
    are refused, unless the memory that is written says that other nodes will be there.

    Args:
        nodes: nodes of the cluster.
        needs: what the pods' image needs.
        tolerations: those of all pods with GPUs, besides those of the request.
    """
    if request.gpus == 0:
        return ReachableGPUs()
    if not request.resource:
        memory = resolve_gpu_memory(request.memory, None)
        return ReachableGPUs(memory, memory, note=_describe_memory(request, [], memory))
    tolerated = [*request.tolerations, *tolerations]
    fitting = fitting_nodes(nodes, request.selector, tolerated, request.gpus, request.resource)
    fitting = fitting or _selected_node(request)
    usable = usable_nodes(fitting, needs, request.resource)
    memory = resolve_gpu_memory(request.memory, smallest_memory(usable, request.resource))
    largest = resolve_gpu_memory(request.memory, largest_memory(usable, request.resource))
    cause = describe_obstacles(fitting, needs, request.resource) if request.memory == AUTO else None
    return ReachableGPUs(
        memory=memory,
        largest=largest,
        product=slowest_product(usable, request.resource),
        note=_describe_memory(request, usable, memory),
        obstacle=_with_advice(cause, request, needs) if cause and not usable else None,
        left_out=f"The pods are kept off nodes: {cause.message}." if cause and usable else "",
    )


def _selected_node(request: GPURequest) -> list[Mapping[str, Any]]:
    """A node that an autoscaler would add, by the labels that it must have; none without a node selector."""
    name = f"{request.field}.template.nodeSelector"
    return [{"metadata": {"name": name, "labels": request.selector}}] if request.selector else []


def _describe_memory(request: GPURequest, usable: list[Mapping[str, Any]], memory: int | None) -> str:
    """Sentence on the memory of the GPUs; empty if there is nothing to say."""
    if request.memory != AUTO:
        return ""
    if memory is None:
        if not request.resource:
            cause = "resource claims do not say it"
        elif any("status" in node for node in usable):
            cause = "no label of their nodes says it"
        else:
            cause = (
                f"no node with {request.gpus} {request.resource} that the pods may be scheduled to is there (an "
                "autoscaler may add one)"
            )
        return (
            f"The memory of the GPUs is unknown, because {cause}: write {request.field}.gpuMemory, such as 24Gi, to "
            "have it compared."
        )
    pods = most_sharing(usable, request.resource)
    return (
        f"Up to {pods} pods share a GPU; each is taken to use an equal part of its memory."
        if pods > 1
        else ""
    )


def _with_advice(cause: Obstacle, request: GPURequest, needs: GPUNeeds) -> Obstacle:
    """The obstacle of all nodes, with what to do."""
    field = request.field
    if cause.reason is GPUReason.DRIVER_TOO_OLD:
        advice = f"Update the driver of the nodes, install the {needs.image} for an older CUDA (docs/gpu.md),"
    else:
        advice = f"GPUs with compute capability {version_text(needs.capability)} or higher can be used:"
    message = (
        f"No node that the pods may be scheduled to can be used: {cause.message}. {advice} name other nodes in "
        f"{field}.template.nodeSelector, or write {field}.gpuMemory, such as 24Gi, if an autoscaler adds other nodes."
    )
    return Obstacle(cause.reason, message)
