"""The default setting of PyTorch's allocator: growing segments, but not on slices of GPUs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith_trainer.launcher.allocator import allocator_environment

GROWING = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}


def test_segments_grow(tmp_path: Path) -> None:
    assert allocator_environment({"NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-2"}, tmp_path / "absent") == GROWING
    assert allocator_environment({}, tmp_path) == GROWING


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_what_people_set_counts(name: str, tmp_path: Path) -> None:
    assert allocator_environment({name: "max_split_size_mb:64"}, tmp_path) == {}


def test_slices_are_known_by_their_name_or_by_their_device(tmp_path: Path) -> None:
    assert allocator_environment({"NVIDIA_VISIBLE_DEVICES": "MIG-5c1e"}, tmp_path) == {}
    (tmp_path / "nvidia-cap21").touch()
    assert allocator_environment({"NVIDIA_VISIBLE_DEVICES": "void"}, tmp_path) == {}


def test_torch_knows_the_setting() -> None:
    """The installed torch reads this name and this key; it refuses unknown keys."""
    script = "import torch; print(torch._C._accelerator_getAllocatorSettings())"
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, env=GROWING, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == GROWING["PYTORCH_ALLOC_CONF"]
