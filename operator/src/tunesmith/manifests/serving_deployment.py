"""Deployment of serving pods, with agent and engine, and their PodDisruptionBudget."""

from typing import Any

from tunesmith.api.adapterdeployment import AdapterDeployment, Engine
from tunesmith.api.values import AUTO
from tunesmith_contract.agent import DESIRED_FILE
from tunesmith_contract.layout import CONFIG_DIR, SecretRole
from tunesmith_contract.uris import Scheme, StorageUri, mount_path, parse_uri

from .environment import Environment
from .names import OWNER_UID_LABEL, STAGE_LABEL, Component, Owner, child_labels, child_metadata
from .objects import KubernetesObject
from .pods import (
    credentials_volume,
    restricted_container_security,
    restricted_pod_security,
    scratch_volume,
    secret_volumes,
    storage_volumes,
)
from .serving_config_maps import desired_config_map_name

AGENT, ENGINE = "agent", "engine"
AGENT_PORT, AGENT_PORT_NAME = 8000, "http"
ENGINE_PORT = 8001
ENGINE_URL = f"http://127.0.0.1:{ENGINE_PORT}"

#: The name under which the engine serves the model without an adapter.
BASE_MODEL_NAME = "base"
#: How long a pod may take to finish the answers under way.
GRACE_SECONDS = 180
#: Loading a large model from the network takes its time; a pod is given up only after this.
ENGINE_START_SECONDS = 3600
CPU_CACHE_GIB = 1
CPU_SEQUENCES = 8
CPU_BLOCK = 32

_MODEL_CACHE = "/var/cache/tunesmith"
_ENGINE_HEALTH = f"import urllib.request as r; r.urlopen('{ENGINE_URL}/health', timeout=5)"


def selector_labels(owner: Owner) -> dict[str, str]:
    """Labels of the serving pods alone; a Deployment's selector can't be changed later."""
    labels = child_labels(owner, Component.SERVING)
    return {key: labels[key] for key in (OWNER_UID_LABEL, STAGE_LABEL)}


def build_serving_deployment(
    deployment: AdapterDeployment, image: str, environment: Environment
) -> KubernetesObject:
    """Deployment whose pods each serve every adapter.

    Args:
        image: image of agent and engine, from the inputs snapshot.
    """
    spec = deployment.spec
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(deployment, Component.SERVING),
        "spec": {
            "replicas": spec.replicas,
            "selector": {"matchLabels": selector_labels(deployment)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": rolling_update(spec.replicas, spec.engine.gpus),
            },
            "revisionHistoryLimit": 3,
            "template": {
                "metadata": {"labels": child_labels(deployment, Component.SERVING)},
                "spec": _build_pod(deployment, image, environment),
            },
        },
    }


def rolling_update(replicas: int, gpus: int) -> dict[str, int]:
    """Update strategy: one more pod first, or one less where a GPU for it may be missing.

    The only pod is never removed before its successor is ready, whatever that needs.
    """
    if gpus > 0 and replicas > 1:
        return {"maxUnavailable": 1, "maxSurge": 0}
    return {"maxUnavailable": 0, "maxSurge": 1}


def _build_pod(deployment: AdapterDeployment, image: str, environment: Environment) -> dict[str, Any]:
    engine = deployment.spec.engine
    volumes, mounts = _build_volumes(deployment)
    template = engine.template.to_dict() if engine.template else {}
    return {
        **template,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": restricted_pod_security(),
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "topologySpreadConstraints": [_spread(deployment)],
        "initContainers": [_build_engine(deployment, image, mounts[ENGINE])],
        "containers": [_build_agent(deployment, image, mounts[AGENT], environment)],
        "volumes": volumes,
    }


def _spread(deployment: AdapterDeployment) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector_labels(deployment)},
    }


def _build_volumes(
    deployment: AdapterDeployment,
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    spec = deployment.spec
    claims = [StorageUri(Scheme.PVC, volume.claim) for volume in spec.artifact_volumes]
    storage, storage_mounts = storage_volumes([*claims, parse_uri(spec.base_model.uri)])
    credentials, credentials_mount = credentials_volume(desired_config_map_name(deployment))
    scratch, scratch_mount = scratch_volume("16Gi")
    desired = {
        "name": "desired",
        "configMap": {
            "name": desired_config_map_name(deployment),
            "items": [{"key": DESIRED_FILE, "path": DESIRED_FILE}],
        },
    }
    secrets, secret_mounts = _artifact_secret(deployment)
    cache = {"name": "model-cache", "emptyDir": {}}
    shared_memory = {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}}
    shared = [*storage_mounts, scratch_mount, {"name": "model-cache", "mountPath": _MODEL_CACHE}]
    mounts = {
        ENGINE: [*shared, {"name": "shared-memory", "mountPath": "/dev/shm"}],
        AGENT: [
            *shared,
            credentials_mount,
            *secret_mounts,
            {"name": "desired", "mountPath": str(CONFIG_DIR), "readOnly": True},
        ],
    }
    return [*storage, credentials, *secrets, desired, scratch, cache, shared_memory], mounts


