"""Engine (vLLM) beside an evaluation: it serves what the evaluation orders, from the same storage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.common import Resources
from tunesmith.api.pod_settings import GPU_RESOURCE, TrainerEnvVar
from tunesmith_contract.engine_order import ORDER_FOLDER

from .engine_container import ENGINE, engine_variables
from .environment import Environment, GPUNeeds
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
        gpus, gpu_resource: its GPUs, and the extended resource by which nodes offer them.
        requests: default requests, below those in ``resources``.
        resources, env: settings in the spec. The evaluation beside it needs little.
    """

    image: str
    needs: GPUNeeds
    gpus: int = 0
    gpu_resource: str = GPU_RESOURCE
    requests: Mapping[str, str] = field(default_factory=dict)
    resources: Resources | None = None
    env: tuple[TrainerEnvVar, ...] = ()

    @property
    def devices(self) -> dict[str, int]:
        """Extended resources of the container."""
        return {self.gpu_resource: self.gpus} if self.gpus else {}


def choose_engine_image(gpus: int, environment: Environment) -> str:
    """Serving image of the installation for GPUs or CPUs; empty where there is none."""
    return environment.serving_gpu_image if gpus else environment.serving_image


def build_evaluation_engine(engine: EvaluationEngine, mounts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Container of the engine: kubelet ends it when the evaluation ends.

    Args:
        engine: the engine.
        mounts: the evaluation's mounts of storage and scratch space. Models lie at the same paths for both.
    """
    return {
        "name": ENGINE,
        "image": engine.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": list(_COMMAND),
        "env": environment_variables(engine_variables(engine.gpus, _CACHE), engine.env),
        "resources": _resources(engine),
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


def _resources(engine: EvaluationEngine) -> dict[str, Any]:
    """The default requests under what people wrote; a limit alone is its own request, as in Kubernetes."""
    limits = dict((engine.resources and engine.resources.limits) or {})
    requests = {name: amount for name, amount in engine.requests.items() if name not in limits}
    requests |= dict((engine.resources and engine.resources.requests) or {})
    limits |= {name: str(count) for name, count in engine.devices.items()}
    return {"requests": requests} | ({"limits": limits} if limits else {})
