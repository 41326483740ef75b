"""Jobs whose pods run the trainer image with a ``run.json``; the common part of all stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.common import PodTemplate, Resources
from tunesmith.api.pod_settings import GPU_RESOURCE, CacheVolume, Network, TrainerEnvVar
from tunesmith.api.values import memory_bytes
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.layout import (
    ATTEMPT_ENV,
    CA_FILE,
    CONFIG_DIR,
    CPUS_ENV,
    CREDENTIALS_DIR,
    MODEL_CACHE_ENV,
    RUN_FILE,
    TOKEN_FILE,
)
from tunesmith_contract.progress import CA_CERT_ENV, PROGRESS_PATH, SERVER_URL_ENV, TOKEN_ENV
from tunesmith_contract.stages import Stage
from tunesmith_contract.uris import MOUNT_ROOT, MOUNTED, Scheme, StorageUri

from .environment import Environment
from .evaluation_engine import EvaluationEngine, build_evaluation_engine, engine_volume
from .gang_service import gang_variables
from .gpu_placement import usable_node_requirements, with_requirements
from .names import (
    ONE_NODE_ANNOTATION,
    PLURALS,
    TRAINER_CONTAINER,
    Owner,
    child_labels,
    child_metadata,
    child_name,
    queue_labels,
)
from .objects import KubernetesObject
from .outbound import outbound_of
from .pods import (
    HUB_CACHE,
    RUN_AS_USER,
    cache_volume,
    credentials_volume,
    environment_variables,
    on_one_node,
    pod_placement,
    restricted_container_security,
    restricted_pod_security,
    scratch_volume,
    secret_volumes,
    storage_volumes,
)
from .sidecars import Sidecar, build_pause_container, build_sidecar, sidecar_volumes

SECRET_KEY = "token"

#: A cap, not a reservation: what is not mounted is fetched to the scratch space, and work files in a bucket lie there.
SCRATCH = "8Gi"
SCRATCH_TO_FETCH = "256Gi"
DISK = "ephemeral-storage"
SHARED_MEMORY = "8Gi"

#: Makes the trainer the usual user with one capability. A capability in a security context reaches root alone: a
#: process of another user loses it when it starts, unless it is ambient, which Kubernetes has no field for.
KEEP_IPC_LOCK = (
    "setpriv",
    f"--reuid={RUN_AS_USER}",
    "--regid=0",
    "--keep-groups",
    "--inh-caps=+ipc_lock",
    "--ambient-caps=+ipc_lock",
)

_CACHE = str(MOUNT_ROOT / "cache")

_NOT_PLACEMENT = frozenset(
    {"labels", "annotations", "volumes", "volumeMounts", "terminationGracePeriodSeconds"}
)

_FATAL_EXIT_CODES = (
    ExitCode.USER_ERROR,
    ExitCode.DATA_ERROR,
    ExitCode.OUT_OF_MEMORY,
    ExitCode.INTERNAL_ERROR,
)


@dataclass(frozen=True, slots=True)
class TrainerPod:
    """The pod of one stage.

    Attributes:
        image: the trainer image.
        config_map: the snapshot that holds the stage's configuration.
        ca_config_map: the snapshot that holds the authority of the operator.
        reads, writes: the storage that the pod is given.
        requests: default requests of the container, below those in ``resources``.
        resources, template: settings in the spec.
        token_secret: a Secret whose key ``token`` opens the hub.
        secrets: Secrets by the role in which the pod finds them.
        gpus, gpu_resource: GPUs of the pod, and the extended resource by which nodes offer them.
        network: network devices of the pod.
        env: variables that people write.
        cache: a claim for downloaded models.
        grace_seconds: from the first signal to the end: time to commit a checkpoint.
        nodes: pods that work together, over a network of their own.
        shares: pods that divide the work among themselves, without a connection.
        one_node_for: name of a claim that only pods on one node can share: all of them run on one.
        longest_seconds: run time limit of the pod, enforced by its kubelet.
        variables: more environment variables.
        config_key: key of the configuration in the snapshot, mounted as ``run.json``.
        sidecars: containers beside the trainer's.
        engine: engine that answers for an evaluation, with the GPUs of the pod.
    """

    image: str
    config_map: str
    ca_config_map: str
    reads: tuple[StorageUri, ...]
    writes: tuple[StorageUri, ...]
    requests: Mapping[str, str]
    resources: Resources | None = None
    template: PodTemplate | None = None
    token_secret: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    gpu_resource: str = GPU_RESOURCE
    network: Network | None = None
    env: tuple[TrainerEnvVar, ...] = ()
    cache: CacheVolume | None = None
    grace_seconds: int = 30
    nodes: int = 1
    shares: int = 1
    one_node_for: str = ""
    longest_seconds: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    config_key: str = RUN_FILE
    sidecars: tuple[Sidecar, ...] = ()
    engine: EvaluationEngine | None = None

    @property
    def schemes(self) -> frozenset[Scheme]:
        """Kinds of storage that the pod reads or writes."""
        return frozenset(uri.scheme for uri in (*self.reads, *self.writes))

    @property
    def devices(self) -> dict[str, int]:
        """Extended resources of the container: GPUs and network devices."""
        gpus = {self.gpu_resource: self.gpus} if self.gpus else {}
        return gpus | ({self.network.resource: self.network.count} if self.network else {})

    @property
    def pod_devices(self) -> dict[str, int]:
        """Extended resources of all containers."""
        return self.devices | (self.engine.devices if self.engine else {})

    @property
    def locks_memory(self) -> bool:
        """True if the trainer keeps the capability to lock any amount of memory."""
        return self.network is not None and self.network.ipc_lock


def build_trainer_job(
    owner: Owner, stage: Stage, attempt: int, pod: TrainerPod, environment: Environment
) -> KubernetesObject:
    """The Job of one attempt: it tries once, and the operator decides what follows.

    Indexed, so that each pod's host name is known beforehand. Kueue changes the template, so the Job is created
    and never applied again, and ``suspend`` is left out.
    """
    metadata = child_metadata(owner, stage, attempt)
    metadata["labels"] |= queue_labels(owner)
    spec = _pod_spec(owner, stage, attempt, pod, environment)
    if pod.gpus or (pod.engine and pod.engine.gpus):
        needs = pod.engine.needs if pod.engine else environment.trainer_needs(pod.image)
        requirements = usable_node_requirements(needs)
        spec["affinity"] = with_requirements(spec.get("affinity"), requirements)
    labels = child_labels(owner, stage, attempt)
    metadata_of_pods = _pod_metadata(labels, pod.template)
    if pod.one_node_for:
        spec["affinity"] = on_one_node(spec.get("affinity"), labels)
        metadata_of_pods.setdefault("annotations", {})[ONE_NODE_ANNOTATION] = pod.one_node_for
    template = {
        "metadata": metadata_of_pods,
        "spec": spec,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "completionMode": "Indexed",
            "completions": pod.nodes * pod.shares,
            "parallelism": pod.nodes * pod.shares,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _pod_failure_policy(),
            "template": template,
        },
    }


def _pod_failure_policy() -> dict[str, Any]:
    """With one try any failure ends the Job; the rules make the Job say why, for when its pods are gone."""
    disrupted = {
        "action": "FailJob",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    # The API server refuses codes that are not in ascending order.
    codes = sorted(int(code) for code in (*_FATAL_EXIT_CODES, ExitCode.PREEMPTED))
    exited = {
        "action": "FailJob",
        "onExitCodes": {"containerName": TRAINER_CONTAINER, "operator": "In", "values": codes},
    }
    return {"rules": [disrupted, exited]}


def _pod_spec(
    owner: Owner, stage: Stage, attempt: int, pod: TrainerPod, environment: Environment
) -> dict[str, Any]:
    volumes, mounts = _volumes(pod)
    outbound, assigned_ids = outbound_of(pod.template, environment.outbound), environment.assigned_ids
    # The contract of sidecars promises no network, and one of them runs the code of answers: they get neither a proxy,
    # which may have a password, nor authorities.
    beside = [build_sidecar(sidecar, assigned_ids=assigned_ids) for sidecar in pod.sidecars]
    if pod.engine:
        beside.append(outbound.extend(build_evaluation_engine(pod.engine, _engine_mounts(mounts))))
    if beside:
        beside.append(build_pause_container(pod.image, assigned_ids=assigned_ids))
    first = outbound.build_init_containers(pod.image, restricted_container_security())
    container = {
        "name": TRAINER_CONTAINER,
        "image": pod.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [
            *(KEEP_IPC_LOCK if pod.locks_memory else ()),
            "python",
            "-m",
            "tunesmith_trainer",
            str(stage),
        ],
        "env": _environment_variables(owner, child_name(owner, stage, attempt), attempt, pod, environment),
        "resources": _resources(pod),
        "securityContext": _container_security(pod),
        # An image that dies before its last word still says why: the end of its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": pod.grace_seconds,
        "securityContext": restricted_pod_security(assigned_ids=assigned_ids),
        **({"initContainers": [*first, *beside]} if first or beside else {}),
        "containers": [outbound.extend(container)],
        "volumes": [*volumes, *outbound.build_volumes(optional=False)],
        **({"subdomain": child_name(owner, stage, attempt)} if pod.nodes > 1 else {}),
        **({"activeDeadlineSeconds": pod.longest_seconds} if pod.longest_seconds else {}),
        **_placement(owner, stage, pod, environment),
    }


def _container_security(pod: TrainerPod) -> dict[str, Any]:
    """``restricted``, or with what ``KEEP_IPC_LOCK`` needs: it starts as root with three capabilities."""
    restricted = restricted_container_security()
    if not pod.locks_memory:
        return restricted
    capabilities = {"drop": ["ALL"], "add": ["IPC_LOCK", "SETGID", "SETUID"]}
    return restricted | {"runAsUser": 0, "runAsNonRoot": False, "capabilities": capabilities}


def _volumes(pod: TrainerPod) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes, mounts = storage_volumes(pod.reads, writable=pod.writes)
    secrets, secret_mounts = secret_volumes(pod.secrets)
    template_volumes, template_mounts = _template_volumes(pod.template)
    shared_volumes, shared_mounts = sidecar_volumes(pod.sidecars)
    config_map = {"name": pod.config_map, "items": [{"key": pod.config_key, "path": RUN_FILE}]}
    own = [
        (
            {"name": "config", "configMap": config_map},
            {"name": "config", "mountPath": str(CONFIG_DIR), "readOnly": True},
        ),
        credentials_volume(pod.ca_config_map),
        scratch_volume(_scratch_size(pod)),
    ]
    # The processes of vLLM talk over shared memory on any number of devices; a container has 64 MiB of its own.
    needs_shared_memory = pod.engine is not None or sum(pod.pod_devices.values()) > 1
    if needs_shared_memory and "/dev/shm" not in {mount["mountPath"] for mount in template_mounts}:
        shared_memory = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}
        own.append((shared_memory, {"name": "shm", "mountPath": "/dev/shm"}))
    if pod.engine:
        own.append(engine_volume())
    if pod.cache:
        own.append(cache_volume(pod.cache, _CACHE))
    return (
        [*volumes, *(volume for volume, _ in own), *secrets, *shared_volumes, *template_volumes],
        [*mounts, *(mount for _, mount in own), *secret_mounts, *shared_mounts, *template_mounts],
    )


def _engine_mounts(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trainer's mounts of storage and scratch space: neither Secrets, credentials nor configuration."""
    shared = ("/tmp", "/dev/shm", _CACHE)
    return [mount for mount in mounts if mount["mountPath"] in shared or mount["name"].startswith("storage-")]


