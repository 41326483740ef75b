"""Deployment of serving pods, with agent and engine, and their PodDisruptionBudget."""

from dataclasses import dataclass
from typing import Any

from tunesmith.api.adapterdeployment import AccessLogs, AdapterDeployment, Engine, Telemetry, UpdateStrategy
from tunesmith.api.values import AUTO, duration_seconds, memory_bytes
from tunesmith_contract.agent import BASE_MODEL_NAME, DESIRED_FILE, STATE_FILE
from tunesmith_contract.layout import ADAPTER_CACHE_DIR, CONFIG_DIR, ENGINE_SOCKET, SecretRole, secret_dir
from tunesmith_contract.uris import MOUNT_ROOT, Scheme, StorageUri, mount_path, parse_uri

from .container_resources import CPU, DISK, MEMORY, ContainerDefaults, LimitRules, build_resources
from .engine_container import (
    ENGINE,
    MODEL_CACHE,
    EngineNeeds,
    build_engine_container,
    loaded_adapters,
    reasoning_parser,
    start_seconds,
    tool_call_parser,
)
from .environment import Environment
from .gpu_placement import usable_node_requirements, with_requirements
from .names import (
    COMPONENT_LABEL,
    OWNER_UID_LABEL,
    SET_LABEL,
    STAGE_LABEL,
    Component,
    Owner,
    child_labels,
    child_metadata,
)
from .objects import Body, KubernetesObject
from .outbound import outbound_of
from .pods import (
    cache_volume,
    credentials_volume,
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
from .serving_config_maps import ServingInputs, desired_config_map_name

AGENT = "agent"
AGENT_PORT, AGENT_PORT_NAME = 8000, "http"
#: Port of the agent for probes and metrics; no Service leads to it.
MONITORING_PORT, MONITORING_PORT_NAME = 8002, "metrics"

#: Time for one token without GPUs: one step of the engine may read thousands of tokens of other requests first.
CPU_TOKEN_SECONDS = 120

_OPERATOR_URL = "TUNESMITH_OPERATOR_URL"
_BASE_MODEL_URI = "TUNESMITH_BASE_MODEL_URI"

#: Variables of OpenTelemetry in ``engine.env``, which the agent gets, too.
TRACES_PREFIX = "OTEL_"

#: Time to end the engine and its sidecars once the agent has drained.
END_SECONDS = 115

#: Time to find a node and to pull an image of ten gigabytes.
PULL_SECONDS = 900

#: Disk space beside the copies of adapters: names and folders take some, too.
ADAPTER_CACHE_MARGIN = 1024**3

#: Limits of the volume for caches: with the model from a hub, or with compiled kernels alone. Limits, not reservations.
HUB_CACHE_LIMIT, KERNEL_CACHE_LIMIT = "1Ti", "16Gi"


@dataclass(frozen=True, slots=True)
class PodLimits:
    """Limits that the access modes of claims put on the pods.

    Attributes:
        on_one_node: all pods have to run on one node.
        stops_first: a new pod may never start beside an old one.
    """

    on_one_node: bool = False
    stops_first: bool = False


#: Number of the pod set whose Deployment has the name and the selector of earlier releases.
FIRST_SET = 1
#: Component of the pods of later sets: pods of the first set have no label of their own that a Service could select.
_LATER_SET = "serving-set"


def serving_labels(owner: Owner) -> dict[str, str]:
    """Labels of the serving pods of all sets, and of nothing else."""
    labels = child_labels(owner, Component.SERVING)
    return {key: labels[key] for key in (OWNER_UID_LABEL, STAGE_LABEL)}


def set_labels(owner: Owner, number: int) -> dict[str, str]:
    """Labels of the pods of one set, and of nothing else."""
    if number == FIRST_SET:
        return serving_labels(owner) | {COMPONENT_LABEL: str(Component.SERVING)}
    return serving_labels(owner) | {SET_LABEL: str(number)}


def set_number(body: Body) -> int:
    """Number of the set that an observed Deployment or pod belongs to; 0 if somebody wrote another label."""
    label = (body["metadata"].get("labels") or {}).get(SET_LABEL, str(FIRST_SET))
    return int(label) if label.isdecimal() else 0


def _build_set_metadata(owner: Owner, number: int) -> dict[str, Any]:
    metadata = child_metadata(owner, Component.SERVING)
    if number != FIRST_SET:
        metadata["name"] = f"{metadata['name']}-{number}"
        metadata["labels"] |= {SET_LABEL: str(number), COMPONENT_LABEL: _LATER_SET}
    return metadata


def build_serving_deployment(
    deployment: AdapterDeployment,
    inputs: ServingInputs,
    environment: Environment,
    needs: EngineNeeds | None = None,
    limits: PodLimits = PodLimits(),
    number: int = FIRST_SET,
) -> KubernetesObject:
    """Deployment of one set of pods, each of which serves every adapter.

    Args:
        inputs: image of agent and engine, and its ports.
        needs: what the engine needs for its model; None: unknown.
        limits: what the claims of the pods allow.
        number: number of the set.
    """
    spec, needs = deployment.spec, needs or EngineNeeds()
    metadata = _build_set_metadata(deployment, number)
    # The selector of a Deployment can't be changed later, so the first set keeps that of earlier releases.
    selector = serving_labels(deployment) if number == FIRST_SET else set_labels(deployment, number)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": spec.replicas,
            "selector": {"matchLabels": selector},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": rolling_update(spec.replicas, spec.engine, limits.stops_first),
            },
            "revisionHistoryLimit": 3,
            # A rollout is late only after the engine may have loaded its model; the default is ten minutes.
            "progressDeadlineSeconds": start_seconds(spec.engine, needs.model_bytes) + PULL_SECONDS,
            "template": {
                "metadata": pod_metadata(metadata["labels"], spec.engine.template),
                "spec": _build_pod(deployment, inputs, environment, needs, limits, number),
            },
        },
    }


