"""GPUs that a FineTuneJob may get: of the nodes that its pods may be scheduled to, or that its node selector names."""

from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.api.values import AUTO

from .gpus import (
    Obstacle,
    ReachableGPUs,
    describe_obstacles,
    fitting_nodes,
    most_sharing,
    resolve_gpu_memory,
    slowest_product,
    smallest_memory,
    usable_nodes,
)

_WRITE_MEMORY = "write compute.gpuMemory, such as 24Gi, to have it compared."
_OTHER_NODES = (
    "name other nodes in compute.template.nodeSelector, or write compute.gpuMemory, such as 24Gi, if an autoscaler "
    "adds other nodes."
)
_ADVICE = {
    FineTuneJobReason.DRIVER_TOO_OLD: "Update the driver of the nodes, install the trainer image for an older CUDA "
    f"(docs/gpu.md), {_OTHER_NODES}",
    FineTuneJobReason.UNSUPPORTED_GPU: f"GPUs from NVIDIA's Ampere on can be used: {_OTHER_NODES}",
}


def find_reachable_gpus(
    spec: FineTuneJobSpec,
    nodes: Iterable[Mapping[str, Any]],
    cuda: int | None,
    tolerations: Iterable[Mapping[str, Any]] = (),
) -> ReachableGPUs:
    """GPUs that the training pods may get.

    Nodes that can't train are left out: the pods are kept off them. Where there are no others, training is refused,
    unless ``compute.gpuMemory`` says that other nodes will be there.

    Args:
        nodes: nodes of the cluster.
        cuda: major version of CUDA that the trainer image is built for; None: unknown.
        tolerations: those of all pods with GPUs, besides those of the job.
    """
    compute = spec.compute
    if compute.gpus_per_node == 0:
        return ReachableGPUs()
    fitting = _fitting_nodes(spec, nodes, tolerations) or _selected_node(spec)
    usable = usable_nodes(fitting, cuda, compute.gpu_resource)
    memory = resolve_gpu_memory(compute.gpu_memory, smallest_memory(usable, compute.gpu_resource))
    cause = describe_obstacles(fitting, cuda, compute.gpu_resource) if compute.gpu_memory == AUTO else None
    return ReachableGPUs(
        memory=memory,
        product=slowest_product(usable, compute.gpu_resource),
        note=_describe_memory(spec, usable, memory),
        obstacle=_with_advice(cause) if cause else None,
    )


def _fitting_nodes(
    spec: FineTuneJobSpec, nodes: Iterable[Mapping[str, Any]], tolerations: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Nodes that the training pods may be scheduled to."""
    compute, template = spec.compute, spec.compute.template
    written = [toleration.to_dict() for toleration in (template.tolerations or ())] if template else []
    selector = template.node_selector if template else None
    tolerated = [*written, *tolerations]
    return fitting_nodes(nodes, selector, tolerated, compute.gpus_per_node, compute.gpu_resource)


def _selected_node(spec: FineTuneJobSpec) -> list[Mapping[str, Any]]:
    """A node that an autoscaler would add, by the labels that it must have; none without a node selector."""
    template = spec.compute.template
    selector = template.node_selector if template else None
    return [{"metadata": {"name": "compute.template.nodeSelector", "labels": selector}}] if selector else []


def _describe_memory(spec: FineTuneJobSpec, usable: list[Mapping[str, Any]], memory: int | None) -> str:
    """Sentence on the memory of the GPUs; empty if there is nothing to say."""
    compute = spec.compute
    if compute.gpu_memory != AUTO:
        return ""
    if memory is None:
        if any("status" in node for node in usable):
            return (
                f"The memory of the GPUs is unknown, because no label of their nodes says it: {_WRITE_MEMORY}"
            )
        return (
            f"The memory of the GPUs is unknown, because no node with {compute.gpus_per_node} {compute.gpu_resource} "
            f"that the pods may be scheduled to is there (an autoscaler may add one): {_WRITE_MEMORY}"
        )
    pods = most_sharing(usable, compute.gpu_resource)
    return (
        f"Up to {pods} pods share a GPU; each is taken to use an equal part of its memory."
        if pods > 1
        else ""
    )


def _with_advice(cause: Obstacle) -> Obstacle:
    message = f"No node that the pods may be scheduled to can train: {cause.message}. {_ADVICE[cause.reason]}"
    return Obstacle(cause.reason, message)