def _artifact_secret(deployment: AdapterDeployment) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volume and mount of the Secret that opens adapters; a pod starts without it, and says what it lacks."""
    reference = deployment.spec.artifact_secret_ref
    volumes, mounts = secret_volumes({SecretRole.ARTIFACTS: reference.name} if reference else {})
    return [{**volume, "secret": {**volume["secret"], "optional": True}} for volume in volumes], mounts


def _build_engine(deployment: AdapterDeployment, image: str, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    engine = deployment.spec.engine
    resources = engine.resources.to_dict() if engine.resources else {}
    if engine.gpus:
        resources["limits"] = resources.get("limits", {}) | {"nvidia.com/gpu": str(engine.gpus)}
    probe = {"exec": {"command": ["/opt/venv/bin/python", "-c", _ENGINE_HEALTH]}, "timeoutSeconds": 10}
    return {
        "name": ENGINE,
        "image": image,
        "restartPolicy": "Always",
        "command": ["tunesmith-engine"],
        "args": engine_arguments(deployment),
        "env": _engine_environment(deployment),
        "resources": resources,
        "securityContext": restricted_container_security(),
        "volumeMounts": mounts,
        "startupProbe": probe | {"periodSeconds": 5, "failureThreshold": ENGINE_START_SECONDS // 5},
        "livenessProbe": probe | {"periodSeconds": 30, "failureThreshold": 4},
    }


def engine_arguments(deployment: AdapterDeployment) -> list[str]:
    """Arguments of vLLM's server; the user's own come last, and win where they may be written twice."""
    engine = deployment.spec.engine
    arguments = {
        "--host": "127.0.0.1",
        "--port": str(ENGINE_PORT),
        "--api-server-count": "1",
        "--served-model-name": BASE_MODEL_NAME,
        "--max-loras": str(_slots(engine)),
        "--max-cpu-loras": str(2 * _slots(engine)),
        "--max-lora-rank": str(engine.max_rank),
        **_model_arguments(deployment.spec.base_model.uri),
        **_hardware_arguments(engine),
    }
    if engine.max_model_length is not None:
        arguments["--max-model-len"] = str(engine.max_model_length)
    switches = ["--enable-lora", *([] if engine.gpus else ["--enforce-eager"])]
    pairs = [part for pair in arguments.items() for part in pair]
    return [*pairs, *switches, *engine.args]


def _slots(engine: Engine) -> int:
    """Number of adapter slots of the engine, one more than requested on a CPU.

    There, vLLM 0.32 answers a request for the base model that shares a batch with others by whatever adapter is in the
    last slot, so that slot is left empty.
    """
    return engine.resident_adapters + (0 if engine.gpus else 1)


def _model_arguments(uri: str) -> dict[str, str]:
    model = parse_uri(uri)
    if model.scheme is not Scheme.HF:
        return {"--model": str(mount_path(model))}
    revision = (
        {"--revision": model.revision, "--tokenizer-revision": model.revision} if model.revision else {}
    )
    return {"--model": model.name, **revision}


def _hardware_arguments(engine: Engine) -> dict[str, str]:
    if engine.gpus == 0:
        # With larger blocks a prompt of a few tokens shares none of them, and proofs take several times as long.
        return {"--dtype": "float32", "--max-num-seqs": str(CPU_SEQUENCES), "--block-size": str(CPU_BLOCK)}
    return {"--tensor-parallel-size": str(engine.gpus)}


def _engine_environment(deployment: AdapterDeployment) -> list[dict[str, Any]]:
    spec = deployment.spec
    hub = parse_uri(spec.base_model.uri).scheme is Scheme.HF
    values = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": f"{_MODEL_CACHE}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{_MODEL_CACHE}/inductor",
        "HF_HOME": f"{_MODEL_CACHE}/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HOME": "/tmp",
        "USER": "tunesmith",
    }
    if not hub:
        values["HF_HUB_OFFLINE"] = "1"
    if spec.engine.gpus == 0:
        values["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_CACHE_GIB)
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in values.items()]
    if hub and spec.base_model.secret_ref:
        reference = {"name": spec.base_model.secret_ref.name, "key": "token"}
        variables.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return variables


def _build_agent(
    deployment: AdapterDeployment, image: str, mounts: list[dict[str, Any]], environment: Environment
) -> dict[str, Any]:
    ready = {"httpGet": {"path": "/readyz", "port": AGENT_PORT_NAME}, "timeoutSeconds": 5}
    alive = {"httpGet": {"path": "/healthz", "port": AGENT_PORT_NAME}, "timeoutSeconds": 5}
    return {
        "name": AGENT,
        "image": image,
        "command": ["/opt/agent/bin/python", "-m", "tunesmith_agent"],
        "env": _agent_environment(deployment, environment),
        "ports": [{"name": AGENT_PORT_NAME, "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": restricted_container_security(),
        "volumeMounts": mounts,
        "startupProbe": alive | {"periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": ready | {"periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": alive | {"periodSeconds": 10, "failureThreshold": 6},
    }


def _agent_environment(deployment: AdapterDeployment, environment: Environment) -> list[dict[str, Any]]:
    fields = {
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
        "POD_NAMESPACE": "metadata.namespace",
    }
    values = {
        "TUNESMITH_DEPLOYMENT": deployment.metadata.name,
        "TUNESMITH_OPERATOR_URL": environment.operator_url,
        "TUNESMITH_BASE_MODEL": BASE_MODEL_NAME,
    }
    if deployment.spec.engine.proof.tolerance != AUTO:
        values["TUNESMITH_PROOF_TOLERANCE"] = deployment.spec.engine.proof.tolerance
    downward = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()
    ]
    return [*downward, *({"name": name, "value": value} for name, value in values.items())]


def build_serving_disruption_budget(owner: Owner) -> KubernetesObject:
    """PodDisruptionBudget by which a drained node evicts serving pods one after the other.

    For more than one replica: with a single one it would forbid to drain its node.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(owner, Component.SERVING),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector_labels(owner)}},
    }
