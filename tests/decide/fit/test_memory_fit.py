"""Whether a training fits on its GPUs and what to change; which GPUs there are; how long it takes."""

from typing import Any

import pytest
from published_memory import LLAMA_2_7B, LLAMA_3_1_8B, LLAMA_3_3_70B
from training_runs import make_run

from tunesmith.decide.fit.duration import estimate_duration, trained_tokens
from tunesmith.decide.fit.gpus import fitting_nodes, node_memory, slowest_product, smallest_memory
from tunesmith.decide.fit.memory import estimate
from tunesmith.decide.fit.memory_fit import DOES_NOT_FIT, Fit, fit_free_settings, judge_fit
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import DatasetReport, TokenStatistics
from tunesmith_contract.run_config import Parallelism, TrainConfig
from tunesmith_contract.shared_rules.gpus import PRODUCTS, find_product

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


def judge(run: TrainConfig, gibibytes: float | None, model: Any = LLAMA_3_1_8B) -> Fit:
    fit = judge_fit(model, DATASET, run, None if gibibytes is None else int(gibibytes * GIB))
    assert fit is not None
    return fit


def test_what_fits_says_so_with_numbers() -> None:
    fit = judge(make_run(), 80)
    assert fit.fits
    assert fit.failure is None
    assert "80.0 GiB are there" in fit.message


def test_what_does_not_fit_is_the_users_to_change_and_names_the_nearest_settings() -> None:
    run = make_run()
    fit = judge(run, 24)
    assert fit.fits is False
    assert fit.failure is not None
    assert (fit.failure.category, fit.failure.reason) == (FailureCategory.USER_ERROR, DOES_NOT_FIT)
    assert "24.0 GiB are there" in fit.message
    assert "What fits: compute.activationCheckpointing: true" in fit.message
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
    assert "compute.gpuMemory" in fit.message


def test_without_gpus_there_is_nothing_to_fit() -> None:
    assert judge_fit(LLAMA_3_1_8B, DATASET, make_run(gpusPerNode=0), 24 * GIB) is None


def test_an_unknown_model_stops_nothing() -> None:
    fit = judge(make_run(), 24, LLAMA_3_1_8B.model_copy(update={"shape": None}))
    assert fit.fits is None


def test_free_settings_give_way_before_a_person_has_to() -> None:
    run = make_run()
    settled = fit_free_settings(LLAMA_3_1_8B, DATASET, run, 20 * GIB, FREE)
    assert settled.activation_checkpointing
    assert settled.hyperparameters.micro_batch_size < 4
    assert settled.hyperparameters.batch_size == 16
    assert judge(settled, 20).fits
    smaller = fit_free_settings(LLAMA_3_1_8B, DATASET, run, 45 * GIB, FREE)
    assert (smaller.hyperparameters.micro_batch_size, smaller.activation_checkpointing) == (2, False)
    assert fit_free_settings(LLAMA_3_1_8B, DATASET, run, 80 * GIB, FREE) == run
    assert fit_free_settings(LLAMA_3_1_8B, DATASET, run, None, FREE) == run
    assert fit_free_settings(LLAMA_3_1_8B, DATASET, run, 24 * GIB, frozenset()) == run


def test_free_parallelism_divides_what_one_gpu_can_not_hold() -> None:
    run = make_run(adapter=None, gpusPerNode=8, activationCheckpointing=True)
    settled = fit_free_settings(LLAMA_3_1_8B, DATASET, run, 60 * GIB, FREE)
    assert settled.parallelism in {Parallelism.ZERO2, Parallelism.ZERO3}
    assert judge(settled, 60).fits


def node(gpus: int = 1, taints: tuple[dict[str, str], ...] = (), **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "labels": {key.replace("__", "/"): value for key, value in labels.items()}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "8"}},
    }


def labelled(labels: dict[str, str], gpus: int = 1) -> dict[str, Any]:
    return node(gpus) | {"metadata": {"name": "n", "labels": labels}}


@pytest.mark.parametrize(
    ("labels", "gibibytes"),
    [
        ({"nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.product": "NVIDIA-A10"}, 81559 / 1024),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}, 80),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}, 40),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, 79.6),
        ({"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4090"}, 24),
        ({"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}, 15),
        ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, 22.5),
        ({"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}, 79.6),
        ({"nvidia.com/gpu.product": "NVIDIA-Future-1"}, None),
        ({}, None),
    ],
)
def test_memory_of_a_nodes_gpus(labels: dict[str, str], gibibytes: float | None) -> None:
    assert node_memory(labelled(labels)) == (None if gibibytes is None else pytest.approx(gibibytes * GIB))


def test_the_smallest_gpu_that_a_pod_may_get_counts() -> None:
    small, large = (
        labelled({"nvidia.com/gpu.memory": "24576", "pool": "a"}),
        labelled({"nvidia.com/gpu.memory": "81920"}),
    )
    assert smallest_memory([small, large]) == 24 * GIB
    assert smallest_memory(fitting_nodes([small, large], {"pool": "a"})) == 24 * GIB
    assert smallest_memory([large, labelled({})]) is None
    assert smallest_memory([]) is None


def test_nodes_where_the_pod_can_not_go_do_not_count() -> None:
    taint = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
    gpu = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    tainted, own = node(8, (taint,)), node(8, (gpu,))
    assert fitting_nodes([tainted, own, node(0)], None) == [own]
    assert fitting_nodes([tainted], None, [{"key": "dedicated", "value": "x"}]) == [tainted]
    assert fitting_nodes([tainted], None, [{"operator": "Exists"}]) == [tainted]
    assert fitting_nodes([tainted], None, [{"key": "dedicated", "value": "y"}]) == []
    assert fitting_nodes([own], None, (), gpus=9) == []


def test_every_product_is_found_by_its_own_name() -> None:
    for name, product in PRODUCTS:
        assert find_product(f"NVIDIA-{name.upper()}") == product


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
    assert slowest_product([labelled({"nvidia.com/gpu.product": "NVIDIA-L4"}), labelled({})]) is None


def test_the_estimate_is_what_the_verdict_shows() -> None:
    run = make_run()
    assert judge(run, 80).memory == estimate(LLAMA_3_1_8B, run, DATASET.tokens.max)
