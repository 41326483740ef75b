"""Training estimate: equal to the operator's own."""

import pytest
from training_memory.published_memory import LLAMA_3_1_8B
from training_memory.training_runs import make_run

from tunesmith.decide.fit.estimate import estimate_duration, trained_tokens
from tunesmith_contract.methods import Method
from tunesmith_contract.report import DatasetReport, TokenStatistics
from tunesmith_contract.run_config import AdapterType
from tunesmith_contract.shared_rules.gpus import find_product
from tunesmith_data.command.estimate import TrainingPlan, estimate
from tunesmith_data.failures import UserError

DATASET = DatasetReport(
    digest="sha256:" + "0" * 64,
    format="Chat",
    rows=1000,
    train_rows=900,
    validation_rows=100,
    tokens=TokenStatistics(p50=500, p95=900, max=3000, total=600_000),
)
SFT = Method.model_validate({"sft": {"maxLength": 2048}})
PARAMETERS = LLAMA_3_1_8B.parameters


def test_it_is_the_operators_estimate_of_the_same_run() -> None:
    plan = TrainingPlan(SFT, AdapterType.QLORA, epochs=2, gpu="H100", price_per_gpu_hour=2.5, currency="EUR")
    found = estimate(PARAMETERS, DATASET, plan)
    run = make_run(
        method={"sft": {"maxLength": 2048, "packing": True}},
        adapter={"type": "QLoRA"},
        activationCheckpointing=True,
        hyperparameters={"learningRate": 1, "batchSize": found.batch_size, "microBatchSize": 1, "epochs": 2},
    )
    product = find_product("H100")
    assert product
    expected = estimate_duration(LLAMA_3_1_8B, DATASET, run, product)
    assert found.seconds == pytest.approx(expected.seconds, rel=1e-5)
    assert found.tokens == round(trained_tokens(DATASET, run))
    assert found.gpu_hours == pytest.approx(expected.gpu_seconds / 3600, rel=1e-5)
    assert found.amount == pytest.approx(expected.cost(2.5), rel=1e-5)
    assert (found.currency, found.gpu, found.epochs) == ("EUR", "H100", 2)


def test_steps_are_those_of_rows_or_of_packed_sequences() -> None:
    unpacked = estimate(PARAMETERS, DATASET, TrainingPlan(SFT, epochs=3, batch_size=8))
    assert (unpacked.batch_size, unpacked.steps) == (8, 3 * 113)
    packed = estimate(PARAMETERS, DATASET, TrainingPlan(SFT, epochs=3, gpu="A100"))
    assert packed.batch_size == 8
    assert packed.steps == 3 * -(-264 // 8)
    grpo = Method.model_validate({"grpo": {"rewards": [{"name": "e", "exact": {}}], "generations": 4}})
    online = estimate(PARAMETERS, DATASET, TrainingPlan(grpo, epochs=1))
    assert (online.batch_size, online.steps) == (64, 57)


def test_what_nobody_says_is_not_guessed() -> None:
    nothing = estimate(PARAMETERS, DATASET, TrainingPlan(SFT))
    assert (nothing.seconds, nothing.gpu_hours, nothing.amount, nothing.currency) == (None, None, None, None)
    timed = estimate(PARAMETERS, DATASET, TrainingPlan(SFT, gpu="L4", currency="EUR"))
    assert timed.seconds and timed.amount is None and timed.currency is None


def test_an_unknown_gpu_is_answered_with_known_ones() -> None:
    with pytest.raises(UserError, match=r"'Z80': use one of .*H100"):
        estimate(PARAMETERS, DATASET, TrainingPlan(SFT, gpu="Z80"))


@pytest.mark.parametrize(
    ("gpu", "reason"), [("Abacus-1", "UnknownGPU"), ("Tesla-V100-SXM2-32GB", "UnsupportedGPU")]
)
def test_a_gpu_that_can_not_train_is_refused_with_those_that_can(gpu: str, reason: str) -> None:
    with pytest.raises(UserError, match=r"use one of .*H100") as caught:
        estimate(PARAMETERS, DATASET, TrainingPlan(SFT, gpu=gpu))
    assert caught.value.reason == reason
    assert "V100-" not in str(caught.value).partition("use one of")[2]
