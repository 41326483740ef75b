"""What every Auto comes to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.decide.finetunejob.defaults import (
    resolve_activation_checkpointing,
    resolve_batch_size,
    resolve_micro_batch_size,
    resolve_packing,
    resolve_parallelism,
)
from tunesmith.decide.fit.gpus import resolve_gpu_memory
from tunesmith_contract.run_config import AdapterType, Offload, Parallelism

GIB = 2**30
BILLION = 10**9


def test_what_is_written_stays() -> None:
    assert resolve_batch_size(7, train_rows=10**6, devices=1) == 7
    assert resolve_micro_batch_size(3, 9, 10**6, packing=True, on_gpu=True) == 3
    assert resolve_packing(True, 8, gpus_per_node=0) is True
    assert resolve_packing(False, "Auto", gpus_per_node=1) is False
    assert resolve_activation_checkpointing(False, 70 * BILLION, gpus_per_node=8) is False
    assert resolve_gpu_memory("24Gi", 80 * GIB) == 24 * GIB
    written = resolve_parallelism(
        "ZeRO3", Offload.NONE, (1, 1), 10, adapter=AdapterType.LORA, gpu_memory=None
    )
    assert written is Parallelism.ZERO3


@pytest.mark.parametrize(("rows", "batch"), [(10**6, 16), (512, 16), (511, 8), (100, 2), (5, 1), (0, 1)])
def test_few_rows_get_small_batches(rows: int, batch: int) -> None:
    assert resolve_batch_size("Auto", rows, devices=1) == batch


@given(st.integers(0, 10**6), st.integers(1, 64), st.integers(1, 16), st.integers(1, 2))
def test_devices_share_whole_groups_evenly(rows: int, devices: int, group: int, least: int) -> None:
    batch = resolve_batch_size("Auto", rows, devices, group, least)
    assert batch % (devices * least) == 0
    assert batch % group == 0


def test_sixteen_prompts_get_their_answers() -> None:
    assert resolve_batch_size("Auto", 10**6, devices=2, group=8) == 128


@given(st.integers(1, 512), st.integers(8, 10**5), st.booleans())
def test_accumulation_makes_up_the_batch(per_device: int, tokens: int, on_gpu: bool) -> None:
    micro = resolve_micro_batch_size("Auto", per_device, tokens, packing=False, on_gpu=on_gpu)
    assert per_device % micro == 0
    assert micro == 1 or micro * tokens <= (8192 if on_gpu else 2048)


def test_packed_rows_go_one_at_a_time() -> None:
    assert resolve_micro_batch_size("Auto", 16, 256, packing=True, on_gpu=True) == 1


def test_rows_that_have_to_go_together_do() -> None:
    assert resolve_micro_batch_size("Auto", 16, 10**5, packing=False, on_gpu=True, least=2) == 2


@pytest.mark.parametrize(("batch", "gpus", "packed"), [("Auto", 1, True), ("Auto", 0, False), (16, 1, False)])
def test_rows_are_packed_on_gpus_where_nobody_counted_them(batch: str | int, gpus: int, packed: bool) -> None:
    assert resolve_packing(None, batch, gpus) is packed


@pytest.mark.parametrize(
    ("offload", "compute", "parameters", "adapter", "gpu_memory", "expected"),
    [
        (Offload.NONE, (1, 1), 70 * BILLION, None, 80 * GIB, "DDP"),
        (Offload.NONE, (4, 0), 70 * BILLION, None, None, "DDP"),
        (Offload.NONE, (1, 8), BILLION, None, 80 * GIB, "DDP"),
        (Offload.NONE, (1, 8), 8 * BILLION, None, 80 * GIB, "ZeRO2"),
        (Offload.NONE, (1, 2), 8 * BILLION, None, 80 * GIB, "ZeRO3"),
        (Offload.NONE, (1, 8), 8 * BILLION, AdapterType.LORA, 80 * GIB, "DDP"),
        (Offload.NONE, (1, 8), 70 * BILLION, AdapterType.LORA, 80 * GIB, "ZeRO3"),
        (Offload.NONE, (1, 8), 70 * BILLION, AdapterType.QLORA, 80 * GIB, "DDP"),
        (Offload.NONE, (1, 8), 8 * BILLION, AdapterType.LORA, None, "ZeRO3"),
        (Offload.OPTIMIZER, (1, 1), BILLION, AdapterType.LORA, 80 * GIB, "ZeRO2"),
        (Offload.ALL, (1, 1), BILLION, AdapterType.LORA, 80 * GIB, "ZeRO3"),
    ],
)
def test_devices_divide_what_one_can_not_hold(
    offload: Offload,
    compute: tuple[int, int],
    parameters: int,
    adapter: AdapterType | None,
    gpu_memory: int | None,
    expected: str,
) -> None:
    assert resolve_parallelism("Auto", offload, compute, parameters, adapter, gpu_memory) == expected


@pytest.mark.parametrize(
    ("parameters", "gpus", "checkpointed"), [(BILLION, 1, True), (BILLION - 1, 8, False), (BILLION, 0, False)]
)
def test_large_models_compute_activations_again(parameters: int, gpus: int, checkpointed: bool) -> None:
    assert resolve_activation_checkpointing(None, parameters, gpus) is checkpointed


def test_memory_is_what_the_nodes_say() -> None:
    assert resolve_gpu_memory("Auto", 80 * GIB) == 80 * GIB
    assert resolve_gpu_memory("Auto", None) is None
