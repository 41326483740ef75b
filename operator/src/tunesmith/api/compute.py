"""Compute resources and pod settings of training: nodes, GPUs, parallelism, scheduling and volumes."""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith_contract.run_config import Offload

from .common import PodTemplate, Resources, StrictModel
from .pod_settings import GPU_RESOURCE, CacheVolume, GPUResource, Network, TrainerEnv, gpu_rules
from .rules import Rule, exactly_one, keyed_by
from .values import ClassName, GPUMemory, Image, ItemName, LabelValue, ObjectName, Quantity

#: Paths that the system or the operator uses.
_OWNED_PATHS = ("/mnt/tunesmith", "/etc/tunesmith", "/var/run/secrets", "/tmp", "/proc", "/sys", "/dev")
_OWNED_IN_CEL = ", ".join(f"'{path}'" for path in _OWNED_PATHS)
_SHARED_MEMORY = "/dev/shm"
_WHEN = "(has({0}.whenUnsatisfiable) ? {0}.whenUnsatisfiable : 'DoNotSchedule')"


class MatchExpression(StrictModel):
    """A requirement on one label of the node, as in a Pod."""

    key: str = Field(min_length=1, max_length=316, description="The key of the node's label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="The comparison of the label with values."
    )
    values: Annotated[tuple[LabelValue, ...], Field(max_length=32)] | None = Field(
        None, description="The values to compare with, for operators In, NotIn, Gt and Lt."
    )


class NodeSelectorTerm(StrictModel):
    """A list of requirements on node labels, all of which must hold."""

    match_expressions: Annotated[tuple[MatchExpression, ...], Field(min_length=1, max_length=16)] = Field(
        description="The requirements on the labels of the node."
    )


class RequiredNodes(StrictModel):
    """A list of terms, at least one of which must hold."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=8)] = Field(
        description="The terms. At least one of them must hold."
    )


class NodeAffinity(StrictModel):
    """Requirements on the nodes of the pods."""

    required_during_scheduling_ignored_during_execution: RequiredNodes = Field(
        description="The requirements that a node must meet when a pod is scheduled."
    )


class Affinity(StrictModel):
    """Node affinity of the pods, as in a Pod."""

    node_affinity: NodeAffinity = Field(description="The requirements on the nodes of the pods.")


class TopologySpread(StrictModel):
    """A constraint on the spread of the job's pods over zones, racks or nodes. The operator sets the label selector."""

    max_skew: int = Field(
        1, ge=1, le=1024, description="The largest difference of the number of pods between two domains."
    )
    topology_key: str = Field(
        min_length=1,
        max_length=316,
        description="The node label whose values are the domains, such as topology.kubernetes.io/zone.",
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        "DoNotSchedule",
        description="The behavior if the constraint cannot be met. DoNotSchedule: the pods wait. ScheduleAnyway: "
        "the pods are scheduled regardless.",
    )


class ClaimVolume(StrictModel):
    """A PersistentVolumeClaim as a volume."""

    claim_name: ObjectName = Field(description="The name of the PersistentVolumeClaim.")
    read_only: bool = Field(False, description="If true, pods cannot write to the volume.")


class ConfigMapVolume(StrictModel):
    """A ConfigMap as a volume of files."""

    name: ObjectName = Field(description="The name of the ConfigMap.")


class SecretVolume(StrictModel):
    """A Secret as a volume of files."""

    secret_name: ObjectName = Field(description="The name of the Secret.")


class EmptyDirVolume(StrictModel):
    """An initially empty folder that lasts as long as the pod."""

    medium: Literal["", "Memory"] = Field(
        "", description="The storage medium. Memory: a tmpfs in RAM, which counts towards the memory limit."
    )
    size_limit: Quantity | None = Field(None, description="The maximum size of the volume, such as 16Gi.")


_KINDS = ("persistent_volume_claim", "config_map", "secret", "empty_dir")


class Volume(StrictModel):
    """An additional volume of the pods. Exactly one member besides name must be set."""

    rules = (
        exactly_one(
            _KINDS,
            "Set exactly one kind of volume: persistentVolumeClaim, configMap, secret or emptyDir, such "
            "as emptyDir: {}.",
        ),
    )

    name: ItemName = Field(description="The name of the volume, used by volumeMounts.")
    persistent_volume_claim: ClaimVolume | None = Field(None, description="A PersistentVolumeClaim.")
    config_map: ConfigMapVolume | None = Field(None, description="A ConfigMap, whose keys become files.")
    secret: SecretVolume | None = Field(None, description="A Secret, whose keys become files.")
    empty_dir: EmptyDirVolume | None = Field(
        None, description="An initially empty folder that lasts as long as the pod."
    )


