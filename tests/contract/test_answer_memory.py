"""GPU memory of a model that answers prompts."""

import pytest
from training_memory.published_memory import LLAMA_3_1_8B

from tunesmith_contract.shared_rules.answer_memory import (
    GIB,
    MAX_ROWS,
    AnswerMemory,
    answer_memory,
    count_gpus_per_copy,
    count_rows,
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
    ("sizes", "tokens", "rows"),
    [([80], 512, MAX_ROWS), ([24], 2048, 11), ([24], 65_536, 0), ([15], 2048, 0), ([15, 15], 2048, 19)],
)
def test_items_at_once_fit_beside_the_weights(sizes: list[int], tokens: int, rows: int) -> None:
    counted = count_rows(memory(), tokens, [size * GIB for size in sizes])
    assert counted == rows
    assert counted in (0, MAX_ROWS) or memory().weights + counted * memory().item(tokens) < sum(sizes) * GIB


@pytest.mark.parametrize(
    ("sizes", "per_copy"),
    [([80] * 8, 1), ([24] * 8, 2), ([24], 1), ([15] * 4, 4), ([80, 15], 2), ([15], None), ([8, 8], None)],
)
def test_copies_take_the_gpus_with_which_they_are_fastest_together(
    sizes: list[int], per_copy: int | None
) -> None:
    assert count_gpus_per_copy(memory(), 2048, [size * GIB for size in sizes]) == per_copy


def test_a_small_gpu_has_no_negative_memory() -> None:
    assert usable_memory(0.1 * GIB) == 0
    assert usable_memory(80 * GIB) == pytest.approx(74.8 * GIB)
