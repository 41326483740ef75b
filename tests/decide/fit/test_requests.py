"""Requests of containers that hold a model, derived from its size."""

from typing import Any

import pytest
from training_memory.published_memory import LLAMA_3_1_8B, LLAMA_3_2_1B, LLAMA_3_3_70B
from training_memory.training_runs import make_run

from tunesmith.decide.fit.checkpoint_size import checkpoint_bytes
from tunesmith.decide.fit.memory import adapter_parameters
from tunesmith.decide.fit.requests import (
    adapter_bytes,
    engine_requests,
    evaluation_requests,
    training_requests,
)
from tunesmith.manifests.stage_jobs import SMALL_REQUESTS
from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import Adapter, EvaluateConfig

TINY = ModelReport(
    revision="r", architecture="LlamaForCausalLM", parameters=200_000, max_position_embeddings=64
)
DIGEST = "sha256:" + "0" * 64


def memory(model: ModelReport, **run: Any) -> int:
    """GiB of memory that a training pod requests."""
    return int(training_requests(model, make_run(**run))["memory"].removesuffix("Gi"))


def disk(model: ModelReport = LLAMA_3_1_8B, **run: Any) -> int:
    """GiB of local disk that a training pod requests; 0: none."""
    requests = training_requests(model, make_run(**run))
    return int(requests.get("ephemeral-storage", "0Gi").removesuffix("Gi"))


def evaluation(**more: Any) -> EvaluateConfig:
    config: dict[str, Any] = {
        "owner": {"kind": "EvalRun", "namespace": "n", "name": "e", "uid": "u"},
        "baseModel": "pvc://m/x",
        "sides": [{"name": "candidate", "adapter": {"uri": "pvc://o/a", "digest": DIGEST}}, {"name": "base"}],
        "suites": [{"name": "s", "dataset": "pvc://d/s.jsonl", "metrics": ["ExactMatch"]}],
        "policy": "{}",
        "gpus": 1,
        "output": "pvc://o/x",
    }
    return EvaluateConfig.model_validate(config | more)


def test_a_tiny_model_on_a_cpu_stays_small() -> None:
    assert training_requests(TINY, make_run(gpusPerNode=0)) == SMALL_REQUESTS
    assert training_requests(TINY, make_run(gpusPerNode=0, adapter=None)) == SMALL_REQUESTS
    assert evaluation_requests(TINY.parameters, evaluation(gpus=0)) == SMALL_REQUESTS


def test_a_model_of_unknown_size_keeps_the_small_requests() -> None:
    unknown = TINY.model_copy(update={"parameters": 0})
    assert training_requests(unknown, make_run(gpusPerNode=8)) == SMALL_REQUESTS
    assert evaluation_requests(None, evaluation()) == SMALL_REQUESTS


def test_each_gpu_of_a_pod_has_cores_and_a_process() -> None:
    assert training_requests(LLAMA_3_1_8B, make_run())["cpu"] == "3"
    assert training_requests(LLAMA_3_1_8B, make_run(gpusPerNode=8))["cpu"] == "24"
    assert memory(TINY, gpusPerNode=8) - memory(TINY, gpusPerNode=4) == 16


def test_weights_go_straight_to_the_gpus() -> None:
    """What counts is a file of them, whatever the number of processes; with ZeRO-3 the first process loads all."""
    lora = memory(LLAMA_3_1_8B, gpusPerNode=8)
    assert lora == memory(LLAMA_3_3_70B, gpusPerNode=8)
    assert memory(LLAMA_3_1_8B, gpusPerNode=8, adapter=None) == lora
    three = memory(LLAMA_3_1_8B, gpusPerNode=8, adapter=None, parallelism="ZeRO3")
    assert lora + 9 < three < 70


@pytest.mark.parametrize("formats", [["Adapter", "Merged"], ["Adapter", "GGUF"]])
def test_a_merge_needs_the_weights_in_host_memory(formats: list[str]) -> None:
    qlora = {"adapter": {"type": "QLoRA"}}
    assert memory(LLAMA_3_3_70B, **qlora, formats=formats) > memory(LLAMA_3_3_70B, **qlora) > 131
    assert memory(LLAMA_3_3_70B, **qlora, formats=formats) < 1.25 * 131 + 8


def test_offloaded_state_is_shared_by_the_nodes() -> None:
    alone = memory(LLAMA_3_1_8B, adapter=None, parallelism="ZeRO3", offload="All")
    optimizer = memory(LLAMA_3_1_8B, adapter=None, parallelism="ZeRO2", offload="Optimizer")
    shared = memory(LLAMA_3_1_8B, adapter=None, parallelism="ZeRO3", offload="All", nodes=4)
    # 24 bytes of state, 3 of the weights, and 2 for gradients of 16 rows that are added up in float32.
    assert 29 * 8.03e9 / 2**30 < alone < 29 * 8.03e9 / 2**30 + 25
    assert optimizer < alone
    assert shared < alone / 2