class VolumeMount(StrictModel):
    """A mount of one of the volumes."""

    rules = (
        Rule(
            f"self.mountPath == '{_SHARED_MEMORY}' || ![{_OWNED_IN_CEL}]"
            ".exists(owned, (self.mountPath + '/').startsWith(owned + '/'))",
            "This path is reserved for the system or the operator: use another one, such as /data. Only "
            "/dev/shm may be replaced.",
            field=".mountPath",
        ),
        Rule(
            "self.mountPath.startsWith('/') && self.mountPath.size() > 1 && !self.mountPath.contains('..')"
            " && !self.mountPath.contains(':')",
            "Write an absolute path, such as /data, without '..' and ':'.",
            field=".mountPath",
        ),
    )

    name: ItemName = Field(description="The name of one of the volumes.")
    mount_path: str = Field(
        max_length=256, description="The path at which the volume is mounted, such as /data."
    )
    read_only: bool = Field(False, description="If true, pods cannot write to the mount.")


_OWN_KEYS = "tunesmith.dev/"
_QUEUE_NAME = "kueue.x-k8s.io/queue-name"


def _reserved_keys(subject: str) -> Rule:
    return Rule(
        f"self.all(key, !key.contains('{_OWN_KEYS}') && key != '{_QUEUE_NAME}')",
        f"{subject} of tunesmith.dev are reserved for the operator, and kueue.x-k8s.io/queue-name belongs in "
        "metadata.labels of the FineTuneJob: leave them out here.",
    )


class TrainingPodTemplate(PodTemplate):
    """Pod settings outside the containers. The operator manages security settings."""

    rules = (
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && "
            "self.volumes.exists(v, v.name == m.name))",
            "A volumeMount names a volume that does not exist: write the name of one of template.volumes.",
            field=".volumeMounts",
        ),
        Rule(
            "!has(self.topologySpreadConstraints) || self.topologySpreadConstraints.all(c, "
            "self.topologySpreadConstraints.exists_one(o, o.topologyKey == c.topologyKey && "
            f"{_WHEN.format('o')} == {_WHEN.format('c')}))",
            "Two topologySpreadConstraints have the same topologyKey and whenUnsatisfiable: leave one of them out.",
            field=".topologySpreadConstraints",
        ),
    )

    labels: Annotated[dict[str, LabelValue], Field(max_length=16), _reserved_keys("Labels")] | None = Field(
        None, description="Additional labels of the pods."
    )
    annotations: (
        Annotated[
            dict[str, Annotated[str, Field(max_length=1024)]],
            Field(max_length=16),
            _reserved_keys("Annotations"),
        ]
        | None
    ) = Field(
        None,
        description="Additional annotations of the pods, such as {kueue.x-k8s.io/podset-required-topology: "
        "cloud.provider.com/topology-rack}.",
    )
    affinity: Affinity | None = Field(None, description="The node affinity of the pods.")
    topology_spread_constraints: Annotated[tuple[TopologySpread, ...], Field(max_length=4)] | None = Field(
        None,
        description="Constraints on the spread of the pods over zones, racks or nodes.",
    )
    volumes: Annotated[tuple[Volume, ...], Field(max_length=16)] | None = Field(
        None,
        description="Additional volumes, beside those that the operator mounts for URIs.",
        json_schema_extra=keyed_by("name"),
    )
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=16)] | None = Field(
        None,
        description="The mounts of the additional volumes.",
        json_schema_extra=keyed_by("mountPath"),
    )
    priority_class_name: ClassName | None = Field(
        None,
        description="The PriorityClass of the pods. With a Kueue queue label, use the label "
        "kueue.x-k8s.io/priority-class of the FineTuneJob for a WorkloadPriorityClass instead.",
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
        "workspace on a PersistentVolumeClaim that all nodes can write to (ReadWriteMany).",
    )
    gpus_per_node: int = Field(
        1, ge=0, le=16, description="The number of GPUs of each pod. Set it to 0 to train on CPUs only."
    )
    gpu_memory: GPUMemory = Field(
        "Auto",
        description="The memory of one GPU, such as 24Gi. A job that does not fit into it fails before it "
        "requests a GPU. Auto: taken from the labels of the nodes that the pods may be scheduled to.",
    )
    gpu_resource: GPUResource = GPU_RESOURCE
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
        description="CPU and memory requests and limits of each pod. A CPU limit is also the number of threads.",
    )
    image: Image | None = Field(
        None,
        description="The trainer image. If unset, the image that the operator was installed with is used.",
    )
    template: TrainingPodTemplate | None = Field(
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
