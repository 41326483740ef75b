"""Table of the GPU memory of public models."""

import pytest

from tunesmith.decide.fit.memory import estimate
from tunesmith_contract.run_config import Parallelism
from tunesmith_contract.shared_rules.gpus import usable_memory
from tunesmith_docs.gpu_table import CARDS, LENGTH, MODELS, WAYS, gpu_memory_page, settle_run

GIB = 2**30
BY_NAME = {way.name: way for way in WAYS}


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Llama 3.2 1B", 1.236),
        ("Llama 3.1 8B", 8.030),
        ("Qwen 2.5 14B", 14.770),
        ("Qwen 2.5 32B", 32.764),
        ("Llama 3.1 70B", 70.554),
    ],
)
def test_models_have_as_many_parameters_as_is_published(name: str, billions: float) -> None:
    assert MODELS[name].parameters == pytest.approx(billions * 10**9, rel=0.001)


def test_cells_are_estimates_that_fit_into_what_may_be_planned_with() -> None:
    model = MODELS["Llama 3.1 8B"]
    run = settle_run(model, BY_NAME["LoRA"], 1, 24 * GIB)
    assert run is not None
    memory = estimate(model, run, LENGTH)
    assert memory is not None
    assert memory.total <= usable_memory(24 * GIB)
    assert settle_run(model, BY_NAME["LoRA"], 1, 16 * GIB) is None


def test_several_gpus_share_what_one_can_not_hold() -> None:
    run = settle_run(MODELS["Llama 3.1 70B"], BY_NAME["LoRA"], 8, 45 * GIB)
    assert run is not None
    assert run.parallelism is Parallelism.ZERO3


def test_every_model_has_a_row_for_each_way_and_number_of_gpus() -> None:
    rows = [line for line in gpu_memory_page("").splitlines() if line.startswith("| ")]
    assert all(line.count("|") == 4 + len(CARDS) for line in rows)
    for name in MODELS:
        for way in WAYS:
            assert sum(line.startswith(f"| {name} | {way.name} |") for line in rows) == 2