def _scratch_size(pod: TrainerPod) -> str:
    """Size limit of the scratch space, in which all that the pod requests of the node's disk must fit."""
    cap = SCRATCH_TO_FETCH if pod.schemes - MOUNTED else SCRATCH
    return max(cap, pod.requests.get(DISK, cap), key=memory_bytes)


def _template_volumes(template: PodTemplate | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes of the pod template, renamed so that they can't clash with the operator's."""
    written = template.to_dict() if template else {}
    volumes = [volume | {"name": f"own-{volume['name']}"} for volume in written.get("volumes", ())]
    mounts = [mount | {"name": f"own-{mount['name']}"} for mount in written.get("volumeMounts", ())]
    return volumes, mounts


def _environment_variables(
    owner: Owner, name: str, attempt: int, pod: TrainerPod, environment: Environment
) -> list[dict[str, Any]]:
    path = PROGRESS_PATH.format(
        namespace=owner.metadata.namespace, plural=PLURALS[owner.kind], name=owner.metadata.name
    )
    values = {
        "HOME": "/tmp",
        SERVER_URL_ENV: environment.operator_url + path,
        CA_CERT_ENV: str(CREDENTIALS_DIR / CA_FILE),
        TOKEN_ENV: str(CREDENTIALS_DIR / TOKEN_FILE),
        ATTEMPT_ENV: str(attempt),
        # TRL reports each training to Hugging Face otherwise.
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **gang_variables(name, pod.nodes),
        **pod.variables,
    }
    if Scheme.HF not in pod.schemes:
        values["HF_HUB_OFFLINE"] = "1"
    if pod.cache:
        values[MODEL_CACHE_ENV] = f"{_CACHE}/{HUB_CACHE}"
    variables = environment_variables(values, pod.env)
    if "OMP_NUM_THREADS" not in {variable.name for variable in pod.env}:
        # OpenMP starts a thread for each core of the node, whatever the container's limit; without a limit these
        # variables hold the node's cores. By the second one the launcher knows that workers are to share them.
        cores = {"resource": "limits.cpu", "containerName": TRAINER_CONTAINER}
        threads = {"valueFrom": {"resourceFieldRef": cores}}
        variables += [{"name": "OMP_NUM_THREADS", **threads}, {"name": CPUS_ENV, **threads}]
    if pod.token_secret:
        reference = {"name": pod.token_secret, "key": SECRET_KEY}
        variables.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return variables


def effective_requests(defaults: Mapping[str, str], resources: Resources | None) -> dict[str, str]:
    """Requests of a container as Kubernetes completes them: a limit without a request is the request."""
    limits = (resources and resources.limits) or {}
    return {**defaults, **limits, **((resources and resources.requests) or {})}


def _resources(pod: TrainerPod) -> dict[str, Any]:
    """The stage's requests under what people wrote; a limit alone is its own request, as in Kubernetes."""
    limits = dict((pod.resources and pod.resources.limits) or {})
    defaults = {name: amount for name, amount in pod.requests.items() if name not in limits}
    requests = defaults | dict((pod.resources and pod.resources.requests) or {})
    limits |= {name: str(count) for name, count in pod.devices.items()}
    return {"requests": requests} | ({"limits": limits} if limits else {})


def _pod_metadata(labels: dict[str, str], template: PodTemplate | None) -> dict[str, Any]:
    written = template.to_dict() if template else {}
    metadata: dict[str, Any] = {"labels": written.get("labels", {}) | labels}
    return metadata | ({"annotations": written["annotations"]} if written.get("annotations") else {})


def _placement(owner: Owner, stage: Stage, pod: TrainerPod, environment: Environment) -> dict[str, Any]:
    """Placement and identity of the pods; topology spread counts the pods of this stage."""
    written = pod_placement(pod.template, pod.pod_devices, environment)
    placement = {key: value for key, value in written.items() if key not in _NOT_PLACEMENT}
    spread = placement.get("topologySpreadConstraints")
    if spread:
        selector = {"labelSelector": {"matchLabels": child_labels(owner, stage)}}
        placement["topologySpreadConstraints"] = [constraint | selector for constraint in spread]
    return placement
