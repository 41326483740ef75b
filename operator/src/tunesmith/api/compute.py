"""What training pods get: nodes, GPUs, how the work is shared, where pods run, volumes of one's own."""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith_contract.run_config import Offload

from .common import PodTemplate, Resources, StrictModel
from .rules import Rule, exactly_one, keyed_by
from .values import ClassName, GPUMemory, Image, ItemName, LabelValue, ObjectName, Quantity

#: Where the operator mounts what it brings itself.
_OWNED_PATHS = ("/mnt/tunesmith", "/etc/tunesmith", "/var/run/secrets", "/tmp", "/proc", "/sys", "/dev")
_OWNED_IN_CEL = ", ".join(f"'{path}'" for path in _OWNED_PATHS)
_SHARED_MEMORY = "/dev/shm"


class MatchExpression(StrictModel):
    """What a label of the node must be, as in a pod."""

    key: str = Field(min_length=1, max_length=316, description="The node's label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="How its value is compared."
    )
    values: Annotated[tuple[LabelValue, ...], Field(max_length=32)] | None = Field(
        None, description="With In, NotIn, Gt and Lt: what it is compared with."
    )


class NodeSelectorTerm(StrictModel):
    """All of its expressions must hold."""

    match_expressions: Annotated[tuple[MatchExpression, ...], Field(min_length=1, max_length=16)] = Field(
        description="What the node's labels must be."
    )


class RequiredNodes(StrictModel):
    """One of its terms must hold."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=8)] = Field(
        description="One of them must hold."
    )


class NodeAffinity(StrictModel):
    """Nodes by their labels."""

    required_during_scheduling_ignored_during_execution: RequiredNodes = Field(
        description="What a node must be."
    )


class Affinity(StrictModel):
    """Nodes by expressions over their labels, as in a pod."""

    node_affinity: NodeAffinity = Field(description="Nodes by their labels.")


class TopologySpread(StrictModel):
    """How the job's pods are spread over zones, racks or nodes. They are counted by the job's own labels."""

    max_skew: int = Field(
        1, ge=1, le=1024, description="How many more pods one domain may have than another."
    )
    topology_key: str = Field(
        min_length=1, max_length=316, description="The node label that names the domain."
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        "DoNotSchedule", description="What happens where it can't be: the pods wait, or go anywhere."
    )


class ClaimVolume(StrictModel):
    """A PersistentVolumeClaim."""

    claim_name: ObjectName = Field(description="Name of the claim.")
    read_only: bool = Field(False, description="True: pods can't write to it.")


class ConfigMapVolume(StrictModel):
    """A ConfigMap as files."""

    name: ObjectName = Field(description="Name of the ConfigMap.")


class SecretVolume(StrictModel):
    """A Secret as files."""

    secret_name: ObjectName = Field(description="Name of the Secret.")


class EmptyDirVolume(StrictModel):
    """An empty folder for the pod's life."""

    medium: Literal["", "Memory"] = Field("", description="Memory: in RAM, counted to the memory limit.")
    size_limit: Quantity | None = Field(None, description="The most it may hold, such as 16Gi.")


_KINDS = ("persistent_volume_claim", "config_map", "secret", "empty_dir")


class Volume(StrictModel):
    """A volume of the pods, beside those that URIs bring. Exactly one member beside name."""

    rules = (
        exactly_one(
            _KINDS,
            "Say in one way what the volume is: persistentVolumeClaim, configMap, secret or emptyDir, such as "
            "emptyDir: {}.",
        ),
    )

    name: ItemName = Field(description="Name that volumeMounts use.")
    persistent_volume_claim: ClaimVolume | None = Field(None, description="A PersistentVolumeClaim.")
    config_map: ConfigMapVolume | None = Field(None, description="A ConfigMap as files.")
    secret: SecretVolume | None = Field(None, description="A Secret as files.")
    empty_dir: EmptyDirVolume | None = Field(None, description="An empty folder for the pod's life.")


def _is_owned(path: str) -> bool:
    return path != _SHARED_MEMORY and any(f"{path}/".startswith(f"{owned}/") for owned in _OWNED_PATHS)


class VolumeMount(StrictModel):
    """Where a volume is seen in the pods."""

    rules = (
        Rule(
            f"self.mountPath == '{_SHARED_MEMORY}' || ![{_OWNED_IN_CEL}]"
            ".exists(owned, (self.mountPath + '/').startsWith(owned + '/'))",
            "This path belongs to the system or to the operator: mount it elsewhere, such as /data. /dev/shm may be "
            "replaced.",
            lambda mount: not _is_owned(mount.mount_path),
            ".mountPath",
        ),
        Rule(
            "self.mountPath.startsWith('/') && self.mountPath.size() > 1 && !self.mountPath.contains('..')"
            " && !self.mountPath.contains(':')",
            "Write a path below /, such as /data.",
            lambda mount: (
                mount.mount_path.startswith("/")
                and len(mount.mount_path) > 1
                and ".." not in mount.mount_path
                and ":" not in mount.mount_path
            ),
            ".mountPath",
        ),
    )

    name: ItemName = Field(description="Name of one of the volumes.")
    mount_path: str = Field(max_length=256, description="Where it is seen, such as /data.")
    read_only: bool = Field(False, description="True: pods can't write there.")


_OWN_KEYS = "tunesmith.dev/"
_QUEUE_NAME = "kueue.x-k8s.io/queue-name"


