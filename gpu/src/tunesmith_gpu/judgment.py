"""Judgment of the GPUs of a worker: what keeps a run from using them, and what to do about it.

Three rules of CUDA are behind it. A driver of at least the CUDA version's major release runs its programs; an older one
only beside NVIDIA's compatibility library, on data-centre GPUs, so its version counts only if torch can't use the GPUs.
Machine code for one compute capability runs on all later ones of the same major version. PTX runs on all later ones.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith_contract.report import GPUReason
from tunesmith_contract.shared_rules.gpus import BFLOAT16_CAPABILITY, MINIMUM_DRIVERS

from .facts import DeviceFacts, GPUFacts

_MAX_QUOTE = 500

_ARCHITECTURE = re.compile(r"(?P<kind>sm|compute)_(?P<major>\d+)(?P<minor>\d)(?P<suffix>[af]?)")

_NO_KERNEL = "no kernel image"
#: A driver of the same major release but older than the compiler of the PTX in torch.
_NEWER_PTX = "unsupported toolchain"
#: CUDA error 802: GPUs behind an NVSwitch whose Fabric Manager has not started.
_FABRIC = "system not yet initialized"

_CHECK_NODE = "check the GPU operator or device plugin of the node, and nvidia-smi on it"
_RUNTIME_CLASS = (
    "if the node's default container runtime is not NVIDIA's (k3s, RKE2), write runtimeClassName: nvidia in the "
    "pod template"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Reason for which a run can't use its GPUs, with a sentence that says what to do."""

    reason: GPUReason
    message: str


def find_problem(
    facts: GPUFacts, requested: int, minimum: tuple[int, int] = BFLOAT16_CAPABILITY
) -> Problem | None:
    """The first thing that keeps a worker from its GPUs; None where all of them can be used.

    Args:
        facts: the worker's GPUs, driver and torch.
        requested: number of GPUs that its pod asks for.
        minimum: compute capability (major, minor) that the worker needs.
    """
    if facts.usable < requested:
        problem = _missing_gpus(facts, requested)
        return Problem(
            problem.reason, f"{problem.message}. {_describe_driver(facts)}{_quote(facts.complaint)}"
        )
    for device in facts.devices:
        problem_of_device = _device_problem(device, facts, minimum)
        if problem_of_device is not None:
            return problem_of_device
    return None