def rolling_update(replicas: int, engine: Engine, stops_first: bool = False) -> dict[str, int]:
    """Update strategy: one more pod first, or one less where a GPU for it may be missing.

    Unless the user says so, the only pod is never removed before its successor is ready, whatever that needs.

    Args:
        stops_first: claims may keep a new pod from ever starting beside an old one.
    """
    auto = stops_first or (engine.gpus > 0 and replicas > 1)
    by_strategy = {UpdateStrategy.STOP_FIRST: True, UpdateStrategy.START_FIRST: False}
    if by_strategy.get(engine.update_strategy, auto):
        return {"maxUnavailable": 1, "maxSurge": 0}
    return {"maxUnavailable": 0, "maxSurge": 1}


def grace_seconds(engine: Engine) -> int:
    """Grace period of a pod: requests that still arrive, answers in progress, and the end of the engine."""
    return int(duration_seconds(engine.lame_duck) + duration_seconds(engine.drain)) + END_SECONDS


def _build_pod(
    deployment: AdapterDeployment,
    inputs: ServingInputs,
    environment: Environment,
    needs: EngineNeeds,
    limits: PodLimits,
    number: int,
) -> dict[str, Any]:
    engine, image = deployment.spec.engine, inputs.image
    outbound = outbound_of(engine.template, environment.outbound)
    volumes, mounts = _build_volumes(deployment, inputs)
    gpus = environment.gpus(engine.gpus, engine.gpu_resource, engine.template)
    rules = environment.limit_rules.for_pod(engine.resources)
    labels = set_labels(deployment, number)
    placement = {
        "topologySpreadConstraints": [_spread(labels)],
        **pod_placement(engine.template, gpus.taints, environment, labels),
    }
    if gpus.count and gpus.may_be_nvidia:
        requirements = usable_node_requirements(environment.serving_needs(image))
        placement["affinity"] = with_requirements(placement.get("affinity"), requirements)
    if limits.on_one_node:
        placement["affinity"] = on_one_node(placement.get("affinity"), serving_labels(deployment))
    return {
        "terminationGracePeriodSeconds": _written_grace(engine) or grace_seconds(engine),
        **placement,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": restricted_pod_security(assigned_ids=environment.assigned_ids),
        "initContainers": [
            *outbound.build_init_containers(image, restricted_container_security(), rules),
            outbound.extend(build_engine_container(deployment, inputs, mounts[ENGINE], needs, gpus, rules)),
        ],
        "containers": [
            outbound.extend(_build_agent(deployment, inputs, mounts[AGENT], environment, needs, rules)),
        ],
        # The status of a crashed container reaches the status of the resource; a volume that is waited for does not.
        "volumes": [*volumes, *outbound.build_volumes(optional=True)],
    }


