"""Between prepare and training: what does not fit is refused before a GPU is asked for, and status tells why."""

from typing import Any

from simulation.simulated_cluster import success
from simulation.training_world import World, world
from training_memory.published_memory import LLAMA_3_1_8B

from tunesmith.decide.finetunejob.observed import RelatedObjects
from tunesmith_contract.report import ModelReport, RunReport


def prepared(memory: str | None, model: ModelReport = LLAMA_3_1_8B, **spec: Any) -> World:
    """A job whose data is prepared, on nodes whose GPUs have so many MiB."""
    cluster = world(**spec)
    labels = {"nvidia.com/gpu.memory": memory} if memory else {}
    node = {"metadata": {"name": "n", "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}
    cluster.related = RelatedObjects(gpu_nodes=(node,))
    report = success("prepare")
    assert isinstance(report, RunReport)
    cluster.end(0, report.model_copy(update={"model": model}))
    return cluster


def test_what_fits_trains_and_status_has_the_estimate() -> None:
    cluster = prepared("81920")
    assert cluster.status["phase"] == "Training"
    assert cluster.condition("Fits")["status"] == "True"
    assert cluster.condition("Servable")["status"] == "True"
    estimate = cluster.status["memoryEstimate"]
    assert cluster.status["resolved"]["gpuMemory"] == "80.0Gi"
    assert estimate["available"] == "74.8Gi"
    assert estimate["parts"]["weights"] == "15.0Gi"


def test_what_does_not_fit_fails_before_a_job_is_made() -> None:
    cluster = prepared("4096")
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Fits")["status"] == "False"
    assert cluster.condition("Fits")["reason"] == cluster.status["failure"]["reason"] == "DoesNotFit"
    assert cluster.status["failure"]["category"] == "UserError"
    assert "only 3.4 GiB of its 4.0 GiB are available" in cluster.status["failure"]["message"]
    assert not cluster.live_jobs()
    before = cluster.status
    cluster.related = RelatedObjects()
    cluster.reconcile()
    assert cluster.status == before


def nodes(**labels: str) -> RelatedObjects:
    """A node with GPUs of 80 GiB and these labels of NVIDIA's."""
    own = {f"nvidia.com/{key.replace('_', '.')}": value for key, value in labels.items()}
    metadata = {"name": "gpu-1", "labels": {"nvidia.com/gpu.memory": "81920"} | own}
    return RelatedObjects(
        gpu_nodes=({"metadata": metadata, "status": {"allocatable": {"nvidia.com/gpu": "8"}}},)
    )


def test_nodes_that_can_not_train_fail_the_job_before_it_asks_for_a_gpu() -> None:
    for labels, reason in (
        ({"cuda_driver_major": "535"}, "DriverTooOld"),
        ({"gpu_product": "Tesla-V100-SXM2-32GB"}, "UnsupportedGPU"),
    ):
        cluster = world()
        cluster.related = nodes(**labels)
        cluster.succeed("prepare")
        assert cluster.status["phase"] == "Failed"
        assert cluster.condition("Fits")["status"] == "False"
        assert cluster.condition("Fits")["reason"] == cluster.status["failure"]["reason"] == reason
        assert cluster.status["failure"]["category"] == "UserError"
        assert "gpu-1" in cluster.status["failure"]["message"]
        assert not cluster.live_jobs()


def test_memory_that_is_written_lets_a_job_wait_for_nodes_that_can_train() -> None:
    cluster = world(compute={"gpusPerNode": 1, "gpuMemory": "80Gi"})
    cluster.related = nodes(cuda_driver_major="535")
    cluster.succeed("prepare")
    assert cluster.status["phase"] == "Training"


def test_requests_follow_from_the_model_and_what_is_written() -> None:
    written = {"requests": {"memory": "48Gi"}, "limits": {"cpu": "8"}}
    cluster = prepared("81920", compute={"gpusPerNode": 1, "resources": written})
    assert cluster.status["resolved"]["requests"] == {"cpu": "8", "memory": "48Gi"}
    assert cluster.status["resolved"]["parameters"] == LLAMA_3_1_8B.parameters
    cluster = prepared("81920", baseModel={"uri": "hf://org/model@main"})
    shown = cluster.status["resolved"]["requests"]
    (job,) = cluster.live_jobs()
    requests = job["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert requests == {
        "cpu": shown["cpu"],
        "memory": shown["memory"],
        "ephemeral-storage": shown["ephemeralStorage"],
    }
    assert shown == {"cpu": "3", "memory": "11Gi", "ephemeralStorage": "20Gi"}


def test_an_unknown_gpu_stops_nothing() -> None:
    cluster = prepared(None)
    assert cluster.status["phase"] == "Training"
    assert cluster.condition("Fits")["status"] == "Unknown"
    assert cluster.condition("Fits")["reason"] == "GPUMemoryUnknown"
    assert "available" not in cluster.status["memoryEstimate"]


def test_what_is_written_goes_before_the_nodes_labels() -> None:
    cluster = prepared("4096", compute={"gpuMemory": "80Gi"})
    assert cluster.condition("Fits")["status"] == "True"


def test_auto_gives_way_to_the_gpu_there_is() -> None:
    large, small = prepared("81920"), prepared("20480")
    assert small.status["phase"] == "Training"
    assert small.condition("Fits")["status"] == "True"
    assert int(small.status["resolved"]["microBatchSize"]) <= int(large.status["resolved"]["microBatchSize"])


def test_verdicts_stay_when_nodes_go_and_come_back_when_status_is_lost() -> None:
    cluster = prepared("81920")
    said = cluster.condition("Fits")
    nodes, cluster.related = cluster.related, RelatedObjects()
    cluster.reconcile()
    assert cluster.condition("Fits") == said
    assert cluster.status["memoryEstimate"]["available"] == "74.8Gi"
    cluster.related = nodes
    del cluster.resource["status"]
    cluster.reconcile()
    assert cluster.condition("Fits")["status"] == "True"
    assert cluster.status["memoryEstimate"]["available"] == "74.8Gi"


def test_without_gpus_only_servability_is_judged() -> None:
    cluster = prepared(None, compute={"gpusPerNode": 0})
    assert not [each for each in cluster.status["conditions"] if each["type"] == "Fits"]
    assert cluster.condition("Servable")["status"] == "True"


def test_what_can_not_be_served_trains_and_says_so() -> None:
    cluster = prepared("81920", LLAMA_3_1_8B.model_copy(update={"quantization": "gptq"}))
    assert cluster.condition("Servable")["status"] == "False"
    assert cluster.condition("Servable")["reason"] == "NotServable"
    cluster.succeed("train")
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["artifact"]["servable"] is False
