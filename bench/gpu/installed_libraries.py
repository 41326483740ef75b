"""Versions of the libraries that are installed; imports none of them."""

import importlib.metadata
import platform
from typing import Any

from check_runner import Place

LIBRARIES = (
    "torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "bitsandbytes", "triton",
    "flash-attn", "flash-attn-3", "flash-attn-4", "vllm", "unsloth",
)  # fmt: skip


def find_versions(place: Place) -> dict[str, Any]:
    """Versions by library, without those that are missing."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
