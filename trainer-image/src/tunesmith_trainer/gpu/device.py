"""Device of a worker: decided by what the run asks for, never by what the machine happens to have.

A worker computes on a GPU only if its run asks for GPUs, and then never without them (``preflight``). Where the run
asks for none, the machine's GPUs are hidden, so that libraries that look for themselves stay on the CPU as well.
"""

from collections.abc import MutableMapping
from typing import Literal

from tunesmith_contract.evaluation import Engine
from tunesmith_contract.run_config import AnyConfig, EvaluateConfig, TrainConfig

Device = Literal["cuda", "cpu"]

_VISIBLE_GPUS_ENV = "CUDA_VISIBLE_DEVICES"


def requested_gpus(config: AnyConfig) -> int:
    """GPUs that each pod of a run asks for; the stages of data ask for none."""
    match config:
        case TrainConfig():
            return config.gpus_per_node
        case EvaluateConfig():
            # vLLM computes in a container of its own, which has the GPUs.
            return 0 if config.engine is Engine.VLLM else config.gpus
        case _:
            return 0


def uses_gpu(config: AnyConfig) -> bool:
    """True if the workers of a run compute on GPUs."""
    return requested_gpus(config) > 0


def worker_device(config: AnyConfig) -> Device:
    """Device on which the workers of a run compute; ``cuda`` is the current GPU of the process."""
    return "cuda" if uses_gpu(config) else "cpu"


def hide_unrequested_gpus(config: AnyConfig, environment: MutableMapping[str, str]) -> None:
    """Hide the machine's GPUs from a worker whose run asks for none; before torch looks for them."""
    if not uses_gpu(config):
        environment[_VISIBLE_GPUS_ENV] = ""
