"""Budget and costs, checkpoints and other news, and what is in status when all is over."""

from typing import Any

import pytest
from simulation.simulated_cluster import DIGEST, START, UID, success
from simulation.training_world import World, preempted, training, world

from tunesmith.decide.finetunejob.observed import LiveProgress, RelatedObjects
from tunesmith.decide.plan import Patch
from tunesmith_contract.exit_codes import ExitCode, FailureCategory
from tunesmith_contract.progress import ProgressMetric, TrainerStatus
from tunesmith_contract.report import (
    Artifact,
    CurvePoint,
    Export,
    Failure,
    GPUReason,
    Outcome,
    RunReport,
)
from tunesmith_contract.run_config import OutputFormat

HEX = "c" * 64


def news(attempt: int = 1, remaining: int | None = None, at: Any = START, **metrics: Any) -> LiveProgress:
    """What a pod said."""
    told = tuple(ProgressMetric(name=name, value=value) for name, value in metrics.items())
    status = TrainerStatus(last_updated_time=at, estimated_remaining_seconds=remaining, metrics=told)
    return LiveProgress("train", attempt, status)


def budgeted(hours: str = "1", **spec: Any) -> World:
    """A job on two GPUs."""
    budget = {"gpuHours": hours, "pricePerGpuHour": "2.50", "currency": "EUR"}
    return training(budget=budget, compute={"gpusPerNode": 2}, **spec)


def longest(cluster: World) -> int | None:
    """How long the node lets the live attempt's pod run."""
    seconds: int | None = cluster.job()["spec"]["template"]["spec"].get("activeDeadlineSeconds")
    return seconds


def test_the_budget_stops_it_gently_and_names_what_is_kept() -> None:
    cluster = budgeted()
    assert longest(cluster) == 1800
    cluster.pass_time(1799)
    assert cluster.reconcile().requeue_after == 1
    cluster.pass_time(1)
    (stop,) = cluster.reconcile().actions
    assert isinstance(stop, Patch)
    assert stop.patch == {"spec": {"activeDeadlineSeconds": 1}}
    assert cluster.events[-1] == "BudgetExhausted"
    cluster.pass_time(20)
    job = cluster.job()
    cluster.finish_pod(job, ExitCode.PREEMPTED, preempted(70))
    cluster.exceed_deadline(job)
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "BudgetExhausted"
    message = cluster.status["failure"]["message"]
    assert message.startswith(
        "The budget of 1 GPU hours is used up. The checkpoint of step 70 is kept: pvc://"
    )
    assert cluster.status["cost"] == {"gpuSeconds": "3640", "amount": "2.53", "currency": "EUR"}
    assert cluster.status["checkpoints"][-1]["step"] == 70


def test_the_node_stops_it_while_no_operator_is_there() -> None:
    cluster = budgeted()
    cluster.pass_time(1800)
    job = cluster.job()
    cluster.finish_pod(job, ExitCode.PREEMPTED, preempted(70))
    cluster.pod_of(job)["status"]["reason"] = "DeadlineExceeded"
    cluster.end_job(job, ExitCode.PREEMPTED)
    cluster.pass_time(10**4)
    cluster.reconcile()
    assert cluster.condition("Stalled")["reason"] == "BudgetExhausted"


def test_all_attempts_draw_on_one_budget() -> None:
    cluster = budgeted()
    cluster.pass_time(1000)
    cluster.end(ExitCode.PREEMPTED, preempted(10))
    cluster.pass_time(400)
    cluster.reconcile()
    assert longest(cluster) == 800
    cluster.pass_time(799)
    cluster.end(ExitCode.INFRASTRUCTURE)
    cluster.pass_time(400)
    cluster.reconcile()
    assert longest(cluster) == 1
    cluster.end(ExitCode.PREEMPTED)
    cluster.pass_time(1)
    cluster.resource["spec"]["suspend"] = True
    assert cluster.status["phase"] == "Training"


@pytest.mark.parametrize("reason", GPUReason)
def test_attempts_whose_gpus_could_not_be_used_cost_nothing_and_show_why(reason: GPUReason) -> None:
    cluster = budgeted(backoffLimit=1)
    told = Failure(category=FailureCategory.INFRASTRUCTURE, reason=reason, message="update the driver")
    report = RunReport(stage="train", outcome=Outcome.FAILED, failure=told)
    cluster.pass_time(1700)
    cluster.end(ExitCode.INFRASTRUCTURE, report)
    message = f"Attempt 1 ended, another follows. {reason}: update the driver"
    assert (cluster.status["phase"], cluster.condition("Ready")["message"]) == ("Training", message)
    cluster.pass_time(400)
    cluster.reconcile()
    assert longest(cluster) == 1800
    cluster.pass_time(50)
    cluster.end(ExitCode.INFRASTRUCTURE, report)
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Ready")["reason"] == "BackoffLimitExceeded"
    assert cluster.condition("Ready")["message"] == "update the driver"
    failure = cluster.status["failure"]
    assert (failure["category"], failure["reason"]) == ("Infrastructure", reason)
    assert cluster.status["cost"] == {"gpuSeconds": "0", "amount": "0.00", "currency": "EUR"}


def test_held_time_is_paid_for_only_while_it_ran() -> None:
    cluster = budgeted()
    cluster.pass_time(1000)
    cluster.resource["spec"]["suspend"] = True
    cluster.reconcile()
    cluster.pass_time(10**6)
    cluster.resource["spec"]["suspend"] = False
    cluster.reconcile()
    cluster.pass_time(800)
    (stop,) = cluster.reconcile().actions
    assert isinstance(stop, Patch)


