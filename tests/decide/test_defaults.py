"""What every Auto comes to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.decide.defaults import resolve_batch_size, resolve_learning_rate, resolve_micro_batch_size


def test_what_is_written_stays() -> None:
    assert resolve_learning_rate("5e-5") == 5e-5
    assert resolve_batch_size(7, train_rows=10**6, devices=1) == 7


@pytest.mark.parametrize(("rows", "batch"), [(10**6, 16), (512, 16), (511, 8), (100, 2), (5, 1), (0, 1)])
def test_few_rows_get_small_batches(rows: int, batch: int) -> None:
    assert resolve_batch_size("Auto", rows, devices=1) == batch


@given(st.integers(0, 10**6), st.integers(1, 16))
def test_devices_share_an_automatic_batch_evenly(rows: int, devices: int) -> None:
    assert resolve_batch_size("Auto", rows, devices) % devices == 0


@given(st.integers(1, 512), st.integers(8, 10**5), st.booleans())
def test_accumulation_makes_up_the_batch(per_device: int, max_length: int, on_gpu: bool) -> None:
    micro = resolve_micro_batch_size(per_device, max_length, packing=False, on_gpu=on_gpu)
    assert per_device % micro == 0
    assert micro == 1 or micro * max_length <= (8192 if on_gpu else 2048)


def test_packed_rows_go_one_at_a_time() -> None:
    assert resolve_micro_batch_size(16, 256, packing=True, on_gpu=True) == 1
