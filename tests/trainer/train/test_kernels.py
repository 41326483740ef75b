"""Choice of kernels, and isolation of packed rows."""

from pathlib import Path

import pytest
import torch
from models.small_configs import make_config

from tunesmith_trainer.train.kernels import (
    FLASH,
    Hardware,
    Kernels,
    ModelSupport,
    choose_batching,
    choose_kernels,
    detect_hardware,
    detect_support,
)
from tunesmith_trainer.train.packed_attention import PACKED_SDPA, PACKED_VARLEN

ALL = frozenset(FLASH.values())
AMPERE, HOPPER, BLACKWELL = (8, 0), (9, 0), (10, 0)
BF16 = torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "packages", "attention"),
    [
        (None, ALL, "sdpa"),
        ((7, 5), ALL, "sdpa"),
        (AMPERE, ALL, "flash_attention_2"),
        (AMPERE, {"flash-attn-4"}, "sdpa"),
        (HOPPER, ALL, "flash_attention_3"),
        (HOPPER, {"flash-attn", "flash-attn-4"}, "flash_attention_4"),
        (HOPPER, {"flash-attn"}, "flash_attention_2"),
        (HOPPER, set(), "sdpa"),
        (BLACKWELL, ALL, "flash_attention_4"),
        (BLACKWELL, {"flash-attn-3", "flash-attn"}, "flash_attention_2"),
    ],
)
def test_attention_follows_the_gpu(
    capability: tuple[int, int] | None, packages: set[str], attention: str
) -> None:
    hardware = Hardware(capability, frozenset(packages))
    assert choose_kernels(hardware, BF16, ModelSupport()).attention == attention


def test_attention_follows_the_model_and_the_type() -> None:
    hardware = Hardware(HOPPER, ALL)
    assert choose_kernels(hardware, torch.float32, ModelSupport()).attention == "sdpa"
    assert choose_kernels(hardware, BF16, ModelSupport(flash=False)).attention == "sdpa"
    assert choose_kernels(hardware, BF16, ModelSupport(flash=False, sdpa=False)).attention == "eager"


@pytest.mark.parametrize(
    ("capability", "dtype", "support", "attention"),
    [
        (HOPPER, BF16, ModelSupport(), PACKED_VARLEN),
        (AMPERE, torch.float16, ModelSupport(flash=False), PACKED_VARLEN),
        (AMPERE, torch.float32, ModelSupport(), PACKED_SDPA),
        ((7, 5), BF16, ModelSupport(), PACKED_SDPA),
        (None, torch.float32, ModelSupport(), PACKED_SDPA),
        (HOPPER, BF16, ModelSupport(packed=False), "sdpa"),
        (HOPPER, BF16, ModelSupport(flash=False, sdpa=False, packed=False), "eager"),
    ],
)
def test_packed_rows_need_no_package(
    capability: tuple[int, int] | None, dtype: torch.dtype, support: ModelSupport, attention: str
) -> None:
    chosen = choose_kernels(Hardware(capability), dtype, support, packing=True)
    assert chosen.attention == attention
    assert chosen.joins_rows == attention.startswith("packed")
    installed = choose_kernels(Hardware(HOPPER, ALL), BF16, ModelSupport(), packing=True)
    assert installed.attention == "flash_attention_3"


def test_rows_are_packed_one_at_a_time_if_a_mask_keeps_them_apart() -> None:
    flash, plain = Kernels("flash_attention_2"), Kernels("sdpa")
    for joined in (flash, Kernels(PACKED_VARLEN), Kernels(PACKED_SDPA)):
        assert not choose_batching(joined, packing=True, micro_batch=4).single_row
    assert choose_batching(plain, packing=True, micro_batch=4).single_row
    assert choose_batching(flash, packing=False, micro_batch=4).padding_free
    assert not choose_batching(flash, packing=False, micro_batch=1).padding_free
    assert not choose_batching(plain, packing=False, micro_batch=4).padding_free


def test_the_probe_finds_what_is_here(models: Path) -> None:
    hardware = detect_hardware(on_gpu=False)
    assert hardware.capability is None
    assert detect_support(models / "llama") == ModelSupport(flash=True, sdpa=True, packed=True)


@pytest.mark.parametrize(
    ("architecture", "support"),
    [
        ("GPT2", ModelSupport(packed=False)),
        ("Gemma2", ModelSupport(sdpa=False, packed=False)),
        ("Qwen3", ModelSupport()),
    ],
)
def test_support_follows_the_implementation_of_the_model(
    architecture: str, support: ModelSupport, tmp_path: Path
) -> None:
    make_config(architecture).save_pretrained(tmp_path)
    assert detect_support(tmp_path) == support
