"""Jobs whose pods run the trainer image with a ``run.json``; the common part of all stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.common import Resources
from tunesmith.api.pod_settings import CacheVolume, Network, TrainerEnvVar
from tunesmith.api.pod_template import PodTemplate
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

from .container_resources import DISK, ContainerDefaults, LimitRules, build_resources
from .environment import Environment
from .evaluation_engine import EvaluationEngine, build_evaluation_engine, engine_volume
from .gang_service import gang_variables
from .gpu_placement import off_gpu_nodes, usable_node_requirements, with_requirements
from .gpu_requests import NO_GPUS, GPUs
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
    OWN_VOLUME,
    RUN_AS_USER,
    cache_volume,
    credentials_volume,
    environment_variables,
    on_one_node,
    pod_metadata,
    pod_placement,
    restricted_container_security,
    restricted_pod_security,
    scratch_volume,
    secret_volumes,
    storage_volumes,
    template_volumes,
)
from .sidecars import Sidecar, build_pause_container, build_sidecar, sidecar_volumes

SECRET_KEY = "token"

#: A cap, not a reservation: what is not mounted is fetched to the scratch space, and work files in a bucket lie there.
SCRATCH = "8Gi"
SCRATCH_TO_FETCH = "256Gi"
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
        defaults: requests and limits of the container, below those in ``resources``.
        resources, template: settings in the spec.
        limited_as: settings of the main container, whose limits all others follow; None: this is the main one.
        token_secret: a Secret whose key ``token`` opens the hub.
        secrets: Secrets by the role in which the pod finds them.
        gpus: GPUs of the container.
        avoids_gpu_nodes: the pod prefers nodes without GPUs.
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
    defaults: ContainerDefaults
    resources: Resources | None = None
    limited_as: Resources | None = None
    template: PodTemplate | None = None
    token_secret: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    gpus: GPUs = NO_GPUS
    avoids_gpu_nodes: bool = False
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
    def network_devices(self) -> dict[str, int]:
        """Network devices of the container, by extended resource."""
        return {self.network.resource: self.network.count} if self.network else {}

    @property
    def all_gpus(self) -> GPUs:
        """GPUs of the container that has any."""
        return self.engine.gpus if self.engine else self.gpus

    @property
    def taints(self) -> tuple[str, ...]:
        """Keys of the taints of nodes with the pod's devices."""
        return (*self.all_gpus.taints, *self.network_devices)

    def limit_rules(self, environment: Environment) -> LimitRules:
        """Limits that all containers of the pod must have."""
        return environment.limit_rules.for_pod(self.resources, self.limited_as)

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
    if pod.all_gpus.count and pod.all_gpus.may_be_nvidia:
        needs = pod.engine.needs if pod.engine else environment.trainer_needs(pod.image)
        requirements = usable_node_requirements(needs)
        spec["affinity"] = with_requirements(spec.get("affinity"), requirements)
    labels = child_labels(owner, stage, attempt)
    metadata_of_pods = pod_metadata(labels, pod.template)
    if pod.avoids_gpu_nodes:
        spec["affinity"] = off_gpu_nodes(spec.get("affinity"))
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
    rules, assigned_ids = pod.limit_rules(environment), environment.assigned_ids
    outbound = outbound_of(pod.template, environment.outbound)
    # The contract of sidecars promises no network, and one of them runs the code of answers: they get neither a proxy,
    # which may have a password, nor authorities.
    beside = [build_sidecar(sidecar, rules, assigned_ids=assigned_ids) for sidecar in pod.sidecars]
    if pod.engine:
        engine = build_evaluation_engine(pod.engine, _engine_mounts(mounts), rules)
        beside.append(outbound.extend(engine))
    if beside:
        beside.append(build_pause_container(pod.image, rules, assigned_ids=assigned_ids))
    first = outbound.build_init_containers(pod.image, restricted_container_security(), rules)
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
        "resources": build_resources(
            pod.defaults, pod.resources, rules, pod.gpus.devices | pod.network_devices, pod.gpus.claims
        ),
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
        **pod_placement(pod.template, pod.taints, environment, child_labels(owner, stage)),
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
    own_volumes, own_mounts = template_volumes(pod.template)
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
    devices = pod.all_gpus.count + sum(pod.network_devices.values())
    needs_shared_memory = pod.engine is not None or devices > 1
    if needs_shared_memory and "/dev/shm" not in {mount["mountPath"] for mount in own_mounts}:
        shared_memory = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}
        own.append((shared_memory, {"name": "shm", "mountPath": "/dev/shm"}))
    if pod.engine:
        own.append(engine_volume())
    if pod.cache:
        own.append(cache_volume(pod.cache, _CACHE))
    return (
        [*volumes, *(volume for volume, _ in own), *secrets, *shared_volumes, *own_volumes],
        [*mounts, *(mount for _, mount in own), *secret_mounts, *shared_mounts, *own_mounts],
    )


def _engine_mounts(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trainer's mounts of storage, scratch space and own volumes: no Secrets, credentials or configuration."""
    shared, names = ("/tmp", "/dev/shm", _CACHE), ("storage-", OWN_VOLUME)
    return [mount for mount in mounts if mount["mountPath"] in shared or mount["name"].startswith(names)]


def _scratch_size(pod: TrainerPod) -> str:
    """Size limit of the scratch space, in which all that the pod requests of the node's disk must fit."""
    cap = SCRATCH_TO_FETCH if pod.schemes - MOUNTED else SCRATCH
    return max(cap, pod.defaults.requests.get(DISK, cap), key=memory_bytes)


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
