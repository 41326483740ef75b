"""Choice of attention implementation and fused kernels by hardware, installed packages and model.

FlashAttention-2 needs Ampere or later, 3 needs Hopper, 4 (CuTe) needs Hopper or Blackwell
(``FLASH_ATTENTION_COMPATIBILITY_MATRIX`` of transformers); all need a 16-bit type. Without them PyTorch's SDPA
separates packed rows by a dense mask of quadratic size, so one packed row is processed at a time. TRL's own fused
output layer uses Triton and is on with any GPU; Liger adds norms, rotary embedding and activations.
"""

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

FLASH = {
    "flash_attention_4": "flash-attn-4",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_2": "flash-attn",
}
LIGER = "liger-kernel"
_TRITON = "triton"

_AMPERE, _HOPPER, _BLACKWELL = 8, 9, 10
_DISPLAY_NAMES = {
    "flash_attention_4": "FlashAttention4",
    "flash_attention_3": "FlashAttention3",
    "flash_attention_2": "FlashAttention2",
    "sdpa": "SDPA",
    "eager": "Eager",
}


@dataclass(frozen=True, slots=True)
class Hardware:
    """GPU and installed kernel packages.

    Attributes:
        capability: CUDA compute capability (major, minor); None without a GPU.
        packages: names of installed kernel packages.
    """

    capability: tuple[int, int] | None
    packages: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ModelSupport:
    """Kernels that the model's implementation in transformers supports."""

    flash: bool = True
    sdpa: bool = True
    liger: bool = False


@dataclass(frozen=True, slots=True)
class Kernels:
    """Chosen kernels.

    Attributes:
        attention: transformers' name of the attention implementation.
        liger: use Liger's fused layers.
    """

    attention: str
    liger: bool = False

    @property
    def flash(self) -> bool:
        """True if attention takes rows of different lengths in one sequence without a mask."""
        return self.attention in FLASH


@dataclass(frozen=True, slots=True)
class Batching:
    """Batching of rows.

    Attributes:
        packing: several rows are packed into one of ``max_length`` tokens.
        padding_free: rows of a batch are concatenated instead of padded.
        single_row: micro batch of one (packed) row.
    """

    packing: bool
    padding_free: bool
    single_row: bool


def choose_kernels(hardware: Hardware, dtype: torch.dtype, support: ModelSupport) -> Kernels:
    """Fastest kernels that hardware, packages, compute type and model support.

    Args:
        hardware: GPU and installed packages.
        dtype: type of matrix multiplication; under autocast not the type of the weights.
        support: kernels that the model supports.
    """
    fallback = "sdpa" if support.sdpa else "eager"
    if hardware.capability is None or hardware.capability[0] < _AMPERE:
        return Kernels(fallback)
    liger = support.liger and {LIGER, _TRITON} <= hardware.packages
    if not support.flash or dtype not in {torch.bfloat16, torch.float16}:
        return Kernels(fallback, liger)
    for name in _flash_preference(hardware.capability[0]):
        if FLASH[name] in hardware.packages:
            return Kernels(name, liger)
    return Kernels(fallback, liger)


def _flash_preference(major: int) -> tuple[str, ...]:
    """FlashAttention versions for a compute capability, fastest first; on Hopper 3 goes before 4, which is a beta."""
    if major == _HOPPER:
        return ("flash_attention_3", "flash_attention_4", "flash_attention_2")
    if major >= _BLACKWELL:
        return ("flash_attention_4", "flash_attention_2")
    return ("flash_attention_2",)


def choose_batching(kernels: Kernels, *, packing: bool, micro_batch: int) -> Batching:
    """Packing as configured, and batches without padding where attention supports them.

    Args:
        kernels: the chosen kernels.
        packing: pack rows.
        micro_batch: rows per device and pass.
    """
    if packing:
        return Batching(packing=True, padding_free=True, single_row=not kernels.flash)
    return Batching(packing=False, padding_free=kernels.flash and micro_batch > 1, single_row=False)


def detect_hardware(*, on_gpu: bool) -> Hardware:
    """GPU of this process, if the run computes on one, and installed kernel packages."""
    capability = torch.cuda.get_device_capability() if on_gpu else None
    names = (*FLASH.values(), LIGER, _TRITON)
    return Hardware(capability, frozenset(name for name in names if _installed(name)))


def detect_support(folder: Path, *, on_gpu: bool) -> ModelSupport:
    """Kernels supported by the model's implementation; plain PyTorch for an unknown one."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return ModelSupport(flash=False, sdpa=False)
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    liger = on_gpu and _liger_supports(config.model_type)
    return ModelSupport(model._supports_flash_attn, model._supports_sdpa, liger)


def describe_kernels(model: Any, arguments: Any) -> str:
    """Comma-separated names of a model's kernels for the report, such as ``FlashAttention2,Liger,FusedHead``."""
    attention = model.config._attn_implementation
    names = [_DISPLAY_NAMES.get(attention, str(attention))]
    if getattr(arguments, "use_liger_kernel", False):
        names.append("Liger")
    if arguments.device.type == "cuda" and hasattr(arguments, "packing"):
        names.append("FusedHead")
    return ",".join(names)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _liger_supports(model_type: str) -> bool:
    if importlib.util.find_spec("liger_kernel") is None:
        return False
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return model_type in MODEL_TYPE_TO_APPLY_LIGER_FN
