"""The memory estimate: against what others measured and published, and as a function of each setting."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_memory.published_memory import LLAMA_3_1_8B, LLAMA_3_2_1B, LLAMA_3_2_3B, PUBLISHED, Published
from training_memory.training_runs import make_run

from tunesmith.decide.fit.memory import (
    CONTEXT,
    NORMAL_FLOAT_DOUBLE,
    Memory,
    Setup,
    adapter_parameters,
    estimate,
    estimate_setup,
    setup_of,
    weight_bytes,
)
from tunesmith_contract.run_config import Adapter
from tunesmith_contract.shared_rules.gpus import PLANNED, RESERVED, usable_memory

GIB = 2**30
WORST_ERROR = 0.10


def total(**more: Any) -> float:
    memory = estimate(LLAMA_3_1_8B, make_run(**more))
    assert memory is not None
    return memory.total


@pytest.mark.parametrize(
    "row", [row for row in PUBLISHED if not row.doubt], ids=lambda row: f"{row.source}: {row.name}"
)
def test_published_measurements_are_met(row: Published) -> None:
    assert abs(row.error) <= WORST_ERROR


@pytest.mark.parametrize(
    "row", [row for row in PUBLISHED if not row.doubt], ids=lambda row: f"{row.source}: {row.name}"
)
def test_a_gpu_that_is_just_admitted_has_the_memory_that_was_measured(row: Published) -> None:
    """The margin is wider than any error of the estimate below a measurement."""
    smallest = (row.estimate + RESERVED) / PLANNED
    assert row.estimate <= usable_memory(int(smallest) + 2)
    assert smallest > row.bytes


def test_the_reference_numbers_of_known_models() -> None:
    assert [report.parameters for report in (LLAMA_3_2_1B, LLAMA_3_2_3B, LLAMA_3_1_8B)] == [
        1_235_814_400,
        3_212_749_824,
        8_030_261_248,
    ]
    shape = LLAMA_3_1_8B.shape
    assert shape is not None
    assert adapter_parameters(shape, Adapter(rank=16)) == 41_943_040
    assert adapter_parameters(shape, Adapter(rank=8, target_modules=("q_proj", "v_proj"))) == 3_407_872


def test_mixed_precision_takes_sixteen_bytes_a_weight() -> None:
    run = make_run(adapter=None)
    memory = estimate(LLAMA_3_1_8B, run)
    assert memory is not None
    states = memory.weights + memory.gradients + memory.optimizer
    assert states == 16 * LLAMA_3_1_8B.parameters


@pytest.mark.parametrize("stage", ["ZeRO2", "ZeRO3"])
def test_gradients_of_many_rows_are_added_up_in_float32(stage: str) -> None:
    def setup(rows_per_device: int, micro: int = 1) -> Setup:
        numbers = {"learningRate": 1e-4, "batchSize": 8 * rows_per_device, "microBatchSize": micro}
        run = make_run(adapter=None, gpusPerNode=8, parallelism=stage, hyperparameters=numbers)
        # Rows long enough for the peak to be in the passes, not in the optimizer's update.
        return replace(setup_of(LLAMA_3_1_8B, run), length=32768)

    few, many = (estimate_setup(LLAMA_3_1_8B, setup(rows)).gradients for rows in (8, 9))
    assert many - few == pytest.approx(2 * LLAMA_3_1_8B.parameters / 8, rel=0.01)
    # An attempt with a smaller micro batch, after one that ran out of memory, does not take more.
    assert setup(16, micro=8).float_gradients
    assert not setup(8, micro=1).float_gradients


def test_normal_float_takes_half_a_byte_and_a_little() -> None:
    setup = Setup(1, 1024, normal_float=NORMAL_FLOAT_DOUBLE)
    linear = 8_030_261_248 - 2 * 128256 * 4096 - 65 * 4096
    assert weight_bytes(LLAMA_3_1_8B, setup) == pytest.approx(
        linear * 0.5159 + (8_030_261_248 - linear) * 2, rel=1e-3
    )


@pytest.mark.parametrize(("stage", "per_parameter"), [("ZeRO2", 2 + 16 / 8), ("ZeRO3", 18 / 8)])
def test_zero_divides_as_deepspeed_says(stage: str, per_parameter: float) -> None:
    """DeepSpeed's estimate_zero{2,3}_model_states_mem_needs, with its buckets and blocks in flight besides."""
    memory = estimate(
        LLAMA_3_1_8B, make_run(adapter=None, gpusPerNode=8, parallelism=stage, activationCheckpointing=True)
    )
    assert memory is not None
    states = memory.weights + memory.gradients + memory.optimizer
    published = per_parameter * LLAMA_3_1_8B.parameters
    assert published <= states <= published + 2 * GIB + 0.35 * LLAMA_3_1_8B.parameters


SAVINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"activationCheckpointing": True}),
    ({}, {"hyperparameters": {"learningRate": 1e-4, "batchSize": 16, "microBatchSize": 1}}),
    ({}, {"method": {"sft": {"maxLength": 1024}}}),
    ({}, {"adapter": {"rank": 16, "type": "QLoRA"}}),
    ({}, {"adapter": {"rank": 16, "targetModules": ["q_proj", "v_proj"]}}),
    ({"adapter": {"rank": 16, "type": "DoRA"}}, {}),
    ({"adapter": {"rank": 256}}, {}),
    ({"adapter": {"rank": 16, "dropout": 0.1}}, {}),
    ({"adapter": None}, {}),
    ({"method": {"dpo": {"maxLength": 2048}}}, {}),
    ({"method": {"dpo": {"maxLength": 2048}}, "adapter": None}, {"method": {"dpo": {"maxLength": 2048}}}),
    ({"adapter": None, "gpusPerNode": 4}, {"adapter": None, "gpusPerNode": 4, "parallelism": "ZeRO2"}),
    (
        {"adapter": None, "gpusPerNode": 4, "parallelism": "ZeRO2"},
        {"adapter": None, "gpusPerNode": 4, "parallelism": "ZeRO3"},
    ),
    (
        {"adapter": None, "gpusPerNode": 4, "parallelism": "ZeRO3"},
        {"adapter": None, "gpusPerNode": 4, "parallelism": "ZeRO3", "offload": "Optimizer"},
    ),
    (
        {"adapter": None, "gpusPerNode": 4, "parallelism": "ZeRO3", "offload": "Optimizer"},
        {"adapter": None, "gpusPerNode": 4, "parallelism": "ZeRO3", "offload": "All"},
    ),
]


@pytest.mark.parametrize(("more", "less"), SAVINGS)
def test_what_saves_memory_does(more: dict[str, Any], less: dict[str, Any]) -> None:
    assert total(**less) < total(**more)


def _reward(**model: Any) -> dict[str, Any]:
    return {"name": "r", "model": {"uri": "pvc://m/r", **model}}


@pytest.mark.parametrize(
    ("method", "adapter", "references"),
    [
        ({"sft": {}}, None, 0),
        ({"dpo": {}}, None, 1),
        ({"dpo": {}}, {}, 0),
        ({"kto": {}}, None, 1),
        ({"grpo": {"rewards": [{"name": "e", "exact": {}}]}}, None, 0),
        ({"grpo": {"rewards": [{"name": "e", "exact": {}}], "beta": 0.1}}, None, 1),
        ({"rloo": {"rewards": [_reward()]}}, {}, 1),
        ({"distillation": {"teacher": {"uri": "pvc://m/t"}}}, {}, 1),
    ],
)
def test_further_models_are_counted(method: Any, adapter: Any, references: int) -> None:
    assert setup_of(LLAMA_3_1_8B, make_run(method=method, adapter=adapter)).references == references


def test_rows_count_as_long_as_they_are_unless_they_are_packed() -> None:
    assert setup_of(LLAMA_3_1_8B, make_run(), longest_row=300).length == 300
    assert setup_of(LLAMA_3_1_8B, make_run(), longest_row=9000).length == 2048
    packed = make_run(method={"sft": {"maxLength": 2048, "packing": True}})
    assert setup_of(LLAMA_3_1_8B, packed, longest_row=300).length == 2048


@pytest.mark.parametrize(
    ("architecture", "method", "micro", "masked"),
    [
        ("LlamaForCausalLM", {"sft": {"packing": True}}, 1, False),
        ("LlamaForCausalLM", {"pretraining": {"packing": True}}, 4, False),
        ("GPT2LMHeadModel", {"sft": {"packing": True}}, 1, True),
        ("LlamaForCausalLM", {"sft": {"packing": False}}, 1, False),
        ("LlamaForCausalLM", {"sft": {"packing": False}}, 2, True),
        ("LlamaForCausalLM", {"dpo": {}}, 1, True),
    ],
)
def test_a_mask_is_counted_where_the_trainer_makes_one(
    architecture: str, method: dict[str, Any], micro: int, masked: bool
) -> None:
    model = LLAMA_3_1_8B.model_copy(update={"architecture": architecture})
    run = make_run(
        method=method, hyperparameters={"learningRate": 1e-4, "batchSize": 16, "microBatchSize": micro}
    )
    assert setup_of(model, run).masked == masked


def test_a_reward_model_has_no_vocabulary_to_score() -> None:
    memory = estimate(LLAMA_3_1_8B, make_run(method={"reward": {"maxLength": 2048}}))
    assert memory is not None
    assert memory.logits == 0


def test_generation_fills_the_gpu_where_answers_are_many() -> None:
    run = make_run(
        method={"grpo": {"rewards": [{"name": "e", "exact": {}}], "maxLength": 8192}},
        hyperparameters={"learningRate": 1e-4, "batchSize": 512, "microBatchSize": 1},
        activationCheckpointing=True,
    )
    memory = estimate(LLAMA_3_1_8B, run)
    assert memory is not None
    # 512 answers of 8,192 tokens, 32 layers, 8 heads of 128, keys and values in two bytes.
    assert memory.activations == 512 * 8192 * 32 * 8 * 128 * 2 * 2


def test_a_model_of_unknown_sizes_is_not_estimated() -> None:
    assert estimate(LLAMA_3_1_8B.model_copy(update={"shape": None}), make_run()) is None


def test_the_parts_are_the_whole() -> None:
    memory = estimate_setup(LLAMA_3_2_3B, Setup(1, 1024))
    assert memory.total == pytest.approx(sum(memory.parts().values()))
    assert memory.overhead > CONTEXT
    assert Memory(weights=1.0).plus(weights=1.0).total == 2.0


@given(st.integers(1, 16), st.integers(64, 16384), st.booleans(), st.sampled_from([None, Adapter()]))
def test_more_tokens_never_take_less(
    sequences: int, length: int, checkpointing: bool, adapter: Adapter | None
) -> None:
    setup = Setup(sequences, length, adapter=adapter, checkpointing=checkpointing)
    longer = replace(setup, length=length + 64)
    assert estimate_setup(LLAMA_3_2_3B, setup).total < estimate_setup(LLAMA_3_2_3B, longer).total
