"""Devices of the evaluated models: the CPU, or copies on one GPU or several each."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.shared_rules.answer_memory import (
    GIB,
    AnswerMemory,
    answer_memory,
    count_gpus_per_copy,
)
from tunesmith_contract.shared_rules.gpus import usable_memory
from tunesmith_data.failures import StageError
from tunesmith_data.models.inspection import load_config
from tunesmith_data.models.torch_shape import build_skeleton, count_parameters, describe_shape

#: Share of a GPU's free memory that the weights of a model on several may fill.
SPREAD_SHARE = 0.94

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placement:
    """Devices of one loaded model.

    Attributes:
        gpus: indices of its GPUs; none: the CPU.
    """

    gpus: tuple[int, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """Data type of weights and computation, adapters included."""
        return torch.bfloat16 if self.gpus else torch.float32

    def loading_arguments(self) -> dict[str, Any]:
        """Arguments of ``from_pretrained`` that load the weights straight onto the devices."""
        if not self.gpus:
            return {}
        if len(self.gpus) == 1:
            return {"device_map": {"": self.gpus[0]}}
        free = {gpu: int(SPREAD_SHARE * free_memory(gpu)) for gpu in self.gpus}
        return {"device_map": "balanced", "max_memory": free}


def measure_model(folder: Path) -> AnswerMemory:
    """Memory of the model in a folder, by its configuration and the size of its files."""
    skeleton = build_skeleton(load_config(folder))
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return answer_memory(count_parameters(skeleton), describe_shape(skeleton), stored)


def choose_placements(memory: AnswerMemory, tokens: int, sizes: Sequence[int]) -> tuple[Placement, ...]:
    """Placements of the models, one per process that answers.

    Args:
        memory: memory of the base model; fully fine-tuned ones have its size.
        tokens: length of the longest prompt and its answer.
        sizes: bytes of each GPU of the pod; none: a pod without GPUs.

    Raises:
        StageError: the model does not fit on all GPUs together.
    """
    if not sizes:
        return (Placement(),)
    per_copy = count_gpus_per_copy(memory, tokens, sizes)
    if per_copy is not None:
        starts = range(0, len(sizes) - per_copy + 1, per_copy)
        _log.info("%d copies of the model with %d of %d GPUs each", len(starts), per_copy, len(sizes))
        return tuple(Placement(tuple(range(start, start + per_copy))) for start in starts)
    usable = sum(map(usable_memory, sizes)) / GIB
    message = (
        f"the model takes {memory.weights / GIB:.1f} GiB, and the longest item of {tokens:,} tokens "
        f"{memory.item(tokens) / GIB:.1f} GiB, but the pod's GPUs ({len(sizes)}) have {usable:.1f} GiB for them: raise "
        "compute.gpus, choose GPUs with more memory, or lower fewShot or maxNewTokens"
    )
    raise StageError(FailureCategory.OUT_OF_MEMORY, "OutOfMemory", message)


def gpu_sizes(count: int) -> list[int]:
    """Bytes of each GPU of the pod; asking takes no memory of a GPU.

    Raises:
        StageError: fewer are there.
    """
    visible = torch.cuda.device_count()
    if visible < count:
        message = (
            f"{count} GPUs are to be used, but {visible} can be seen here: check the driver (nvidia-smi), or evaluate "
            "with fewer GPUs; 0 are CPUs"
        )
        raise StageError(FailureCategory.INFRASTRUCTURE, "GPUMissing", message)
    return [torch.cuda.get_device_properties(index).total_memory for index in range(count)]


def free_memory(gpu: int) -> int:
    """Bytes of a GPU that this process can still allocate."""
    free, _ = torch.cuda.mem_get_info(gpu)
    return int(free + torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu))
