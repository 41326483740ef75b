"""Choice of kernels, and isolation of packed rows."""

from pathlib import Path

import pytest
import torch

from tunesmith_trainer.train.kernels import (
    FLASH,
    LIGER,
    Hardware,
    Kernels,
    ModelSupport,
    choose_batching,
    choose_kernels,
    detect_hardware,
    detect_support,
)

ALL = frozenset({*FLASH.values(), LIGER, "triton"})
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
    chosen = choose_kernels(Hardware(capability, frozenset(packages)), BF16, ModelSupport(liger=True))
    assert chosen.attention == attention
    assert chosen.liger == (capability in {AMPERE, HOPPER, BLACKWELL} and packages == ALL)


def test_attention_follows_the_model_and_the_type() -> None:
    hardware = Hardware(HOPPER, ALL)
    assert choose_kernels(hardware, torch.float32, ModelSupport()).attention == "sdpa"
    assert choose_kernels(hardware, BF16, ModelSupport(flash=False)).attention == "sdpa"
    assert choose_kernels(hardware, BF16, ModelSupport(flash=False, sdpa=False)).attention == "eager"
    assert not choose_kernels(Hardware(HOPPER, ALL - {"triton"}), BF16, ModelSupport(liger=True)).liger


def test_rows_are_packed_one_at_a_time_without_flash_attention() -> None:
    flash, plain = Kernels("flash_attention_2"), Kernels("sdpa")
    assert not choose_batching(flash, packing=True, micro_batch=4).single_row
    assert choose_batching(plain, packing=True, micro_batch=4).single_row
    assert choose_batching(flash, packing=False, micro_batch=4).padding_free
    assert not choose_batching(flash, packing=False, micro_batch=1).padding_free
    assert not choose_batching(plain, packing=False, micro_batch=4).padding_free


def test_the_probe_finds_what_is_here(models: Path) -> None:
    hardware = detect_hardware(on_gpu=False)
    assert hardware.capability is None
    assert LIGER in hardware.packages
    support = detect_support(models / "llama", on_gpu=False)
    assert support.flash
    assert support.sdpa
