"""Gathering of the facts about the GPUs of a worker, from torch, the driver and the loader."""

import ctypes
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from .facts import DeviceFacts, GPUFacts

DRIVER_FILE = Path("/proc/driver/nvidia/version")

_LIBRARY = "libcuda.so.1"
_LOADED_FILES = Path("/proc/self/maps")
#: Folders in which GKE's device plugin, NVIDIA's container toolkit and WSL put the driver's libraries.
_LIBRARY_FOLDERS = (
    Path("/usr/local/nvidia/lib64"),
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
    Path("/usr/lib64"),
    Path("/usr/lib/wsl/lib"),
)
# "Kernel Module  535.274.02", or "Open Kernel Module for x86_64  580.65.06".
_DRIVER = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")

#: Rows and columns of the matrices that are multiplied: any kernel of torch and of cuBLAS is enough.
_SIZE = 64


def gather_facts(local_devices: Iterable[int]) -> GPUFacts:
    """Facts about this worker's GPUs; CUDA is started in this process.

    Args:
        local_devices: numbers of the GPUs that this worker uses, of those that the process sees.
    """
    library, driver_cuda = _load_library()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        error = _start_cuda()
        usable = 0 if error else torch.cuda.device_count()
        devices = [_describe_device(index) for index in local_devices if index < usable]
    complaints = [error, *(str(warning.message) for warning in caught)]
    return GPUFacts(
        torch=torch.__version__,
        cuda=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()),
        usable=usable,
        devices=tuple(devices),
        complaint=" ".join(dict.fromkeys(filter(None, complaints))),
        driver=read_driver_version(DRIVER_FILE),
        driver_cuda=driver_cuda,
        library=library,
        unlisted_library=None if library else find_library(_LIBRARY_FOLDERS),
    )


def read_driver_version(file: Path) -> str | None:
    """Version of the driver in the kernel; None where there is none, or a sandbox hides it."""
    try:
        match = _DRIVER.search(file.read_text(errors="replace"))
    except OSError:
        return None
    return match[1] if match else None


def find_library(folders: Iterable[Path]) -> str | None:
    """Path of the driver's library in one of the folders."""
    return next((str(folder / _LIBRARY) for folder in folders if (folder / _LIBRARY).exists()), None)


def _start_cuda() -> str:
    """Start CUDA in this process; the error, if it can't be.

    ``torch.cuda.is_available`` would hide the error, and ``device_count`` counts GPUs that CUDA can't use.
    """
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
        return str(error)
    return ""


def _describe_device(index: int) -> DeviceFacts:
    error = _multiply(torch.device("cuda", index))
    return DeviceFacts(
        index, torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index), error
    )


def _multiply(device: torch.device) -> str:
    """Multiply two small matrices of ones in bfloat16, and wait for the result; the error, if it is not right."""
    try:
        ones = torch.ones((_SIZE, _SIZE), dtype=torch.bfloat16, device=device)
        total = (ones @ ones).float().sum().item()
    except RuntimeError as error:
        return str(error)
    return "" if total == _SIZE**3 else f"the sum of a product of ones is {total:g}, not {_SIZE**3}"


def _load_library() -> tuple[str | None, tuple[int, int] | None]:
    """Path of the driver's library, and the newest CUDA version that it supports."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None, None
    version = ctypes.c_int()
    failed = driver.cuDriverGetVersion(ctypes.byref(version))
    path = next(_loaded_paths(), _LIBRARY)
    return path, None if failed else (version.value // 1000, version.value % 1000 // 10)


def _loaded_paths() -> Iterator[str]:
    with _LOADED_FILES.open() as lines:
        for line in lines:
            path = line.split(maxsplit=5)[-1].strip()
            if os.path.basename(path).startswith("libcuda.so"):
                yield path
