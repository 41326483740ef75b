"""GPU memory of a model that answers prompts."""

import pytest
from training_memory.published_memory import LLAMA_3_1_8B

from tunesmith_contract.shared_rules.answer_memory import (
    GIB,
    AnswerMemory,
    Distribution,
    answer_memory,
    distribute,
    usable_memory,
)


def memory(stored_bytes: int | None = None) -> AnswerMemory:
    assert LLAMA_3_1_8B.shape is not None
    return answer_memory(LLAMA_3_1_8B.parameters, LLAMA_3_1_8B.shape, stored_bytes)


def test_keys_and_values_are_those_of_llama() -> None:
    assert memory().key_value == 2 * 2 * 32 * 8 * 128
    assert memory().weights == 2 * LLAMA_3_1_8B.parameters
    assert memory().largest_block == 2 * 128_256 * 4096


def test_quantized_files_are_smaller_and_float32_files_are_loaded_as_bfloat16() -> None:
    assert memory(6 * GIB).weights == 6 * GIB
    assert memory(30 * GIB).weights == 2 * LLAMA_3_1_8B.parameters


@pytest.mark.parametrize(
    ("sizes", "tokens", "expected"),
    [
        ([24], 2048, Distribution.COPIES),
        ([24, 15], 2048, Distribution.SPREAD),
        ([15], 2048, Distribution.NONE),
        ([24], 65_536, Distribution.NONE),
        ([8, 8], 2048, Distribution.NONE),
    ],
)
def test_a_model_is_copied_spread_or_too_large(sizes: list[int], tokens: int, expected: Distribution) -> None:
    assert distribute(memory(), tokens, [size * GIB for size in sizes]) is expected


def test_a_small_gpu_has_no_negative_memory() -> None:
    assert usable_memory(0.1 * GIB) == 0
    assert usable_memory(80 * GIB) == pytest.approx(74.8 * GIB)