def _written_grace(engine: Engine) -> int | None:
    return engine.template.termination_grace_period_seconds if engine.template else None


def _spread(labels: dict[str, str]) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }


def _build_volumes(
    deployment: AdapterDeployment, inputs: ServingInputs
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    spec = deployment.spec
    claims = [StorageUri(Scheme.PVC, volume.claim) for volume in spec.artifact_volumes]
    base = parse_uri(spec.base_model.uri)
    storage, storage_mounts = storage_volumes([*claims, base])
    artifact_paths = {str(mount_path(claim)) for claim in claims}
    base_path = str(MOUNT_ROOT / base.scheme / base.name)
    credentials, credentials_mount = credentials_volume(desired_config_map_name(deployment))
    scratch, scratch_mount = scratch_volume("16Gi")
    # What the agent must not forget lies in its /tmp, out of reach of the engine.
    agent_scratch = {"name": "agent-tmp", "emptyDir": {"sizeLimit": "1Gi"}}
    adapters, adapters_mount = _adapter_volume(spec.engine)
    # An operator of the first release may have written the ConfigMap, without the second file.
    files = [
        {
            "configMap": {
                "name": desired_config_map_name(deployment),
                "items": [{"key": name, "path": name}],
                "optional": name == STATE_FILE,
            }
        }
        for name in (DESIRED_FILE, STATE_FILE)
    ]
    desired = {"name": "desired", "projected": {"sources": files}}
    secrets, secret_mounts = _secrets(deployment)
    cache, cache_mount = _cache_volume(deployment)
    written, written_mounts = template_volumes(spec.engine.template)
    own_memory = "/dev/shm" in {mount["mountPath"] for mount in written_mounts}
    shared_memory = {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}}
    mounts = {
        # The engine reads adapters from copies that nobody can change while it serves them, never from a claim.
        ENGINE: [
            *(mount for mount in storage_mounts if mount["mountPath"] == base_path),
            scratch_mount,
            {**adapters_mount, "readOnly": True},
            cache_mount,
            *([] if own_memory else [{"name": "shared-memory", "mountPath": "/dev/shm"}]),
            *written_mounts,
        ],
        AGENT: [
            *(mount for mount in storage_mounts if mount["mountPath"] in artifact_paths),
            {"name": "agent-tmp", "mountPath": "/tmp"},
            adapters_mount,
            credentials_mount,
            *secret_mounts,
            {"name": "desired", "mountPath": str(CONFIG_DIR), "readOnly": True},
        ],
    }
    own = [scratch, agent_scratch, adapters, cache, *([] if own_memory else [shared_memory])]
    if inputs.has_engine_socket:
        # In memory: the socket needs nothing of the node's disk.
        own.append({"name": "engine-socket", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
        mount = {"name": "engine-socket", "mountPath": str(ENGINE_SOCKET.parent)}
        mounts[ENGINE].append(mount)
        mounts[AGENT].append({**mount, "readOnly": True})
    return [*storage, credentials, *secrets, desired, *own, *written], mounts


def _adapter_volume(engine: Engine) -> tuple[dict[str, Any], dict[str, Any]]:
    """Volume and mount for the copies of adapters; past its limit kubelet would evict the pod."""
    limit = memory_bytes(engine.adapter_cache_size) + ADAPTER_CACHE_MARGIN
    volume = {"name": "adapters", "emptyDir": {"sizeLimit": str(limit)}}
    return volume, {"name": "adapters", "mountPath": str(ADAPTER_CACHE_DIR)}


def _cache_volume(deployment: AdapterDeployment) -> tuple[dict[str, Any], dict[str, Any]]:
    """Volume and mount for downloaded models and compiled kernels: a claim that outlives the pod, or its own disk."""
    spec = deployment.spec
    if spec.engine.cache_volume:
        return cache_volume(spec.engine.cache_volume, MODEL_CACHE)
    hub = parse_uri(spec.base_model.uri).scheme is Scheme.HF
    limit = HUB_CACHE_LIMIT if hub else KERNEL_CACHE_LIMIT
    volume = {"name": "model-cache", "emptyDir": {"sizeLimit": limit}}
    return volume, {"name": "model-cache", "mountPath": MODEL_CACHE}


def _secrets(deployment: AdapterDeployment) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts of the Secrets that open adapters and name clients.

    A pod starts without them, and its agent says what it lacks.
    """
    spec = deployment.spec
    secrets: dict[str, str] = {}
    if spec.artifact_secret_ref:
        secrets[SecretRole.ARTIFACTS] = spec.artifact_secret_ref.name
    if spec.access:
        secrets[SecretRole.CLIENTS] = spec.access.keys_secret_ref.name
    volumes, mounts = secret_volumes(secrets)
    return [{**volume, "secret": {**volume["secret"], "optional": True}} for volume in volumes], mounts


def mounted_secret(deployment: Body) -> str | None:
    """Name of the Secret that opens adapters in the pods of an observed Deployment."""
    name = f"secret-{SecretRole.ARTIFACTS}"
    volumes = deployment["spec"]["template"]["spec"].get("volumes", ())
    found: str | None = next((each["secret"]["secretName"] for each in volumes if each["name"] == name), None)
    return found


def _build_agent(
    deployment: AdapterDeployment,
    inputs: ServingInputs,
    mounts: list[dict[str, Any]],
    environment: Environment,
    needs: EngineNeeds,
    rules: LimitRules,
) -> dict[str, Any]:
    ports = {AGENT_PORT_NAME: AGENT_PORT}
    if inputs.has_monitoring_port:
        ports[MONITORING_PORT_NAME] = MONITORING_PORT
    probed = MONITORING_PORT_NAME if inputs.has_monitoring_port else AGENT_PORT_NAME
    ready = {"httpGet": {"path": "/readyz", "port": probed}, "timeoutSeconds": 5}
    alive = {"httpGet": {"path": "/healthz", "port": probed}, "timeoutSeconds": 5}
    return {
        "name": AGENT,
        "image": inputs.image,
        "command": ["/opt/agent/bin/python", "-m", "tunesmith_agent"],
        # An agent that can't ask for keys does not know the argument and ends, so none is open by mistake.
        **({"args": [f"--keys-dir={secret_dir(SecretRole.CLIENTS)}"]} if deployment.spec.access else {}),
        "env": _agent_environment(deployment, inputs, environment, needs),
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "resources": build_resources(
            _agent_defaults(deployment.spec.engine), deployment.spec.engine.agent_resources, rules
        ),
        "securityContext": restricted_container_security(),
        "volumeMounts": mounts,
        "startupProbe": alive | {"periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": ready | {"periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": alive | {"periodSeconds": 10, "failureThreshold": 6},
    }


def _agent_defaults(engine: Engine) -> ContainerDefaults:
    """The agent's requests and limits: all requests pass through it, and it fills the volume of adapters."""
    disk = memory_bytes(engine.adapter_cache_size) + 2 * ADAPTER_CACHE_MARGIN
    return ContainerDefaults(
        {CPU: "100m", MEMORY: "128Mi"}, limits={MEMORY: "1Gi"}, asked={CPU: "2", DISK: str(disk)}
    )


def _agent_environment(
    deployment: AdapterDeployment, inputs: ServingInputs, environment: Environment, needs: EngineNeeds
) -> list[dict[str, Any]]:
    engine = deployment.spec.engine
    fields = {
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
        "POD_NAMESPACE": "metadata.namespace",
    }
    values = {
        "TUNESMITH_DEPLOYMENT": deployment.metadata.name,
        _OPERATOR_URL: environment.operator_url,
        "TUNESMITH_BASE_MODEL": BASE_MODEL_NAME,
        _BASE_MODEL_URI: deployment.spec.base_model.uri,
        "TUNESMITH_MAX_RANK": str(engine.max_rank),
        "TUNESMITH_ADAPTER_SLOTS": str(loaded_adapters(engine)),
        "TUNESMITH_ADAPTER_CACHE_BYTES": str(memory_bytes(engine.adapter_cache_size)),
        "TUNESMITH_DRAIN_SECONDS": str(int(duration_seconds(engine.drain))),
        "TUNESMITH_LAME_DUCK_SECONDS": str(int(duration_seconds(engine.lame_duck))),
        "TUNESMITH_QUEUE_REQUESTS": str(engine.max_queued_requests),
        # The hub's client asks huggingface.co for something on its own account otherwise, mirror or not.
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if inputs.has_engine_socket:
        values["TUNESMITH_ENGINE_SOCKET"] = str(ENGINE_SOCKET)
    if engine.proof.tolerance != AUTO:
        values["TUNESMITH_PROOF_TOLERANCE"] = engine.proof.tolerance
    if engine.media_hosts:
        values["TUNESMITH_MEDIA_HOSTS"] = ",".join(engine.media_hosts)
    if parser := tool_call_parser(engine, needs):
        values["TUNESMITH_TOOL_CALL_PARSER"] = parser
    if parser := reasoning_parser(engine, needs):
        values["TUNESMITH_REASONING_PARSER"] = parser
    if engine.gpus == 0:
        values["TUNESMITH_ENGINE_TOKEN_SECONDS"] = str(CPU_TOKEN_SECONDS)
    values |= telemetry_environment(deployment.spec.telemetry, environment)
    values |= {each.name: each.value for each in engine.env if each.name.startswith(TRACES_PREFIX)}
    downward = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()
    ]
    return [*downward, *({"name": name, "value": value} for name, value in values.items())]


def telemetry_environment(telemetry: Telemetry, environment: Environment) -> dict[str, str]:
    """Variables of access log and traces in the agent, by spec and chart; none by default."""
    traces = telemetry.traces
    values = {}
    if telemetry.access_logs is not AccessLogs.ERRORS:
        values["TUNESMITH_ACCESS_LOGS"] = str(telemetry.access_logs)
    if endpoint := traces.endpoint or environment.traces_endpoint:
        ratio = environment.traces_ratio if traces.sample_ratio is None else traces.sample_ratio
        values |= {"TUNESMITH_TRACES_ENDPOINT": endpoint, "TUNESMITH_TRACES_RATIO": ratio}
    return values


def operator_url(deployment: Body) -> str:
    """URL of the operator in the pods of an observed Deployment."""
    return _agent_variable(deployment, _OPERATOR_URL)


def base_model_uri(deployment: Body) -> str:
    """URI of the base model in the pods of an observed Deployment; empty for pods of the first release."""
    return _agent_variable(deployment, _BASE_MODEL_URI)


def pod_base_model_uri(pod: Body) -> str:
    """URI of the base model of an observed pod; empty if it tells none."""
    return _agent_variable({"spec": {"template": pod}}, _BASE_MODEL_URI)


def _agent_variable(deployment: Body, name: str) -> str:
    containers = deployment["spec"]["template"].get("spec", {}).get("containers") or [{}]
    variables = containers[0].get("env", ())
    found: str = next((each.get("value", "") for each in variables if each["name"] == name), "")
    return found


def serving_image(deployment: Body) -> str:
    """Image of agent and engine in the pods of an observed Deployment."""
    image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def build_serving_disruption_budget(owner: Owner, number: int = FIRST_SET) -> KubernetesObject:
    """PodDisruptionBudget by which a drained node evicts the pods that answer clients one after the other.

    For more than one replica: with a single one it would forbid to drain its node. Pods of a set that doesn't answer
    may go at any time; if they counted, those that still start would keep every node from being drained.

    Args:
        number: number of the set that answers.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(owner, Component.SERVING),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": set_labels(owner, number)}},
    }
