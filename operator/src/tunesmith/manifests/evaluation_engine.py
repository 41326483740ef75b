"""Engine (vLLM) beside an evaluation: it serves what the evaluation orders, from the same storage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.api.common import Resources
from tunesmith.api.pod_settings import TrainerEnvVar
from tunesmith_contract.engine_order import ORDER_FOLDER

from .container_resources import ContainerDefaults, LimitRules, build_resources
from .engine_container import ENGINE, engine_variables
from .environment import Environment, GPUNeeds
from .gpu_requests import NO_GPUS, GPUs
from .pods import environment_variables, restricted_container_security

_ORDERS = "engine-orders"
_ORDERS_SIZE = "1Mi"
_CACHE = "/tmp/engine"
_COMMAND = ("/opt/venv/bin/python", "-m", "tunesmith_engine.on_order", str(ORDER_FOLDER))


@dataclass(frozen=True, slots=True)
class EvaluationEngine:
    """Engine of an evaluation.

    Attributes:
        image: the serving image.
        needs: what the image needs of GPUs.
        gpus: its GPUs.
        defaults: requests and limits, below those in ``resources``.
        resources, env: settings in the spec. The evaluation beside it needs little.
    """

    image: str
    needs: GPUNeeds
    defaults: ContainerDefaults
    gpus: GPUs = NO_GPUS
    resources: Resources | None = None
    env: tuple[TrainerEnvVar, ...] = ()


def choose_engine_image(gpus: int, environment: Environment) -> str:
    """Serving image of the installation for GPUs or CPUs; empty where there is none."""
    return environment.serving_gpu_image if gpus else environment.serving_image


def build_evaluation_engine(
    engine: EvaluationEngine, mounts: Iterable[Mapping[str, Any]], rules: LimitRules
) -> dict[str, Any]:
    """Container of the engine: kubelet ends it when the evaluation ends.

    Args:
        engine: the engine.
        mounts: the evaluation's mounts of storage and scratch space. Models lie at the same paths for both.
        rules: limits that all containers of the pod must have.
    """
    return {
        "name": ENGINE,
        "image": engine.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": list(_COMMAND),
        "env": environment_variables(engine_variables(engine.gpus.count, _CACHE), engine.env),
        "resources": build_resources(
            engine.defaults, engine.resources, rules, engine.gpus.devices, engine.gpus.claims
        ),
        "securityContext": restricted_container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*map(_read_only, mounts), _orders_mount()],
    }


def engine_volume() -> tuple[dict[str, Any], dict[str, Any]]:
    """Volume of orders, and the evaluation's mount of it."""
    return {"name": _ORDERS, "emptyDir": {"sizeLimit": _ORDERS_SIZE}}, _orders_mount()


def _orders_mount() -> dict[str, Any]:
    return {"name": _ORDERS, "mountPath": str(ORDER_FOLDER)}


def _read_only(mount: Mapping[str, Any]) -> dict[str, Any]:
    """The mount without the right to write, but for scratch space."""
    writable = mount["mountPath"] in _WRITABLE
    return dict(mount) if writable else {**mount, "readOnly": True}


_WRITABLE: Sequence[str] = ("/tmp", "/dev/shm")
