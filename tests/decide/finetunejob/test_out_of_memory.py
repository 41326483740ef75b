"""What happens after memory ran out: one smaller micro batch, and then words that help."""

from typing import Any

from simulation.simulated_cluster import failure
from simulation.training_world import World, training

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.layout import MICRO_BATCH_ENV

MEMORY = failure("train", "OutOfMemory", "CUDA out of memory")


def micro_batch(cluster: World) -> str | None:
    """What the live attempt is told."""
    container = cluster.job()["spec"]["template"]["spec"]["containers"][0]
    return {item["name"]: item.get("value") for item in container["env"]}.get(MICRO_BATCH_ENV)


def run_out(cluster: World) -> None:
    """Memory runs out, and time passes until the next attempt."""
    cluster.end(ExitCode.OUT_OF_MEMORY, MEMORY)
    cluster.pass_time(400)
    cluster.reconcile()


def small(**spec: Any) -> World:
    """A job of 16 rows a step, 8 at a time."""
    return training(
        hyperparameters={"batchSize": 16}, method={"sft": {"maxLength": 1024, "packing": False}}, **spec
    )


def test_the_next_attempt_takes_half_the_rows_at_once() -> None:
    cluster = small()
    assert micro_batch(cluster) is None
    run_out(cluster)
    assert micro_batch(cluster) == "4"
    assert "OutOfMemoryRemedy" in cluster.events
    cluster.forget_status()
    cluster.reconcile()
    assert cluster.status["phase"] == "Training"


def test_kto_keeps_a_row_and_its_neighbor() -> None:
    cluster = training(hyperparameters={"batchSize": 16, "microBatchSize": 2}, method={"kto": {}})
    run_out(cluster)
    assert cluster.status["phase"] == "Failed"


def test_the_users_limit_is_for_other_failures() -> None:
    cluster = small(backoffLimit=0)
    run_out(cluster)
    assert micro_batch(cluster) == "4"
    cluster.end(ExitCode.INFRASTRUCTURE)
    assert cluster.status["phase"] == "Failed"


def test_the_remedy_stays_for_later_attempts() -> None:
    cluster = small()
    run_out(cluster)
    cluster.end(ExitCode.PREEMPTED)
    cluster.pass_time(400)
    cluster.reconcile()
    assert micro_batch(cluster) == "4"


def test_the_second_time_it_says_what_to_change() -> None:
    cluster = small()
    run_out(cluster)
    cluster.end(ExitCode.OUT_OF_MEMORY, MEMORY)
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "OutOfMemory"
    message = cluster.status["failure"]["message"]
    assert "with 4 rows at a time" in message
    assert "method.sft.maxLength, such as 512" in message
    assert "adapter.type: QLoRA" in message


def test_one_row_at_a_time_can_not_be_halved() -> None:
    cluster = training(hyperparameters={"batchSize": 1})
    cluster.end(ExitCode.OUT_OF_MEMORY, MEMORY)
    assert cluster.status["phase"] == "Failed"


def test_the_micro_batch_divides_what_a_device_has() -> None:
    cluster = training(
        hyperparameters={"batchSize": 15}, method={"sft": {"maxLength": 512, "packing": False}}
    )
    run_out(cluster)
    assert micro_batch(cluster) == "5"
    assert 15 % 5 == 0
