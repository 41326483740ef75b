"""The engine with the arguments and the environment that the operator gives it in a pod."""

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from check_runner import descendants

from tunesmith.api import AdapterDeployment
from tunesmith.manifests.engine_container import BASE_MODEL_NAME as BASE_MODEL_NAME
from tunesmith.manifests.engine_container import ENGINE_PORT, MODEL_CACHE
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.serving_config_maps import ServingInputs
from tunesmith.manifests.serving_deployment import build_serving_deployment
from tunesmith_contract.uris import mount_path, parse_uri

_ROOT = Path(__file__).resolve().parents[2]
#: What the engine imports, where it is not installed.
_SOURCES = ("contract/src", "gpu/src", "serving-image/engine/src")
_MODEL = "pvc://models/base"
_GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/nvidia0"), Path("/dev/dxg"))
_STOP_SECONDS = 30
_KIB, _MIB = 2**10, 2**20


@dataclass(slots=True)
class Engine:
    """A running engine.

    Attributes:
        start_seconds: seconds within which it must answer.
    """

    process: subprocess.Popen[bytes]
    port: int
    gpus: int
    log: Path
    start_seconds: float


def build_container(gpus: int) -> dict[str, Any]:
    """Container of the engine, as the operator writes it."""
    resource = {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "AdapterDeployment",
        "metadata": {"name": "smoke", "namespace": "smoke", "uid": "smoke"},
        "spec": {"baseModel": {"uri": _MODEL}, "engine": {"gpus": gpus}},
    }
    deployment = AdapterDeployment.model_validate(resource)
    environment = Environment(
        trainer_image="trainer",
        serving_image="serving",
        serving_gpu_image="serving-gpu",
        operator_url="https://operator:8443",
        ca_bundle="",
    )
    # On a port: what is measured asks the engine itself, too.
    inputs = ServingInputs(1, "", "serving", has_engine_socket=False)
    pod = build_serving_deployment(deployment, inputs, environment)["spec"]["template"]["spec"]
    container: dict[str, Any] = pod["initContainers"][0]
    return container


def start_engine(output: Path, python: str, start_seconds: float) -> Engine:
    """Start the engine on the base model of a smoke run, on a GPU if there is one.

    Only paths and the port differ from those in a pod.
    """
    gpus = int(any(file.exists() for file in _GPU_FILES))
    container, port = build_container(gpus), _free_port()
    model, cache = output / "work/pvc/models/base", output / "engine-cache"
    cache.mkdir(exist_ok=True)
    places = {str(mount_path(parse_uri(_MODEL))): str(model), str(ENGINE_PORT): str(port)}
    arguments = [places.get(argument, argument) for argument in container["args"]]
    variables = {
        variable["name"]: variable["value"].replace(MODEL_CACHE, str(cache))
        for variable in container["env"]
        if "value" in variable
    }
    environment = {**os.environ, **variables}
    command = container["command"]
    if shutil.which(command[0]) is None:
        command = [python, "-m", "tunesmith_engine"]
        environment["PYTHONPATH"] = os.pathsep.join(str(_ROOT / folder) for folder in _SOURCES)
    else:
        environment.pop("PYTHONPATH", None)
    log = output / "engine.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([*command, *arguments], env=environment, stdout=stream, stderr=stream)
    return Engine(process, port, gpus, log, start_seconds)


def stop_engine(engine: Engine) -> None:
    """End the engine with all its processes."""
    started = descendants(engine.process.pid)
    engine.process.terminate()
    try:
        engine.process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        engine.process.kill()
        engine.process.wait()
        for pid in started:
            subprocess.run(["kill", "-9", str(pid)], capture_output=True, check=False)


def used_memory(engine: Engine) -> int:
    """Bytes of the GPU in use, or of the engine's processes on a CPU."""
    if engine.gpus:
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        used = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return max(map(int, used)) * _MIB
    return sum(map(_resident, [engine.process.pid, *descendants(engine.process.pid)]))


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith("VmHWM")), 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
