"""Default setting of PyTorch's allocator of GPU memory."""

from collections.abc import Mapping
from pathlib import Path

#: Folder in which a container runtime gives access to slices of a GPU (MIG).
SLICES = Path("/dev/nvidia-caps")

_NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def allocator_environment(environment: Mapping[str, str], slices: Path = SLICES) -> dict[str, str]:
    """Variables for segments that grow, unless people set the allocator or the GPU is a slice.

    They leave no gaps between them, so that fewer runs end because memory is in pieces. On slices PyTorch asks the
    driver for what it may not know there, and fails with an internal assertion.
    """
    sliced = "MIG-" in environment.get("NVIDIA_VISIBLE_DEVICES", "") or any(slices.glob("nvidia-cap*"))
    if sliced or any(name in environment for name in _NAMES):
        return {}
    return {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