@pytest.mark.parametrize(
    ("parallelism", "offload", "more"),
    [("ZeRO3", "All", 2), ("ZeRO3", "Optimizer", 2), ("ZeRO2", "Optimizer", 0)],
)
def test_gradients_of_many_rows_are_added_up_in_float32(parallelism: str, offload: str, more: int) -> None:
    """The sums of bfloat16 take 2 bytes a weight; those of more than 8 rows on a device take 4 with ZeRO-3."""
    few, many = (
        memory(
            LLAMA_3_1_8B,
            adapter=None,
            parallelism=parallelism,
            offload=offload,
            nodes=2,
            gpusPerNode=1,
            hyperparameters={"learningRate": 1e-4, "batchSize": rows, "microBatchSize": 4},
        )
        for rows in (16, 32)
    )
    assert many - few == pytest.approx(more * LLAMA_3_1_8B.parameters / 2 / 2**30, abs=1)


def test_kept_checkpoints_in_a_bucket_take_the_disk_that_they_are_estimated_at() -> None:
    run: dict[str, Any] = {"adapter": None, "output": "s3://bucket/x"}
    five, two = (disk(**run, checkpoints={"everySteps": 10, "keep": keep}) for keep in (5, 2))
    assert five - two == pytest.approx(3 * checkpoint_bytes(LLAMA_3_1_8B, make_run(**run)) / 2**30, abs=1)


def test_an_adapter_on_a_small_card_fits_the_smallest_machines() -> None:
    """Machines of one 24 GB card have 4 cores and 16 GB, of which about 3.9 and 14 GiB are for pods."""
    requests = training_requests(LLAMA_3_1_8B, make_run(adapter={"type": "QLoRA"}))
    assert int(requests["cpu"]) < 4
    engine = engine_requests(2 * LLAMA_3_1_8B.parameters, 1, 8)
    assert int(engine["cpu"]) < 4
    assert int(engine["memory"].removesuffix("Gi")) <= 14


def test_disk_is_requested_for_what_is_fetched() -> None:
    assert disk() == 0
    weights = 2 * LLAMA_3_1_8B.parameters / 2**30
    assert weights * 1.2 < disk(baseModel="hf://org/model@main") < weights * 1.2 + 4
    cached = training_requests(LLAMA_3_1_8B, make_run(baseModel="hf://org/model@main"), cached=True)
    assert "ephemeral-storage" not in cached
    teacher = {
        "distillation": {
            "teacher": {"uri": "s3://models/teacher"},
            "maxLength": 1024,
            "maxCompletionLength": 64,
        }
    }
    assert disk(method=teacher) > 1.2 * weights


def test_disk_is_requested_for_work_files_that_go_to_a_bucket() -> None:
    full: dict[str, Any] = {"adapter": None, "output": "s3://bucket/runs", "checkpoints": {"keep": 1}}
    checkpoint = 12 * LLAMA_3_1_8B.parameters / 2**30
    # The one that is kept, an older best one, and the next.
    assert 3 * checkpoint < disk(**full) < 3 * checkpoint + 20
    assert disk(**full, workspace="pvc://work/x") == 0
    assert disk(output="s3://bucket/runs") < 10
    assert disk(output="s3://bucket/runs", formats=["Adapter", "GGUF"]) > 20


def test_evaluation_loads_the_model_straight_to_the_gpus() -> None:
    requests = evaluation_requests(LLAMA_3_1_8B.parameters, evaluation(baseModel="hf://org/model@main"))
    assert requests == {"cpu": "3", "memory": "11Gi", "ephemeral-storage": "20Gi"}
    assert evaluation_requests(LLAMA_3_1_8B.parameters, evaluation(gpus=8))["cpu"] == "10"
    assert evaluation_requests(LLAMA_3_2_1B.parameters, evaluation(gpus=0))["cpu"] == "1"


def test_an_engine_on_a_cpu_asks_for_nothing_while_its_model_is_unknown() -> None:
    assert engine_requests(None, 0, 8) == {}
    assert engine_requests(2 * TINY.parameters, 0, 2, 8) == {"cpu": "1", "memory": "4Gi"}


def test_an_engine_keeps_adapters_in_host_memory_and_reads_weights_file_by_file() -> None:
    weights = 2 * LLAMA_3_3_70B.parameters
    eight, one = (
        int(engine_requests(weights, 4, adapters)["memory"].removesuffix("Gi")) for adapters in (8, 1)
    )
    assert 4 * 7 * 1.3 < eight - one < 4 * 7 * 1.9
    assert eight < weights / 2**30
    assert engine_requests(None, 2, 8) == {"cpu": "4", "memory": "19Gi"}
    assert engine_requests(weights, 4, 8, fetched=True)["ephemeral-storage"] == "160Gi"
    assert "ephemeral-storage" not in engine_requests(weights, 4, 8)


@pytest.mark.parametrize("model", [LLAMA_3_2_1B, LLAMA_3_1_8B, LLAMA_3_3_70B])
def test_the_size_of_adapters_follows_from_that_of_the_model(model: ModelReport) -> None:
    assert model.shape is not None
    exact = 2 * adapter_parameters(model.shape, Adapter(rank=64))
    assert adapter_bytes(model.parameters, 64) == pytest.approx(exact, rel=0.2)
