"""Containers beside the trainer's: they share folders with it, and neither storage, Secrets nor tokens.

A sidecar is an init container that restarts always: kubelet ends it when the trainer's container ends, and its own end
does not end the pod. Containers of a pod share its network; Kubernetes can't take it from one of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.common import Resources
from tunesmith.api.evaluation_suites import Suite
from tunesmith_contract.evaluation import Metric
from tunesmith_contract.evaluation_container import (
    INPUT,
    OUTPUT,
    ROOT,
    SANDBOX_FOLDER,
    SANDBOX_SOCKET,
    SUITES_FOLDER,
)

from .container_resources import CPU, DISK, MEMORY, ContainerDefaults, LimitRules, build_resources
from .pods import restricted_container_security

#: Images with CUDA ask the runtime for all GPUs of the node by this variable; "void" asks for none.
_NO_GPUS = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}

#: Another user than the trainer's, so that neither can change files of the other outside of shared folders.
SIDECAR_USER = 10002

SANDBOX = "sandbox"
_SIDECAR_REQUESTS = {CPU: "250m", MEMORY: "512Mi"}
_SANDBOX_DEFAULTS = ContainerDefaults(
    _SIDECAR_REQUESTS, limits={MEMORY: "4Gi"}, asked={CPU: "2", DISK: "2Gi"}
)
_SCORER_DEFAULTS = ContainerDefaults(_SIDECAR_REQUESTS, limits={MEMORY: "2Gi"}, asked={CPU: "2", DISK: "6Gi"})
#: Of a container of a suite whose resources people write: they may leave its memory without a limit.
_WRITTEN_SCORER_DEFAULTS = ContainerDefaults(_SIDECAR_REQUESTS, asked={CPU: "2", MEMORY: "2Gi", DISK: "6Gi"})

INPUT_SIZE = "4Gi"
OUTPUT_SIZE = "512Mi"
SCRATCH_SIZE = "1Gi"

PAUSE = "pause"
#: As the first process of a container, a program ends by SIGTERM only if it says so.
_PAUSE_COMMAND = ("sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait")
_PAUSE_DEFAULTS = ContainerDefaults(
    {CPU: "5m", MEMORY: "16Mi"}, limits={MEMORY: "64Mi"}, asked={CPU: "50m", DISK: "64Mi"}
)

#: Metrics that run the code of answers.
_RUN_CODE = frozenset({Metric.CODE_TESTS, Metric.PASS_AT_K})


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """Folder that trainer and sidecar share; whoever does not write it has it read-only.

    Attributes:
        volume: name of the volume.
        trainer_path, sidecar_path: where it lies in either container.
        size: its largest size.
    """

    volume: str
    trainer_path: str
    sidecar_path: str
    size: str
    trainer_writes: bool = False
    sidecar_writes: bool = False


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Container beside the trainer's.

    Attributes:
        name: name of the container.
        command: command and arguments; empty: those of the image.
        defaults: its requests and limits, below those in ``resources``.
        resources: settings in the spec.
        folders: folders that it shares with the trainer.
    """

    name: str
    image: str
    command: tuple[str, ...]
    defaults: ContainerDefaults
    resources: Resources | None = None
    folders: tuple[SharedFolder, ...] = field(default=())


def build_sidecar(sidecar: Sidecar, rules: LimitRules, *, assigned_ids: bool) -> dict[str, Any]:
    """Container of a sidecar, at the ``restricted`` level with a read-only root.

    Args:
        rules: limits that all containers of the pod must have.
        assigned_ids: the namespace assigns users, the same one to all containers.
    """
    mounts = [
        {"name": folder.volume, "mountPath": folder.sidecar_path, "readOnly": not folder.sidecar_writes}
        for folder in sidecar.folders
    ]
    return {
        "name": sidecar.name,
        "image": sidecar.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        **({"command": list(sidecar.command)} if sidecar.command else {}),
        "env": [{"name": "HOME", "value": "/tmp"}, _NO_GPUS],
        "resources": build_resources(sidecar.defaults, sidecar.resources, rules),
        "securityContext": _security(assigned_ids),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, {"name": _scratch_name(sidecar), "mountPath": "/tmp"}],
    }


