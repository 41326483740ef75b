"""Pod settings outside the containers: labels, scheduling, devices, volumes and service account.

One type for the pods of all stages and for serving pods.
"""

from typing import Annotated, Literal

from pydantic import Field

from .common import CABundleSource, Proxy, SecretName, StrictModel, Toleration
from .rules import Rule, exactly_one, keyed_by
from .values import ClassName, HubUrl, ItemName, LabelValue, ObjectName, Quantity

#: Paths that the system or the operator uses.
_OWNED_PATHS = (
    "/mnt/tunesmith",
    "/etc/tunesmith",
    "/tunesmith",
    "/run/tunesmith",
    "/var/cache/tunesmith",
    "/var/cache/tunesmith-adapters",
    "/var/run/secrets",
    "/tmp",
    "/proc",
    "/sys",
    "/dev",
)
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
        "metadata.labels of the resource: leave them out here.",
    )


class ResourceClaim(StrictModel):
    """A ResourceClaim of the pods (dynamic resource allocation). Exactly one member besides name must be set."""

    rules = (
        exactly_one(
            ("resource_claim_name", "resource_claim_template_name"),
            "Set exactly one of resourceClaimTemplateName, for devices of each pod, and resourceClaimName, for devices "
            "that all pods share.",
        ),
    )

    name: ItemName = Field(description="The name of the claim within the pods.")
    resource_claim_name: ObjectName | None = Field(
        None, description="The name of a ResourceClaim in the namespace, which all pods share."
    )
    resource_claim_template_name: ObjectName | None = Field(
        None,
        description="The name of a ResourceClaimTemplate in the namespace, of which each pod gets a claim of its own.",
    )


class PodTemplate(StrictModel):
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

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=16)] | None = Field(
        None, description="Labels that a node must have to run the pods."
    )
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] | None = Field(
        None, description="Taints that the pods tolerate."
    )
    priority_class_name: ClassName | None = Field(
        None,
        description="The PriorityClass of the pods. With a Kueue queue label, use the label "
        "kueue.x-k8s.io/priority-class of the resource for a WorkloadPriorityClass instead.",
    )
    runtime_class_name: ClassName | None = Field(
        None,
        description="The RuntimeClass of the pods that use GPUs, such as nvidia. Needed where the NVIDIA runtime is "
        "not the default of the nodes, as on K3s and RKE2. Pods that use no GPU run without it.",
    )
    scheduler_name: ClassName | None = Field(
        None, description="The scheduler of the pods. If unset, the default scheduler of the cluster is used."
    )
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = Field(
        None,
        description="The time in seconds that a pod has to end after it was asked to, before it is killed. If unset, "
        "the operator chooses it: for training by the size of a checkpoint, from 2 minutes to 1 hour. Pods that "
        "generate or prepare rows have their own. Nodes that are shut down or reclaimed may give less.",
    )
    service_account_name: ClassName | None = Field(
        None,
        description="The ServiceAccount of the pods. No token for the Kubernetes API is mounted, whichever "
        "account is used.",
    )
    image_pull_secrets: Annotated[tuple[SecretName, ...], Field(max_length=8)] | None = Field(
        None,
        description="Secrets for pulling the images.",
        json_schema_extra=keyed_by("name"),
    )
    labels: Annotated[dict[str, LabelValue], Field(max_length=16), _reserved_keys("Labels")] | None = Field(
        None,
        description="Additional labels of the pods, such as {azure.workload.identity/use: 'true'}, by which pods on "
        "AKS get the identity of their ServiceAccount.",
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
        description="Additional volumes, beside those that the operator makes.",
        json_schema_extra=keyed_by("name"),
    )
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=16)] | None = Field(
        None,
        description="The mounts of the additional volumes, in the container that reads the model or the rows.",
        json_schema_extra=keyed_by("mountPath"),
    )
    resource_claims: Annotated[tuple[ResourceClaim, ...], Field(min_length=1, max_length=8)] | None = Field(
        None,
        description="Devices by dynamic resource allocation (DRA), such as [{name: gpus, resourceClaimTemplateName: "
        "two-gpus}]. The container with the GPUs gets all of them. Unless gpuResource is written too, it then asks for "
        "no GPU in another way. The number of GPUs must be that of the claims.",
        json_schema_extra=keyed_by("name"),
    )
    proxy: Proxy | None = Field(
        None,
        description="The proxy through which the pods reach addresses outside the cluster, instead of that of the "
        "installation.",
    )
    ca_bundle: CABundleSource | None = Field(
        None,
        description="The certificate authorities that the pods trust beside the public ones, instead of those of the "
        "installation.",
    )
    hf_endpoint: HubUrl | None = Field(
        None,
        description="The URL of a mirror of the Hugging Face Hub for hf:// URIs, such as "
        "https://artifacts.example.com/api/huggingfaceml/hub. The pods get it as HF_ENDPOINT. If unset, that of the "
        "installation, or the hub itself.",
    )
