"""Facts about the GPUs of a worker, the driver and torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One GPU.

    Attributes:
        index: its number in the process.
        name: name of the product.
        capability: compute capability (major, minor).
        error: error of a small multiplication in bfloat16 on it; empty if the result was right.
    """

    index: int
    name: str
    capability: tuple[int, int]
    error: str = ""


@dataclass(frozen=True, slots=True)
class GPUFacts:
    """GPUs of a worker, and what torch needs to use them.

    Attributes:
        torch: version of torch.
        cuda: CUDA version that torch was built for; None for a torch without CUDA.
        architectures: architectures that torch has code for, such as ``sm_90`` or ``compute_120``.
        usable: number of GPUs on which torch can compute.
        devices: the GPUs of this worker, as far as they are usable.
        complaint: torch's own warnings and errors.
        driver: version of the driver in the kernel; None if there is none, or it is hidden.
        driver_cuda: the newest CUDA version that the driver's library supports; None without that library.
        library: path of the driver's library ``libcuda.so.1`` that was loaded.
        unlisted_library: path of one that was found where the loader does not look.
    """

    torch: str
    cuda: str | None
    architectures: tuple[str, ...] = ()
    usable: int = 0
    devices: tuple[DeviceFacts, ...] = ()
    complaint: str = ""
    driver: str | None = None
    driver_cuda: tuple[int, int] | None = None
    library: str | None = None
    unlisted_library: str | None = None
