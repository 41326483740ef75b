"""Memory of the serving engine beside that of the GPUs: sizes that vLLM allocates, and what a person is told."""

from dataclasses import replace

import pytest
from training_memory.published_memory import LLAMA_3_1_8B, LLAMA_3_3_70B

from tunesmith.decide.fit.engine_fit import (
    EngineFit,
    EngineSetup,
    estimate_engine,
    judge_engine,
    slot_bytes,
    token_bytes,
    weight_bytes,
)
from tunesmith_contract.report import ModelReport

GIB = 2**30
SETUP = EngineSetup(gpus=1, slots=8, rank=64)


def judge(gibibytes: float, model: ModelReport = LLAMA_3_1_8B, setup: EngineSetup = SETUP) -> EngineFit:
    size = int(gibibytes * GIB)
    return judge_engine(model, setup, size, size)


def test_a_slot_holds_an_adapter_on_all_layers_and_the_vocabulary() -> None:
    """Rank 64 on all linear layers of Llama 3.1 8B has 167,772,160 parameters, and two matrices for 128,256 tokens."""
    assert LLAMA_3_1_8B.shape
    assert slot_bytes(LLAMA_3_1_8B.shape, SETUP) == 2 * (167_772_160 + 2 * 64 * (128_256 + 4096))


def test_only_one_matrix_of_an_adapter_is_divided_unless_both_are() -> None:
    assert LLAMA_3_3_70B.shape
    alone = slot_bytes(LLAMA_3_3_70B.shape, SETUP)
    four = slot_bytes(LLAMA_3_3_70B.shape, replace(SETUP, gpus=4))
    sharded = slot_bytes(LLAMA_3_3_70B.shape, replace(SETUP, gpus=4, sharded=True))
    vocabulary = 2 * 2 * 64 * (128_256 + 8192)
    assert alone / 2 < four < alone
    assert sharded - vocabulary == pytest.approx((alone - vocabulary) / 4)


def test_keys_and_values_of_a_token_are_divided_by_heads() -> None:
    """Llama 3.1 8B has 32 layers with 8 heads of 128: 128 KiB for each token; a head is not divided."""
    assert LLAMA_3_1_8B.shape
    sizes = [token_bytes(LLAMA_3_1_8B.shape, gpus) / 1024 for gpus in (1, 2, 8, 16)]
    assert sizes == [128, 64, 16, 16]


def test_an_8b_model_fits_a_card_of_24_gib_with_shorter_requests() -> None:
    fit = judge(22.5)
    assert fit.fits
    assert "weights 15.0 GiB, 8 adapters of rank 64 2.8 GiB" in fit.message
    assert "Requests are limited to about" in fit.message
    assert judge(141).message.endswith("one may have 131072.")


def test_a_length_that_was_written_must_fit() -> None:
    fit = judge(22.5, setup=replace(SETUP, max_length=131_072))
    assert (fit.fits, fit.impossible) == (False, False)
    assert "no room for a request of 131072 tokens. Set engine.maxModelLength to " in fit.message
    length = int(fit.message.partition("maxModelLength to ")[2].split()[0])
    assert judge(22.5, setup=replace(SETUP, max_length=length)).fits


def test_adapters_may_leave_no_room_for_requests() -> None:
    fit = judge(22.5, setup=replace(SETUP, rank=256))
    assert (fit.fits, fit.impossible) == (False, False)
    assert "no room for any request. Lower engine.maxRank or engine.residentAdapters" in fit.message
    assert judge(22.5, setup=replace(SETUP, rank=256, slots=1)).fits


def test_weights_that_exceed_every_gpu_are_impossible_and_the_gpus_that_hold_them_are_named() -> None:
    fit = judge(80, LLAMA_3_3_70B)
    assert (fit.fits, fit.impossible) == (False, True)
    assert "131.4 GiB of each of 1 GPUs, but a GPU has only 80.0 GiB" in fit.message
    assert "set engine.gpus to 4 or more" in fit.message
    assert judge(80, LLAMA_3_3_70B, replace(SETUP, gpus=4)).fits


def test_one_large_enough_gpu_keeps_it_possible() -> None:
    fit = judge_engine(LLAMA_3_1_8B, SETUP, 15 * 10**9, 80 * GIB)
    assert (fit.fits, fit.impossible) == (False, False)


def test_more_of_the_memory_may_be_given() -> None:
    tight = replace(SETUP, rank=128, max_length=4096)
    assert judge(24.5, setup=tight).fits is False
    assert judge(24.5, setup=replace(tight, utilization=0.99)).fits


def test_unknown_sizes_are_said_and_never_judged() -> None:
    unknown = judge_engine(LLAMA_3_1_8B, SETUP, None, None)
    assert (unknown.fits, unknown.gpu_memory_unknown) == (None, True)
    assert "write engine.gpuMemory" in unknown.message
    shapeless = LLAMA_3_1_8B.model_copy(update={"shape": None})
    assert judge(80, shapeless).fits is None
    assert judge(8, shapeless).impossible


def test_quantized_weights_are_smaller() -> None:
    assert (
        weight_bytes(LLAMA_3_1_8B.model_copy(update={"quantization": "awq"})) < weight_bytes(LLAMA_3_1_8B) / 3
    )


def test_a_large_gpu_is_given_larger_batches() -> None:
    assert LLAMA_3_1_8B.shape
    small, large = (
        estimate_engine(LLAMA_3_1_8B, LLAMA_3_1_8B.shape, SETUP, memory * GIB).overhead for memory in (24, 80)
    )
    assert small + GIB / 2 < large < small + 2 * GIB