def build_pause_container(image: str, rules: LimitRules, *, assigned_ids: bool) -> dict[str, Any]:
    """Last of the sidecars, which does nothing until it is told to end.

    If the last sidecar has ended by itself when the trainer's container ends, kubelet takes the pod for one that has
    not started yet: it starts the sidecar again, after longer and longer breaks, and the pod goes on until kubelet
    happens to look while the sidecar runs. Containers of suites end when they are done, and others may crash.

    Args:
        image: the trainer image, which the node has.
        rules: limits that all containers of the pod must have.
        assigned_ids: as for ``build_sidecar``.
    """
    return {
        "name": PAUSE,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": list(_PAUSE_COMMAND),
        "env": [_NO_GPUS],
        "resources": build_resources(_PAUSE_DEFAULTS, None, rules),
        "securityContext": _security(assigned_ids),
    }


def _security(assigned_ids: bool) -> dict[str, Any]:
    return restricted_container_security(None if assigned_ids else SIDECAR_USER)


def sidecar_volumes(sidecars: Iterable[Sidecar]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes of sidecars, and the trainer's mounts of the folders that it shares with them."""
    volumes, mounts = [], []
    for sidecar in sidecars:
        volumes.append({"name": _scratch_name(sidecar), "emptyDir": {"sizeLimit": SCRATCH_SIZE}})
        for folder in sidecar.folders:
            volumes.append({"name": folder.volume, "emptyDir": {"sizeLimit": folder.size}})
            mounts.append(
                {
                    "name": folder.volume,
                    "mountPath": folder.trainer_path,
                    "readOnly": not folder.trainer_writes,
                }
            )
    return volumes, mounts


def evaluation_sidecars(
    suites: Iterable[Suite], trainer_image: str, sandbox: Resources | None
) -> tuple[Sidecar, ...]:
    """Sidecars of an evaluation: a sandbox where answers' code runs, and the containers of suites that have one.

    Args:
        sandbox: settings of the sandbox in the spec.
    """
    suites = tuple(suites)
    runs_code = any(metric.type in _RUN_CODE for suite in suites for metric in suite.metrics)
    scorers = tuple(_scorer(suite) for suite in suites if suite.container is not None)
    return (*((_sandbox(trainer_image, sandbox),) if runs_code else ()), *scorers)


def _sandbox(image: str, resources: Resources | None) -> Sidecar:
    folder = SharedFolder(
        volume=SANDBOX,
        trainer_path=str(SANDBOX_FOLDER),
        sidecar_path=str(SANDBOX_FOLDER),
        size="1Mi",
        trainer_writes=True,
        sidecar_writes=True,
    )
    command = ("python", "-m", "tunesmith_evaluation.metrics.sandbox", str(SANDBOX_SOCKET))
    return Sidecar(SANDBOX, image, command, _SANDBOX_DEFAULTS, resources, (folder,))


def _scorer(suite: Suite) -> Sidecar:
    container = suite.container
    assert container is not None
    name = f"suite-{suite.name}"
    folder = SUITES_FOLDER / suite.name
    folders = (
        SharedFolder(
            volume=f"{name}-{INPUT}",
            trainer_path=str(folder / INPUT),
            sidecar_path=str(ROOT / INPUT),
            size=INPUT_SIZE,
            trainer_writes=True,
        ),
        SharedFolder(
            volume=f"{name}-{OUTPUT}",
            trainer_path=str(folder / OUTPUT),
            sidecar_path=str(ROOT / OUTPUT),
            size=OUTPUT_SIZE,
            sidecar_writes=True,
        ),
    )
    defaults = _WRITTEN_SCORER_DEFAULTS if container.resources else _SCORER_DEFAULTS
    return Sidecar(name, container.image, container.command, defaults, container.resources, folders)


def _scratch_name(sidecar: Sidecar) -> str:
    return f"{sidecar.name}-tmp"
