"""The learning rate that Auto chooses: known settings, what it depends on, and its limits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_contract.methods import Method
from tunesmith_contract.run_config import Adapter
from tunesmith_contract.shared_rules.learning_rate import FULL_RATES, TrainingSize, choose_learning_rate

LORA = Adapter()
#: Widths of SmolLM2-135M, Llama 3.2 1B and 3B, Llama 3.1 8B and 70B.
SMOLLM2, BILLION, THREE, EIGHT, SEVENTY = 576, 2048, 3072, 4096, 8192


def rate(
    method: str = "sft",
    adapter: Adapter | None = LORA,
    width: int | None = EIGHT,
    rows: float = 16,
    steps: int = 1000,
) -> float:
    return choose_learning_rate(method, adapter, TrainingSize(width, rows, steps))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # The reference is what TRL and the authors of QLoRA (arXiv:2305.14314) use for seven and eight billion.
        ({}, 2e-4),
        ({"adapter": None}, 2e-5),
        ({"width": None}, 2e-4),
        # Wide models, where QLoRA's authors halve it.
        ({"width": SEVENTY}, 1.2e-4),
        ({"width": SEVENTY, "adapter": None}, 1.2e-5),
        ({"width": 16384}, 1e-4),
        ({"width": THREE}, 2.5e-4),
        ({"width": BILLION}, 3.4e-4),
        ({"width": SMOLLM2}, 9.3e-4),
        ({"width": 32}, 1.2e-3),
        # SmolLM2-135M for 40 steps of 8 rows, and the quickstart's 60 steps of 4.
        ({"width": SMOLLM2, "rows": 8, "steps": 40}, 9.8e-4),
        ({"width": SMOLLM2, "rows": 4, "steps": 60}, 6.9e-4),
        ({"steps": 99}, 3e-4),
        ({"steps": 99, "adapter": None}, 2e-5),
        ({"rows": 1}, 1e-4),
        ({"rows": 8}, 1.4e-4),
        ({"rows": 128}, 3e-4),
        # Four times the alpha, half the rate: rank alone changes nothing.
        ({"adapter": Adapter(rank=64, alpha=32)}, 2e-4),
        ({"adapter": Adapter(rank=64, alpha=128)}, 1e-4),
        ({"adapter": Adapter(rank=8, alpha=16)}, 2.8e-4),
        ({"adapter": Adapter(rank=8, alpha=1)}, 4e-4),
        ({"adapter": Adapter(rank=256, alpha=1024)}, 8e-5),
        ({"adapter": Adapter.model_validate({"type": "DoRA"})}, 2e-4),
        ({"adapter": Adapter.model_validate({"type": "QLoRA"})}, 2e-4),
        ({"adapter": Adapter.model_validate({"type": "RSLoRA", "rank": 16, "alpha": 8})}, 2e-4),
        ({"adapter": Adapter.model_validate({"type": "RSLoRA"})}, 1e-4),
        ({"method": "dpo"}, 1e-5),
        ({"method": "dpo", "adapter": None}, 1e-6),
        ({"method": "kto"}, 1e-5),
        ({"method": "grpo", "adapter": None}, 1e-6),
        ({"method": "rloo"}, 1e-5),
        ({"method": "reward"}, 1e-3),
        ({"method": "reward", "adapter": None}, 1e-4),
        ({"method": "reward", "width": SMOLLM2}, 2e-3),
        ({"method": "reward", "width": SMOLLM2, "adapter": None}, 2e-4),
        ({"method": "pretraining", "adapter": None}, 2e-5),
        ({"method": "distillation", "adapter": None}, 1e-6),
    ],
    ids=str,
)
def test_rates_of_known_settings(given: dict[str, Any], expected: float) -> None:
    assert rate(**given) == expected


def test_every_method_has_a_rate() -> None:
    assert set(FULL_RATES) == set(Method.model_fields)


@given(
    st.integers(1, 10**5) | st.none(),
    st.floats(0.01, 10**6),
    st.integers(0, 10**9),
    st.integers(1, 512),
    st.integers(1, 1024),
    st.sampled_from(("LoRA", "QLoRA", "RSLoRA", "DoRA")),
)
def test_no_setting_leaves_the_range_that_people_use(
    width: int | None, rows: float, steps: int, rank: int, alpha: int, kind: str
) -> None:
    adapter = Adapter.model_validate({"type": kind, "rank": rank, "alpha": alpha})
    assert 1e-5 <= rate(adapter=adapter, width=width, rows=rows, steps=steps) <= 2e-3
    assert 5e-6 <= rate(adapter=None, width=width, rows=rows, steps=steps) <= 2e-4
    if width and width >= EIGHT:
        assert rate(adapter=LORA, width=width, rows=rows, steps=steps) <= 4.5e-4


@given(st.integers(64, 20_000), st.integers(64, 20_000), st.floats(1, 64), st.floats(1, 64))
def test_wider_models_and_smaller_batches_get_no_higher_rates(
    width: int, other: int, rows: float, more: float
) -> None:
    narrow, wide = sorted((width, other))
    few, many = sorted((rows, more))
    assert rate(width=wide) <= rate(width=narrow)
    assert rate(rows=few) <= rate(rows=many)
