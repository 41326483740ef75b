"""The time that a training pod has to end: by the model that prepare found, or as written."""

from typing import Any

from simulation.simulated_cluster import fine_tune_job, success
from simulation.training_world import World

from tunesmith_contract.report import ModelReport

EIGHT_BILLION = ModelReport(
    revision="r1", architecture="Llama", parameters=8_030_000_000, max_position_embeddings=8192
)


def grace_seconds(**compute: Any) -> int:
    """Of the pods that train all weights of a model with eight billion of them."""
    body = fine_tune_job(compute={"gpuMemory": "140Gi", **compute})
    del body["spec"]["adapter"]
    cluster = World(body)
    cluster.reconcile()
    cluster.end(0, success("prepare").model_copy(update={"model": EIGHT_BILLION}))
    pod = cluster.job()["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"][-1] == "train"
    seconds: int = pod["terminationGracePeriodSeconds"]
    return seconds


def test_a_large_checkpoint_has_time_to_be_written() -> None:
    assert grace_seconds() > 96e9 / 0.5e9


def test_what_is_written_counts() -> None:
    assert grace_seconds(template={"terminationGracePeriodSeconds": 77}) == 77