def test_what_it_will_cost_follows_from_the_pods_own_estimate() -> None:
    cluster = budgeted()
    cluster.pass_time(100)
    cluster.progress = news(remaining=900, at=cluster.now)
    cluster.pass_time(50)
    cluster.reconcile()
    cost = cluster.status["cost"]
    assert cost["estimatedGpuSeconds"] == "2000"
    assert cost["estimatedAmount"] == "1.39"
    cluster.pass_time(50)
    cluster.progress = None
    cluster.reconcile()
    assert cluster.status["cost"] == cost


NODE = {
    "metadata": {
        "labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
    },
    "status": {"allocatable": {"nvidia.com/gpu": "8"}},
}


@pytest.mark.parametrize(("hours", "kind"), [("1", "Normal"), ("0.0001", "Warning")])
def test_what_it_will_cost_is_said_before_it_begins(hours: str, kind: str) -> None:
    budget = {"gpuHours": hours, "pricePerGpuHour": "2.50", "currency": "EUR"}
    cluster = world(budget=budget, compute={"gpusPerNode": 2})
    cluster.related = RelatedObjects(gpu_nodes=(NODE,))
    report = success("prepare")
    assert report.model is not None
    model = report.model.model_copy(update={"parameters": 3 * 10**9})
    plan = cluster.end(0, report.model_copy(update={"model": model}))
    (told,) = [event for event in plan.events if event.reason == "BudgetEstimated"]
    assert told.type == kind
    assert "GPU hours, about 0.0" in told.message
    expected = int(cluster.status["cost"]["estimatedGpuSeconds"])
    assert 1 < expected < 100
    cluster.related = RelatedObjects()
    assert not [event for event in cluster.reconcile().events if event.reason == "BudgetEstimated"]
    assert cluster.status["cost"]["estimatedGpuSeconds"] == str(expected)


def test_checkpoints_are_known_as_they_are_committed() -> None:
    cluster = training()
    for step in range(1, 8):
        metrics: dict[str, Any] = {
            "checkpoint_step": str(step),
            "checkpoint_digest": HEX,
            "checkpoint_eval_loss": "0.5",
            "checkpoint_time": str(int(START.timestamp()) + step),
        }
        cluster.progress = news(**metrics)
        cluster.reconcile()
    assert [checkpoint["step"] for checkpoint in cluster.status["checkpoints"]] == [3, 4, 5, 6, 7]
    assert cluster.status["checkpoints"][-1] == {
        "step": 7,
        "uri": f"pvc://artifacts/team/team/{UID}/checkpoints/checkpoint-7",
        "digest": f"sha256:{HEX}",
        "evalLoss": "0.5",
        "time": "2030-01-01T00:00:07Z",
    }


@pytest.mark.parametrize(
    "metrics",
    [{"checkpoint_step": "1"}, {"checkpoint_step": "nan", "checkpoint_digest": HEX, "checkpoint_time": "1"}],
)
def test_half_a_word_about_a_checkpoint_is_not_believed(metrics: dict[str, Any]) -> None:
    cluster = training()
    cluster.progress = news(**metrics)
    cluster.reconcile()
    assert "checkpoints" not in cluster.status or not cluster.status["checkpoints"]


def test_overfitting_is_told_once() -> None:
    cluster = training()
    cluster.progress = news(overfitting_step="40", kernels="FlashAttention2,FusedHead")
    cluster.reconcile()
    cluster.reconcile()
    assert cluster.events.count("Overfitting") == 1
    assert cluster.status["overfittingStep"] == 40
    assert cluster.status["resolved"]["kernels"] == "FlashAttention2,FusedHead"


def test_the_report_fills_the_status() -> None:
    report = success("train")
    assert report.training is not None
    merged = Artifact(uri="pvc://artifacts/team/merged", digest=DIGEST, size_bytes=9)
    more = {
        "best_step": 40,
        "overfitting_step": 50,
        "stopped_early": True,
        "curve": (CurvePoint(1, 2.0, None), CurvePoint(50, 1.0, 1.5, 0.7)),
        "kernels": "SDPA",
        "precision": "bfloat16",
        "exports": (Export(format=OutputFormat.MERGED, artifact=merged),),
    }
    training_report = report.training.model_copy(update=more)
    output = {"uri": "pvc://artifacts/team", "formats": ["Adapter", "Merged"]}
    cluster = training(adapter={"type": "DoRA"}, output=output)
    cluster.end(
        0, RunReport.model_validate(report.model_copy(update={"training": training_report}).to_dict())
    )
    status = cluster.status
    assert (status["bestStep"], status["overfittingStep"], status["stoppedEarly"]) == (40, 50, True)
    assert status["curve"] == [
        {"step": 1, "loss": "2"},
        {"step": 50, "loss": "1", "evalLoss": "1.5", "reward": "0.7"},
    ]
    assert (status["resolved"]["kernels"], status["resolved"]["precision"]) == ("SDPA", "bfloat16")
    assert status["artifact"]["kind"] == "DoRA"
    assert [export["format"] for export in status["artifact"]["exports"]] == ["Merged"]
    assert {"Overfitting", "StoppedEarly"} <= set(cluster.events)


def test_remedies_are_in_status() -> None:
    cluster = training(method={"sft": {"maxLength": 256, "packing": False}})
    cluster.end(ExitCode.OUT_OF_MEMORY)
    resolved = cluster.status["resolved"]["microBatchSize"]
    assert cluster.status["remedies"] == [
        {"attempt": 2, "microBatchSize": resolved, "time": "2030-01-01T00:00:00Z"}
    ]