def runs_on(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """True if one of the architectures that torch has code for runs on a GPU; also if torch names none."""
    architectures = tuple(architectures)
    return not architectures or any(_covers(name, capability) for name in architectures)


def is_too_old(driver: str, cuda: str) -> bool:
    """True for a driver that can't run programs of this CUDA version without the compatibility library."""
    minimum = MINIMUM_DRIVERS.get(_numbers(cuda)[0])
    return minimum is not None and _numbers(driver) < _numbers(minimum)


def _missing_gpus(facts: GPUFacts, requested: int) -> Problem:
    """Why torch can use fewer GPUs than the run asks for."""
    missing = (
        f"the run asks for {requested} GPU{'s' if requested > 1 else ''}, and torch can use {facts.usable}"
    )
    if facts.cuda is None:
        advice = f"torch {facts.torch} of this image has no CUDA: use an image that is built for GPUs"
        return Problem(GPUReason.NO_GPU, f"{missing}: {advice}")
    if facts.usable:
        part = "with MIG, one process can use one slice alone: ask for one"
        return Problem(GPUReason.NO_GPU, f"{missing}: {_CHECK_NODE}; {part}")
    if _driver_is_too_old(facts, facts.cuda):
        return Problem(GPUReason.DRIVER_TOO_OLD, f"{missing}: {_newer_driver(facts.cuda)}")
    return Problem(GPUReason.NO_GPU, f"{missing}: {_find_advice(facts)}")


def _find_advice(facts: GPUFacts) -> str:
    """What to do where the driver, as far as it is known, is new enough."""
    if facts.unlisted_library:
        folder = facts.unlisted_library.rpartition("/")[0]
        return f"the driver's library lies in {folder}: use an image that has this folder in LD_LIBRARY_PATH"
    if facts.library is None:
        given = "the driver's library was not mounted" if facts.driver else "the pod was given no driver"
        return f"{given}: {_CHECK_NODE}; {_RUNTIME_CLASS}"
    if _FABRIC in facts.complaint:
        return "start NVIDIA's Fabric Manager on the node"
    return _CHECK_NODE


def _driver_is_too_old(facts: GPUFacts, cuda: str) -> bool:
    if facts.driver is not None:
        return is_too_old(facts.driver, cuda)
    return facts.driver_cuda is not None and facts.driver_cuda[0] < _numbers(cuda)[0]


def _newer_driver(cuda: str) -> str:
    minimum = MINIMUM_DRIVERS.get(_numbers(cuda)[0])
    needed = f"driver {minimum} or later" if minimum else "a newer driver"
    return f"CUDA {cuda} of this image needs {needed}: update the node's, or use an image built for an older CUDA"


def _device_problem(device: DeviceFacts, facts: GPUFacts, minimum: tuple[int, int]) -> Problem | None:
    gpu = f"GPU {device.index} ({device.name}, compute capability {_dotted(device.capability)})"
    if device.capability < minimum:
        if minimum >= BFLOAT16_CAPABILITY:
            lack = "has no bfloat16, in which runs on GPUs compute"
            advice = "use an Ampere GPU or a later one (A10, A100, L4, H100), or ask for no GPU to compute on the CPU"
        else:
            lack, advice = "is too old", "use a later one (A10, A100, L4, H100)"
        message = f"{gpu} {lack}; it needs {_dotted(minimum)} or higher: {advice}"
        return Problem(GPUReason.UNSUPPORTED_GPU, message)
    if not runs_on(device.capability, facts.architectures) or _NO_KERNEL in device.error:
        built = f"torch {facts.torch} of this image is built for {' '.join(facts.architectures)}"
        message = (
            f"{gpu} can't run this image: {built}: use another GPU, or an image that is built for this one"
        )
        return Problem(GPUReason.UNSUPPORTED_GPU, f"{message}.{_quote(device.error)}")
    if _NEWER_PTX in device.error:
        message = f"{gpu} can't run this image: {_newer_driver(facts.cuda or '')}"
        return Problem(
            GPUReason.DRIVER_TOO_OLD, f"{message}. {_describe_driver(facts)}{_quote(device.error)}"
        )
    if device.error:
        advice = "see nvidia-smi for other programs on it, and the node's kernel log for Xid errors"
        message = f"{gpu} fails at multiplying two small matrices: {advice}"
        return Problem(GPUReason.FAULTY_GPU, f"{message}. {_describe_driver(facts)}{_quote(device.error)}")
    return None


def _describe_driver(facts: GPUFacts) -> str:
    driver = f"Driver {facts.driver}" if facts.driver else "No driver is seen"
    supported = f" (CUDA {_dotted(facts.driver_cuda)})" if facts.driver_cuda else ""
    library = facts.library or (
        f"in {facts.unlisted_library} alone" if facts.unlisted_library else "not found"
    )
    return f"{driver}{supported}; libcuda.so.1: {library}; torch {facts.torch}, CUDA {facts.cuda or 'none'}."


def _quote(text: str) -> str:
    """Torch's own words as one line; cut, since the message of a pod has a limit."""
    line = " ".join(text.split())
    return f" Torch says: {line[:_MAX_QUOTE]}" if line else ""


def _covers(architecture: str, capability: tuple[int, int]) -> bool:
    match = _ARCHITECTURE.fullmatch(architecture)
    if match is None:
        return False
    built = (int(match["major"]), int(match["minor"]))
    if match["suffix"] == "a":
        return built == capability
    same_major = built[0] == capability[0]
    return built <= capability and (same_major or (match["kind"] == "compute" and not match["suffix"]))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)) or (0,)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
