"""Comparison of a run with the memory of its GPUs: verdict, suggested changes, free settings."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_memory.published_memory import LLAMA_3_1_8B, LLAMA_3_3_70B
from training_memory.training_runs import make_run

from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.decide.fit.gpus import Obstacle, ReachableGPUs
from tunesmith.decide.fit.memory import estimate
from tunesmith.decide.fit.memory_fit import MAX_CHANGES, Fit, fit_free_settings, judge_fit
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import DatasetReport, GPUReason, TokenStatistics
from tunesmith_contract.run_config import Parallelism, TrainConfig
from tunesmith_contract.shared_rules.gpus import PLANNED, RESERVED, usable_memory

GIB = 2**30
DATASET = DatasetReport(
    digest="sha256:" + "0" * 64,
    format="Chat",
    rows=1000,
    train_rows=1000,
    validation_rows=0,
    tokens=TokenStatistics(p50=1000, p95=2000, max=2048, total=1_000_000),
)
FREE = frozenset({"microBatchSize", "activationCheckpointing", "parallelism"})


def card(gibibytes: float) -> int:
    """Memory of a card of which training may be planned with so much."""
    return int((gibibytes * GIB + RESERVED) / PLANNED) + 1


def judge(run: TrainConfig, gibibytes: float | None, model: Any = LLAMA_3_1_8B) -> Fit:
    gpus = ReachableGPUs(memory=None if gibibytes is None else card(gibibytes), note="What is known.")
    fit = judge_fit(model, DATASET, run, gpus)
    assert fit is not None
    return fit


def test_what_fits_says_so_with_numbers() -> None:
    fit = judge(make_run(), 80)
    assert fit.fits
    assert fit.failure is None
    assert fit.reason is FineTuneJobReason.FITS
    assert "80.0 GiB of its 85.5 GiB are available. What is known." in fit.message


def test_what_does_not_fit_is_the_users_to_change_and_names_the_nearest_settings() -> None:
    run = make_run()
    fit = judge(run, 24)
    assert fit.fits is False
    assert fit.failure is not None
    assert (fit.failure.category, fit.failure.reason) == (FailureCategory.USER_ERROR, "DoesNotFit")
    assert "only 24.0 GiB of its 26.0 GiB are available" in fit.message
    assert "Settings that fit: compute.activationCheckpointing: true" in fit.message
    assert len(fit.message) <= 1024


def test_each_way_out_is_one_that_fits() -> None:
    """The first one, written into the run, is estimated to what the message says."""
    run = make_run(hyperparameters={"learningRate": 1e-4, "batchSize": 16, "microBatchSize": 1})
    assert "compute.activationCheckpointing: true" in judge(run, 20).message
    changed = run.model_copy(update={"activation_checkpointing": True})
    assert judge(changed, 20).fits


@pytest.mark.parametrize(
    ("run", "gibibytes", "advice"),
    [
        (
            {"adapter": None, "gpusPerNode": 8, "activationCheckpointing": True},
            60,
            "compute.parallelism: ZeRO",
        ),
        ({"adapter": None, "activationCheckpointing": True}, 24, "adapter.type: LoRA"),
        ({"activationCheckpointing": True}, 12, "adapter.type: QLoRA"),
        ({"adapter": None, "activationCheckpointing": True}, 60, "compute.offload: Optimizer"),
        ({"adapter": None, "activationCheckpointing": True}, 60, "compute.gpusPerNode: 4"),
    ],
)
def test_ways_out(run: dict[str, Any], gibibytes: float, advice: str) -> None:
    numbers = {"learningRate": 1e-4, "batchSize": 16, "microBatchSize": 1}
    assert advice in judge(make_run(hyperparameters=numbers, **run), gibibytes).message


def test_a_model_that_is_too_large_whatever_one_does() -> None:
    fit = judge(make_run(), 4, LLAMA_3_3_70B)
    assert "choose a smaller model" in fit.message


def test_an_unknown_gpu_stops_nothing() -> None:
    fit = judge(make_run(), None)
    assert fit.fits is None
    assert fit.failure is None
    assert fit.message.endswith("of each GPU. What is known.")


def test_a_card_that_is_just_full_does_not_fit() -> None:
    """The driver states more memory than programs get, and the estimate is not exact."""
    memory = estimate(LLAMA_3_1_8B, make_run(), DATASET.tokens.max)
    assert memory is not None
    just_full = judge_fit(LLAMA_3_1_8B, DATASET, make_run(), ReachableGPUs(memory=int(memory.total)))
    assert just_full is not None
    assert just_full.fits is False
    assert just_full.available == usable_memory(int(memory.total)) < memory.total


def test_gpus_that_can_not_train_are_a_failure_whatever_their_memory() -> None:
    obstacle = Obstacle(GPUReason.DRIVER_TOO_OLD, "The driver is too old.")
    fit = judge_fit(LLAMA_3_1_8B, DATASET, make_run(), ReachableGPUs(memory=card(80), obstacle=obstacle))
    assert fit is not None
    assert fit.fits is False
    assert fit.failure is not None
    assert (fit.failure.reason, fit.failure.message) == ("DriverTooOld", "The driver is too old.")


def test_without_gpus_there_is_nothing_to_fit() -> None:
    assert judge_fit(LLAMA_3_1_8B, DATASET, make_run(gpusPerNode=0), ReachableGPUs(memory=24 * GIB)) is None


def test_an_unknown_model_stops_nothing() -> None:
    fit = judge(make_run(), 24, LLAMA_3_1_8B.model_copy(update={"shape": None}))
    assert fit.fits is None


def test_free_settings_give_way_before_a_person_has_to() -> None:
    run = make_run()
    settled = fit_free_settings(LLAMA_3_1_8B, DATASET, run, card(20), FREE)
    assert settled.activation_checkpointing
    assert settled.hyperparameters.micro_batch_size < 4
    assert settled.hyperparameters.batch_size == 16
    assert judge(settled, 20).fits
    smaller = fit_free_settings(LLAMA_3_1_8B, DATASET, run, card(50), FREE)
    assert (smaller.hyperparameters.micro_batch_size, smaller.activation_checkpointing) == (2, False)
    assert fit_free_settings(LLAMA_3_1_8B, DATASET, run, card(80), FREE) == run
    assert fit_free_settings(LLAMA_3_1_8B, DATASET, run, None, FREE) == run
    assert fit_free_settings(LLAMA_3_1_8B, DATASET, run, card(24), frozenset()) == run


def test_free_parallelism_divides_what_one_gpu_can_not_hold() -> None:
    run = make_run(adapter=None, gpusPerNode=8, activationCheckpointing=True)
    settled = fit_free_settings(LLAMA_3_1_8B, DATASET, run, card(60), FREE)
    assert settled.parallelism in {Parallelism.ZERO2, Parallelism.ZERO3}
    assert judge(settled, 60).fits


def test_the_estimate_is_what_the_verdict_shows() -> None:
    run = make_run()
    assert judge(run, 80).memory == estimate(LLAMA_3_1_8B, run, DATASET.tokens.max)


def applied(run: TrainConfig, fields: str) -> TrainConfig | None:
    """The run with one suggested setting written into it; None for settings of the method or several together."""
    numbers = run.hyperparameters
    name, _, value = fields.partition(": ")
    match name:
        case "hyperparameters.microBatchSize":
            smaller = numbers.model_copy(update={"micro_batch_size": int(value)})
            return run.model_copy(update={"hyperparameters": smaller})
        case "compute.activationCheckpointing":
            return run.model_copy(update={"activation_checkpointing": True})
        case "compute.parallelism" if " with " not in value:
            return run.model_copy(update={"parallelism": Parallelism(value)})
    return None


@given(
    gibibytes=st.integers(10, 60),
    micro=st.sampled_from([1, 2, 4, 8]),
    gpus=st.sampled_from([1, 2, 8]),
    full=st.booleans(),
    checkpointing=st.booleans(),
)
def test_a_suggestion_that_is_written_fits(
    gibibytes: int, micro: int, gpus: int, full: bool, checkpointing: bool
) -> None:
    run = make_run(
        gpusPerNode=gpus,
        activationCheckpointing=checkpointing,
        hyperparameters={"learningRate": 1e-4, "batchSize": 64, "microBatchSize": micro},
        **({"adapter": None} if full else {}),
    )
    fit = judge(run, gibibytes)
    memory = estimate(LLAMA_3_1_8B, run, DATASET.tokens.max)
    assert memory is not None
    assert fit.fits == (memory.total <= gibibytes * GIB)
    if fit.fits or "Settings that fit: " not in fit.message:
        return
    suggestions = fit.message.partition("Settings that fit: ")[2].rstrip(".").split("; or ")
    assert 1 <= len(suggestions) <= MAX_CHANGES
    for suggestion in suggestions:
        fields, _, size = suggestion.rpartition(" (")
        changed = applied(run, fields) if " and " not in fields else None
        if changed is not None:
            assert judge(changed, gibibytes).fits
            after = estimate(LLAMA_3_1_8B, changed, DATASET.tokens.max)
            assert after is not None
            assert size == f"{after.total / GIB:.1f} GiB)"


@given(
    gibibytes=st.integers(4, 120),
    micro=st.sampled_from([1, 2, 4, 8]),
    gpus=st.sampled_from([1, 2, 8]),
    free=st.sets(st.sampled_from(sorted(FREE))),
)
def test_only_free_settings_are_chosen(gibibytes: int, micro: int, gpus: int, free: set[str]) -> None:
    numbers = {"learningRate": 1e-4, "batchSize": 64, "microBatchSize": micro}
    run = make_run(gpusPerNode=gpus, hyperparameters=numbers)
    chosen = fit_free_settings(LLAMA_3_1_8B, DATASET, run, card(gibibytes), frozenset(free))
    before, after = run.hyperparameters, chosen.hyperparameters
    assert after.micro_batch_size == before.micro_batch_size or "microBatchSize" in free
    assert (
        chosen.activation_checkpointing == run.activation_checkpointing or "activationCheckpointing" in free
    )
    assert chosen.parallelism == run.parallelism or "parallelism" in free
    assert after.batch_size == before.batch_size
    assert chosen == run or judge(chosen, gibibytes).fits
    assert chosen == run or not judge(run, gibibytes).fits