def _own_label(what: str) -> Rule:
    return Rule(
        f"self.all(key, !key.contains('{_OWN_KEYS}') && key != '{_QUEUE_NAME}')",
        f"{what} of tunesmith.dev are the operator's, and kueue.x-k8s.io/queue-name belongs into metadata.labels of "
        "the FineTuneJob: leave them out here.",
        lambda pairs: not any(_OWN_KEYS in key or key == _QUEUE_NAME for key in pairs),
    )


class TrainingPodTemplate(PodTemplate):
    """What the pods get beside their containers. Security settings are the operator's."""

    rules = (
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && "
            "self.volumes.exists(v, v.name == m.name))",
            "A volumeMount names a volume that is not there: write the name of one of template.volumes.",
            lambda template: (
                {mount.name for mount in template.volume_mounts or ()}
                <= {volume.name for volume in template.volumes or ()}
            ),
            ".volumeMounts",
        ),
    )

    labels: Annotated[dict[str, LabelValue], Field(max_length=16), _own_label("Labels")] | None = Field(
        None, description="Labels of the pods."
    )
    annotations: (
        Annotated[
            dict[str, Annotated[str, Field(max_length=1024)]],
            Field(max_length=16),
            _own_label("Annotations"),
        ]
        | None
    ) = Field(
        None,
        description="Annotations of the pods, such as {kueue.x-k8s.io/podset-required-topology: "
        "cloud.provider.com/topology-rack}.",
    )
    affinity: Affinity | None = Field(None, description="Nodes by expressions over their labels.")
    topology_spread_constraints: Annotated[tuple[TopologySpread, ...], Field(max_length=4)] | None = Field(
        None,
        description="How the pods are spread over zones, racks or nodes.",
        json_schema_extra=keyed_by("topologyKey", "whenUnsatisfiable"),
    )
    volumes: Annotated[tuple[Volume, ...], Field(max_length=16)] | None = Field(
        None,
        description="Volumes of your own, beside those that URIs bring.",
        json_schema_extra=keyed_by("name"),
    )
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=16)] | None = Field(
        None,
        description="Where the volumes are seen in the pods.",
        json_schema_extra=keyed_by("mountPath"),
    )
    priority_class_name: ClassName | None = Field(
        None,
        description="PriorityClass of the pods. With a Kueue queue label, a WorkloadPriorityClass is named by the "
        "label kueue.x-k8s.io/priority-class.",
    )


class Compute(StrictModel):
    """What the training pods get."""

    rules = (
        Rule(
            "self.gpusPerNode > 0 || self.offload == 'None'",
            "offload moves memory from GPUs to the host: with gpusPerNode: 0, leave it out.",
            lambda compute: compute.gpus_per_node > 0 or compute.offload is Offload.NONE,
            ".offload",
        ),
        Rule(
            "self.parallelism != 'DDP' || self.offload == 'None'",
            "DDP keeps all on the GPU: with offload, write parallelism: ZeRO2 or ZeRO3, or leave parallelism out.",
            lambda compute: compute.parallelism != "DDP" or compute.offload is Offload.NONE,
            ".offload",
        ),
        Rule(
            "self.parallelism != 'ZeRO2' || self.offload != 'All'",
            "ZeRO2 keeps the weights on the GPU: write offload: Optimizer, or parallelism: ZeRO3.",
            lambda compute: compute.parallelism != "ZeRO2" or compute.offload is not Offload.ALL,
            ".offload",
        ),
        Rule(
            "self.gpusPerNode > 0 || self.gpuMemory == 'Auto'",
            "gpuMemory is about GPUs: with gpusPerNode: 0, leave it out.",
            lambda compute: compute.gpus_per_node > 0 or compute.gpu_memory == "Auto",
            ".gpuMemory",
        ),
    )

    nodes: int = Field(
        1,
        ge=1,
        le=64,
        description="Pods that train together, each on a node of its own. More than one needs work files on a claim "
        "that all can write to (ReadWriteMany): see workspace.",
    )
    gpus_per_node: int = Field(1, ge=0, le=16, description="GPUs of each pod. 0: CPU only.")
    gpu_memory: GPUMemory = Field(
        "Auto",
        description="Memory of one GPU, such as 24Gi: what does not fit is refused before a GPU is asked for. Auto: "
        "from the labels of the nodes that the pods may go to.",
    )
    parallelism: Literal["Auto", "DDP", "ZeRO2", "ZeRO3"] = Field(
        "Auto",
        description="How GPUs share the work. DDP: each holds all. ZeRO2: gradients and optimizer are divided among "
        "them. ZeRO3: the weights too, which is slower and fits the most. Auto: the first that fits; "
        "status.resolved shows it.",
    )
    offload: Offload = Field(
        Offload.NONE,
        description="What is kept in the host's memory. Optimizer: the optimizer's state, with ZeRO2 or ZeRO3. All: "
        "the weights too, with ZeRO3. Slower.",
    )
    activation_checkpointing: bool | None = Field(
        None,
        description="Compute activations again instead of keeping them: less memory, about a fifth slower. Absent: "
        "Auto, by the size of the model; status.resolved shows it.",
    )
    resources: Resources | None = Field(None, description="CPU and memory of each pod.")
    image: Image | None = Field(None, description="A trainer image of your own. Absent: the operator's.")
    template: TrainingPodTemplate | None = Field(None, description="Where and as whom the pods run.")

    @property
    def devices(self) -> int:
        """Processes that train together: one per GPU, or one per pod without any."""
        return self.nodes * max(1, self.gpus_per_node)
