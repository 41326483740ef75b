"""Compute resources of training and of data preparation: nodes, GPUs, parallelism, requests and limits."""

from typing import Literal

from pydantic import Field

from tunesmith_contract.run_config import Offload

from .common import Resources, StrictModel
from .pod_settings import CacheVolume, GPUResource, Network, TrainerEnv, gpu_rules
from .pod_template import PodTemplate
from .rules import Rule
from .values import GPUMemory, Image


class DataCompute(StrictModel):
    """Compute resources of the pods that generate and prepare the rows. They use no GPU."""

    rules = (
        Rule(
            "!has(self.template) || !has(self.template.resourceClaims)",
            "These pods use no GPU: leave resourceClaims out here, and write it in compute.template.",
            field=".template",
        ),
        Rule(
            "!has(self.template) || !has(self.template.runtimeClassName)",
            "runtimeClassName is for pods with GPUs, which these are not: leave it out here, and write it in "
            "compute.template.",
            field=".template",
        ),
    )

    resources: Resources | None = Field(
        None,
        description="CPU and memory requests and limits of each pod. If unset, a pod requests half a CPU and 1 GiB "
        "of memory to prepare rows, half of that to generate them, and has the limits of compute.resources, if any.",
    )
    template: PodTemplate | None = Field(
        None,
        description="Labels, scheduling, volumes and service account of the pods. A field that is unset is that of "
        "compute.template, except those that choose nodes with GPUs: affinity, topologySpreadConstraints, "
        "runtimeClassName, resourceClaims, and nodeSelector but for operating system, architecture, region and zone. "
        "Without a nodeSelector or affinity of their own, the pods prefer nodes without GPUs.",
    )


class Compute(StrictModel):
    """Compute resources of the training pods."""

    rules = (
        Rule(
            "self.gpusPerNode > 0 || self.offload == 'None'",
            "offload has no effect without GPUs: with gpusPerNode: 0, leave it out.",
            field=".offload",
        ),
        Rule(
            "self.parallelism != 'DDP' || self.offload == 'None'",
            "DDP keeps everything on the GPU: with offload, write parallelism: ZeRO2 or ZeRO3, or leave "
            "parallelism out.",
            field=".offload",
        ),
        Rule(
            "self.parallelism != 'ZeRO2' || self.offload != 'All'",
            "ZeRO2 keeps the weights on the GPU: write offload: Optimizer, or parallelism: ZeRO3.",
            field=".offload",
        ),
        *gpu_rules("gpusPerNode"),
        Rule(
            "!has(self.network) || (self.nodes > 1 && self.gpusPerNode > 0)",
            "network connects the GPUs of several nodes: with nodes: 1 or gpusPerNode: 0, leave it out.",
            field=".network",
        ),
        Rule(
            "!has(self.network) || !has(self.resources) || [has(self.resources.requests) ? self.resources.requests : "
            "{}, has(self.resources.limits) ? self.resources.limits : {}].all(r, !(self.network.resource in r))",
            "The network devices are also in resources: write them in network alone.",
            field=".network",
        ),
    )

    nodes: int = Field(
        1,
        ge=1,
        le=64,
        description="The number of pods that train together, each on its own node. More than one requires a "
        "workspace in a bucket, or on a PersistentVolumeClaim that all nodes can write to (ReadWriteMany).",
    )
    gpus_per_node: int = Field(
        1, ge=0, le=16, description="The number of GPUs of each pod. Set it to 0 to train on CPUs only."
    )
    gpu_memory: GPUMemory = Field(
        "Auto",
        description="The memory of one GPU, such as 24Gi. A job that does not fit into it fails before it "
        "requests a GPU. Auto: taken from the labels of the nodes that the pods may be scheduled to.",
    )
    gpu_resource: GPUResource = None
    network: Network | None = Field(
        None,
        description="Network devices of each pod for RDMA between the nodes, with nodes above 1. If unset, nodes "
        "exchange data over the pod network (TCP), which is several times slower.",
    )
    parallelism: Literal["Auto", "DDP", "ZeRO2", "ZeRO3"] = Field(
        "Auto",
        description="The distribution strategy of the GPUs. DDP: each GPU holds everything. ZeRO2: gradients and "
        "optimizer state are divided among the GPUs. ZeRO3: the weights are divided as well, which is"
        " slower and needs the least memory per GPU. Auto: the first of them that fits; "
        "status.resolved shows the choice.",
    )
    offload: Offload = Field(
        Offload.NONE,
        description="The part of the training state that is kept in host memory, which is slower. None: nothing. "
        "Optimizer: the optimizer state, with ZeRO2 or ZeRO3. All: the weights as well, with ZeRO3.",
    )
    activation_checkpointing: bool | None = Field(
        None,
        description="If true, activations are recomputed instead of kept, which takes less memory and is about a "
        "fifth slower. If unset, it is chosen by the size of the model; status.resolved shows the "
        "choice.",
    )
    resources: Resources | None = Field(
        None,
        description="CPU and memory requests and limits of each pod. A CPU limit is also the number of threads. Pods "
        "that generate and prepare rows have the same limits, unless dataset.compute.resources says others.",
    )
    image: Image | None = Field(
        None,
        description="The trainer image. If unset, the image that the operator was installed with is used.",
    )
    template: PodTemplate | None = Field(
        None, description="Labels, scheduling, volumes and service account of the pods."
    )
    env: TrainerEnv = ()
    cache_volume: CacheVolume | None = Field(
        None,
        description="A PersistentVolumeClaim that keeps models downloaded from the Hugging Face Hub for later pods. If "
        "unset, each pod downloads them again. If the volume cannot be used, the pod downloads without it.",
    )

    @property
    def devices(self) -> int:
        """Number of processes that train together: one per GPU, or one per pod without GPUs."""
        return self.nodes * max(1, self.gpus_per_node)
