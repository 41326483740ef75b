"""Attention and fused kernels, chosen by the hardware and the packages that are found.

Sources: FlashAttention-2 needs Ampere or later, 3 is made for Hopper, 4 (CuTe) for Hopper and Blackwell
(``FLASH_ATTENTION_COMPATIBILITY_MATRIX`` of transformers); all need 16 bit. Without them PyTorch's SDPA keeps packed
rows apart by a dense mask over the whole sequence, which grows with its square: one packed row at a time there.
TRL's own fused output layer is Triton's and on wherever there is a GPU; Liger adds norms, rotary embedding and
activations.
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
_SHOWN = {
    "flash_attention_4": "FlashAttention4",
    "flash_attention_3": "FlashAttention3",
    "flash_attention_2": "FlashAttention2",
    "sdpa": "SDPA",
    "eager": "Eager",
}


@dataclass(frozen=True, slots=True)
class Hardware:
    """What was found.

    Attributes:
        capability: CUDA's compute capability; None without a GPU.
        packages: distributions of kernels that are installed.
    """

    capability: tuple[int, int] | None
    packages: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ModelSupport:
    """What the model's implementation in transformers can be run with."""

    flash: bool = True
    sdpa: bool = True
    liger: bool = False


@dataclass(frozen=True, slots=True)
class Kernels:
    """How the model is to be run.

    Attributes:
        attention: transformers' name of the implementation.
        liger: Liger's layers take the place of the model's.
    """

    attention: str
    liger: bool = False

    @property
    def flash(self) -> bool:
        """Whether rows of different lengths can share one sequence at no cost."""
        return self.attention in FLASH


@dataclass(frozen=True, slots=True)
class Batching:
    """How rows become batches.

    Attributes:
        packing: several rows in one of ``max_length`` tokens.
        padding_free: rows of a batch are laid end to end instead of padded.
        single: one (packed) row per pass.
    """

    packing: bool
    padding_free: bool
    single: bool


def choose_kernels(hardware: Hardware, dtype: torch.dtype, support: ModelSupport) -> Kernels:
    """The fastest that hardware, packages, compute type and model allow.

    Args:
        hardware: what was found.
        dtype: in which matrices are multiplied: under autocast not that of the weights.
        support: what the model allows.
    """
    plain = "sdpa" if support.sdpa else "eager"
    if hardware.capability is None or hardware.capability[0] < _AMPERE:
        return Kernels(plain)
    liger = support.liger and {LIGER, _TRITON} <= hardware.packages
    if not support.flash or dtype not in {torch.bfloat16, torch.float16}:
        return Kernels(plain, liger)
    for name in _preferred(hardware.capability[0]):
        if FLASH[name] in hardware.packages:
            return Kernels(name, liger)
    return Kernels(plain, liger)


def _preferred(major: int) -> tuple[str, ...]:
    """Fastest first; 4 is a beta, so on Hopper 3 goes before it."""
    if major == _HOPPER:
        return ("flash_attention_3", "flash_attention_4", "flash_attention_2")
    if major >= _BLACKWELL:
        return ("flash_attention_4", "flash_attention_2")
    return ("flash_attention_2",)


def choose_batching(kernels: Kernels, *, packing: bool, micro_batch: int) -> Batching:
    """Packing as asked for; nothing is padded where attention takes rows of any length."""
    if packing:
        return Batching(packing=True, padding_free=True, single=not kernels.flash)
    return Batching(packing=False, padding_free=kernels.flash and micro_batch > 1, single=False)


def probe_hardware() -> Hardware:
    """The GPU of this process and the kernels that are installed."""
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    names = (*FLASH.values(), LIGER, _TRITON)
    return Hardware(capability, frozenset(name for name in names if _installed(name)))


def probe_support(folder: Path) -> ModelSupport:
    """What the model's implementation says of itself; nothing but PyTorch's own for an unknown one."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return ModelSupport(flash=False, sdpa=False)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return ModelSupport(model._supports_flash_attn, model._supports_sdpa, _liger_knows(config.model_type))


def describe_kernels(model: Any, arguments: Any) -> str:
    """What a model is run with, as it is reported: ``FlashAttention2,Liger,FusedHead``."""
    attention = model.config._attn_implementation
    shown = [_SHOWN.get(attention, str(attention))]
    if getattr(arguments, "use_liger_kernel", False):
        shown.append("Liger")
    if arguments.device.type == "cuda" and hasattr(arguments, "packing"):
        shown.append("FusedHead")
    return ",".join(shown)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _liger_knows(model_type: str) -> bool:
    if not torch.cuda.is_available() or importlib.util.find_spec("liger_kernel") is None:
        return False
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return model_type in MODEL_TYPE_TO_APPLY_LIGER_FN
