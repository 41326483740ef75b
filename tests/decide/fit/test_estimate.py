"""What the whole of training will take, said before it begins."""

from typing import Any

import pytest
from simulation.simulated_cluster import fine_tune_job, success
from simulation.training_world import World, world
from training_memory.published_memory import LLAMA_3_1_8B
from training_memory.training_runs import make_run

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.observed import RelatedObjects
from tunesmith.decide.fit.admission import asks_for_nodes
from tunesmith.decide.fit.estimate import (
    Expected,
    count_steps,
    estimate_duration,
    expect_training,
    trained_tokens,
)
from tunesmith.decide.fit.reachable_gpus import find_reachable_gpus
from tunesmith_contract.report import DatasetReport, TokenStatistics
from tunesmith_contract.shared_rules.gpus import find_product

H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
UNKNOWN = {"nvidia.com/gpu.product": "Abacus-1", "nvidia.com/gpu.memory": "81559"}
PRICE = {"pricePerGpuHour": "2.50", "currency": "EUR"}
GPUS = {"gpusPerNode": 2, "gpuMemory": "80Gi"}


def node(labels: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": "n", "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}


def alike(train: int, validation: int = 0, mean: int = 100) -> DatasetReport:
    """Rows that are all as long."""
    total = (train + validation) * mean
    return DatasetReport(
        digest="sha256:" + "a" * 64,
        format="Chat",
        rows=train + validation,
        train_rows=train,
        validation_rows=validation,
        tokens=TokenStatistics(p50=mean, p95=mean, max=mean, total=total),
    )


def begun(labels: dict[str, str] | None = None, rows: int = 540, **spec: Any) -> World:
    """A job of an 8B model on rows of 40 tokens that begins to train, on nodes with these labels."""
    cluster = world(**spec)
    cluster.related = RelatedObjects(gpu_nodes=(node(labels),) if labels else ())
    dataset = alike(rows, mean=40)
    cluster.end(0, success("prepare").model_copy(update={"model": LLAMA_3_1_8B, "dataset": dataset}))
    return cluster


def test_without_gpus_there_are_steps_and_tokens() -> None:
    cluster = begun(compute={"gpusPerNode": 0})
    assert cluster.status["phase"] == "Training"
    steps = -(-540 // cluster.status["resolved"]["batchSize"]) * 3
    assert cluster.status["estimate"] == {"steps": steps, "epochs": 3, "tokens": 3 * 540 * 40}


def test_time_is_told_without_a_budget_and_whatever_is_said_of_memory() -> None:
    estimate = begun(H100, compute=GPUS)
    assert estimate.events.count("BudgetEstimated") == 0
    shown = estimate.status["estimate"]
    assert shown["duration"].endswith("s")
    assert 0 < float(shown["gpuHours"]) < 1
    assert {"amount", "currency"}.isdisjoint(shown)
    assert asks_for_nodes(FineTuneJob.parse(fine_tune_job(compute=GPUS)).spec)
    assert not asks_for_nodes(FineTuneJob.parse(fine_tune_job(compute={"gpusPerNode": 0})).spec)


def test_a_price_makes_money_of_it() -> None:
    shown = begun(H100, compute=GPUS, budget=PRICE, hyperparameters={"epochs": 100}).status["estimate"]
    assert float(shown["amount"]) == pytest.approx(float(shown["gpuHours"]) * 2.5, rel=0.05)
    assert shown["currency"] == "EUR"


def test_a_gpu_that_nobody_knows_takes_nobody_knows_how_long() -> None:
    assert {"steps", "epochs", "tokens"} == begun(UNKNOWN, compute=GPUS).status["estimate"].keys()


def test_it_stays_when_nodes_are_no_longer_looked_at() -> None:
    cluster = begun(H100, compute=GPUS, budget=PRICE)
    told = cluster.status["estimate"]
    cluster.related = RelatedObjects()
    cluster.pass_time(60)
    cluster.reconcile()
    assert cluster.status["estimate"] == told
    cluster.succeed("train")
    assert cluster.status["estimate"] == told
    cluster.forget_status()
    cluster.reconcile()
    assert cluster.status["estimate"] == {key: told[key] for key in ("steps", "epochs", "tokens")}


@pytest.mark.parametrize(
    ("rows", "shown"), [(10**3, "9s"), (60_000, "8m51s"), (10**6, "2h28m"), (10**8, "246h3m")]
)
def test_a_long_time_is_told_without_its_seconds(rows: int, shown: str) -> None:
    assert begun(H100, rows, compute=GPUS).status["estimate"]["duration"] == shown


def test_a_pod_that_talks_nonsense_gets_no_longer_status_than_others() -> None:
    shown = begun(H100, 10**15, compute=GPUS).status["estimate"]
    assert shown["duration"] == "277777h47m"


GRPO = {"grpo": {"rewards": [{"name": "right", "exact": {}}], "generations": 8}}


@pytest.mark.parametrize(
    ("dataset", "changes", "steps"),
    [
        pytest.param(alike(100), {}, 3 * 7, id="the last step of an epoch has fewer rows"),
        pytest.param(alike(1), {}, 3, id="one row"),
        pytest.param(alike(100, 900), {}, 3 * 7, id="rows that are held out make no step"),
        pytest.param(
            alike(1000, 1000), {"method": {"sft": {"packing": True, "maxLength": 1000}}}, 3 * 7, id="packed"
        ),
        pytest.param(
            alike(1000, mean=5000),
            {"method": {"sft": {"packing": True, "maxLength": 1000}}},
            3 * 63,
            id="packed and cut off",
        ),
        pytest.param(alike(100), {"method": GRPO}, 3 * 50, id="answers to each prompt"),
        pytest.param(alike(100), {"maxSteps": 5}, 5, id="stopped before"),
        pytest.param(alike(100), {"maxSteps": 500}, 3 * 7, id="as many steps as are never reached"),
    ],
)
def test_steps(dataset: DatasetReport, changes: dict[str, Any], steps: int) -> None:
    numbers = {"learningRate": 1e-4, "batchSize": 16, "microBatchSize": 1, "epochs": 3}
    if limit := changes.get("maxSteps"):
        numbers["maxSteps"] = limit
    method = changes.get("method", {"sft": {"packing": False, "maxLength": 1000}})
    assert count_steps(dataset, make_run(hyperparameters=numbers, method=method)) == steps


def test_it_is_that_of_the_slowest_gpu_the_pods_may_get() -> None:
    job = FineTuneJob.parse(fine_tune_job(compute=GPUS))
    run, report = make_run(), success("prepare").model_copy(update={"model": LLAMA_3_1_8B})
    l4 = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}
    gpus = find_reachable_gpus(job.spec, (node(H100), node(l4)), 13)
    expected = expect_training(gpus.product, run, report)
    slowest = find_product("NVIDIA-L4")
    assert report.dataset is not None
    assert slowest is not None
    assert expected == Expected(
        count_steps(report.dataset, run),
        round(trained_tokens(report.dataset, run)),
        estimate_duration(LLAMA_3_1_8B, report.dataset, run, slowest),
    )
