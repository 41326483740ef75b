"""Expected duration of training, and the tokens that it counts."""

import pytest
from training_memory.published_memory import LLAMA_2_7B, LLAMA_3_1_8B
from training_memory.training_runs import make_run

from tunesmith.decide.fit.estimate import estimate_duration, trained_tokens
from tunesmith_contract.report import DatasetReport, TokenStatistics
from tunesmith_contract.shared_rules.gpus import find_product

DATASET = DatasetReport(
    digest="sha256:" + "0" * 64,
    format="Chat",
    rows=1000,
    train_rows=1000,
    validation_rows=0,
    tokens=TokenStatistics(p50=1000, p95=2000, max=2048, total=1_000_000),
)


def test_duration_is_that_of_a_known_run() -> None:
    """torchtune: LoRA on Llama 3.2 3B makes 8,210 tokens a second on an A100; 7B full about 3,400 by the same share."""
    a100 = find_product("nvidia-a100-80gb")
    assert a100 is not None
    run = make_run(
        adapter=None, hyperparameters={"learningRate": 1e-4, "batchSize": 8, "microBatchSize": 1, "epochs": 3}
    )
    duration = estimate_duration(LLAMA_2_7B, DATASET, run, a100)
    assert trained_tokens(DATASET, run) == 3_000_000
    assert 3_000_000 / duration.seconds == pytest.approx(0.4 * 312e12 / (6 * 6.74e9), rel=0.01)
    assert duration.cost(2.5) == pytest.approx(duration.gpu_seconds / 3600 * 2.5)


def test_two_gpus_take_half_the_time_and_the_same_gpu_seconds() -> None:
    a100 = find_product("nvidia-a100-80gb")
    assert a100 is not None
    one, two = (estimate_duration(LLAMA_3_1_8B, DATASET, make_run(gpusPerNode=gpus), a100) for gpus in (1, 2))
    assert two.seconds == pytest.approx(one.seconds / 2)
    assert two.gpu_seconds == pytest.approx(one.gpu_seconds)


def test_generating_answers_takes_its_time_and_steps_are_limited() -> None:
    a100 = find_product("nvidia-a100-80gb")
    assert a100 is not None
    online = make_run(method={"grpo": {"rewards": [{"name": "e", "exact": {}}]}})
    assert estimate_duration(LLAMA_3_1_8B, DATASET, online, a100).seconds > 10 * (
        estimate_duration(LLAMA_3_1_8B, DATASET, make_run(), a100).seconds
    )
    numbers = {"learningRate": 1e-4, "batchSize": 10, "microBatchSize": 1, "maxSteps": 10}
    assert trained_tokens(DATASET, make_run(hyperparameters=numbers)) == 100 * 1000
