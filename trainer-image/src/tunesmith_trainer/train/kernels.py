"""Choice of attention implementation by hardware, installed packages and model.

FlashAttention-2 needs Ampere or later, 3 needs Hopper, 4 (CuTe) needs Hopper or Blackwell
(``FLASH_ATTENTION_COMPATIBILITY_MATRIX`` of transformers); all need a 16-bit type. Without these packages, packed rows
of known models are kept apart by ``packed_attention``. PyTorch's SDPA separates those of any other model by a dense
mask of quadratic size, so one packed row is processed at a time. TRL's own fused output layer uses Triton and is on
with any GPU.
"""

import importlib.metadata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from tunesmith_contract.shared_rules.attention import packs_without_mask

from .packed_attention import PACKED_SDPA, PACKED_VARLEN, varlen_works

FLASH = {
    "flash_attention_4": "flash-attn-4",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_2": "flash-attn",
}
#: Implementations that take rows of different lengths in one sequence without a mask.
_JOIN_ROWS = frozenset({*FLASH, PACKED_VARLEN, PACKED_SDPA})

_AMPERE, _HOPPER, _BLACKWELL = 8, 9, 10
_DISPLAY_NAMES = {
    "flash_attention_4": "FlashAttention4",
    "flash_attention_3": "FlashAttention3",
    "flash_attention_2": "FlashAttention2",
    PACKED_VARLEN: "TorchFlashAttention2",
    PACKED_SDPA: "SDPAPerRow",
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
    """Attention that the model's implementation in transformers supports.

    Attributes:
        flash: the packages of FlashAttention.
        sdpa: PyTorch's SDPA.
        packed: packed rows without a mask, by ``packed_attention``.
    """

    flash: bool = True
    sdpa: bool = True
    packed: bool = True


@dataclass(frozen=True, slots=True)
class Kernels:
    """Chosen kernels.

    Attributes:
        attention: transformers' name of the attention implementation.
    """

    attention: str

    @property
    def joins_rows(self) -> bool:
        """True if attention takes rows of different lengths in one sequence without a mask."""
        return self.attention in _JOIN_ROWS


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


def choose_kernels(
    hardware: Hardware, dtype: torch.dtype, support: ModelSupport, *, packing: bool = False
) -> Kernels:
    """Fastest kernels that hardware, packages, compute type and model support.

    Args:
        hardware: GPU and installed packages.
        dtype: type of matrix multiplication; under autocast not the type of the weights.
        support: attention that the model supports.
        packing: rows are packed.
    """
    ampere = hardware.capability is not None and hardware.capability[0] >= _AMPERE
    flash = ampere and dtype in {torch.bfloat16, torch.float16}
    if flash and support.flash:
        assert hardware.capability is not None
        for name in _flash_preference(hardware.capability[0]):
            if FLASH[name] in hardware.packages:
                return Kernels(name)
    if packing and support.packed:
        return Kernels(PACKED_VARLEN if flash else PACKED_SDPA)
    return Kernels("sdpa" if support.sdpa else "eager")


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
        return Batching(packing=True, padding_free=True, single_row=not kernels.joins_rows)
    return Batching(packing=False, padding_free=kernels.joins_rows and micro_batch > 1, single_row=False)


def detect_hardware(*, on_gpu: bool) -> Hardware:
    """GPU of this process, if the run computes on one, and installed kernel packages."""
    capability = torch.cuda.get_device_capability() if on_gpu else None
    return Hardware(capability, frozenset(name for name in FLASH.values() if _installed(name)))


def detect_support(folder: Path) -> ModelSupport:
    """Attention supported by the model's implementation; plain PyTorch for an unknown one."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return ModelSupport(flash=False, sdpa=False, packed=False)
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    packed = model._supports_sdpa and packs_without_mask(model.__name__)
    return ModelSupport(model._supports_flash_attn, model._supports_sdpa, packed)


def check_kernels(kernels: Kernels, folder: Path, dtype: torch.dtype, device: str) -> Kernels:
    """The chosen kernels, if a short check of torch's variable-length attention passes on the device; else SDPA's."""
    if kernels.attention != PACKED_VARLEN:
        return kernels
    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    heads = config.num_attention_heads
    works = varlen_works(
        heads,
        getattr(config, "num_key_value_heads", None) or heads,
        getattr(config, "head_dim", None) or config.hidden_size // heads,
        getattr(config, "sliding_window", None),
        dtype,
        device,
    )
    return kernels if works else replace(kernels, attention=PACKED_SDPA)


def describe_kernels(model: Any, arguments: Any) -> str:
    """Comma-separated names of a model's kernels for the report, such as ``FlashAttention2,FusedHead``."""
    attention = model.config._attn_implementation
    names = [_DISPLAY_NAMES.get(attention, str(attention))]
    if arguments.device.type == "cuda" and hasattr(arguments, "packing"):
        names.append("FusedHead")
    return ",".join(names)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
