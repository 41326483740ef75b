"""What status says of prepare while it runs, and that it is forgotten when training begins."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from simulation.simulated_cluster import START
from simulation.training_world import World, generating, world

from tunesmith.decide.finetunejob.observed import LiveProgress
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.progress import PART, PreparePart, ProgressMetric, TrainerStatus, TrainPart


def news(percent: int, attempt: int = 1, at: datetime = START, **metrics: Any) -> LiveProgress:
    """A word of prepare's pod."""
    told = tuple(ProgressMetric(name=name, value=value) for name, value in metrics.items())
    status = TrainerStatus(
        last_updated_time=at, progress_percentage=percent, estimated_remaining_seconds=40, metrics=told
    )
    return LiveProgress("prepare", attempt, status)


def word(part: str) -> dict[str, Any]:
    """The metric that names the part."""
    return {PART: part}


def said(cluster: World) -> set[str]:
    """The message of what is at work."""
    return {cluster.condition(kind)["message"] for kind in ("Ready", "Reconciling")}


def preparing(**spec: Any) -> World:
    """A job that cleans its rows."""
    cluster = world(**spec)
    cluster.progress = news(61, current_step="610", total_steps="1000", **word("cleaning"))
    cluster.reconcile()
    return cluster


def test_it_says_how_far_it_is_and_with_what() -> None:
    """Steps are training's: a share of prepare is not shown as step 0 of 0."""
    cluster = preparing()
    assert cluster.status["progress"] == {
        "percent": "61%",
        "remaining": "40s",
        "lastUpdateTime": "2030-01-01T00:00:00Z",
    }
    assert said(cluster) == {"Attempt 1 of prepare runs: cleaning rows."}


@pytest.mark.parametrize("part", PreparePart)
def test_each_part_has_words(part: PreparePart) -> None:
    cluster = world()
    cluster.progress = news(5, **word(part))
    cluster.reconcile()
    (message,) = said(cluster)
    assert message.startswith(f"Attempt 1 of prepare runs: {part} ")


@pytest.mark.parametrize("part", TrainPart)
def test_what_follows_the_last_step_is_said(part: TrainPart) -> None:
    cluster = preparing()
    cluster.succeed("prepare")
    values = {"current_step": "9", "total_steps": "9", "loss": "0.5"}
    for more in ({}, word(part)):
        metrics = tuple(ProgressMetric(name=name, value=value) for name, value in (values | more).items())
        status = TrainerStatus(last_updated_time=START, progress_percentage=100, metrics=metrics)
        cluster.progress = LiveProgress("train", 1, status)
        cluster.reconcile()
        values.pop("loss", None)
    (message,) = said(cluster)
    assert message.startswith(f"Attempt 1 of train runs: {part} ")
    assert cluster.status["progress"]["loss"] == "0.5", "what was measured stays"


def test_a_word_that_is_not_known_is_not_repeated() -> None:
    cluster = world()
    cluster.progress = news(5, **word("<script>"))
    cluster.reconcile()
    assert said(cluster) == {"Attempt 1 of prepare runs."}


def test_the_same_news_change_nothing() -> None:
    cluster = preparing()
    before = cluster.status
    cluster.pass_time(60)
    assert cluster.plan().status == before
    moved = cluster.condition("Ready")["lastTransitionTime"]
    cluster.progress = news(80, at=START + timedelta(seconds=60), **word("judging"))
    cluster.reconcile()
    assert cluster.condition("Ready")["lastTransitionTime"] == moved


def test_training_begins_without_what_prepare_said() -> None:
    cluster = preparing()
    cluster.succeed("prepare")
    assert cluster.status["phase"] == "Training"
    assert "progress" not in cluster.status
    assert said(cluster) == {"Attempt 1 of train runs."}
    steps = (ProgressMetric(name="current_step", value="3"), ProgressMetric(name="total_steps", value="9"))
    trained = TrainerStatus(last_updated_time=START, progress_percentage=33, metrics=steps)
    cluster.progress = LiveProgress("train", 1, trained)
    cluster.reconcile()
    cluster.progress = None
    cluster.reconcile()
    assert cluster.status["progress"]["percent"] == "33%", "what training said stays until there is news"


def test_prepare_begins_without_what_generate_said() -> None:
    cluster = generating()
    cluster.progress = LiveProgress("generate", 1, news(42).status)
    cluster.reconcile()
    assert cluster.status["progress"]["percent"] == "42%"
    cluster.succeed("generate")
    assert "progress" not in cluster.status


def test_an_attempt_that_ended_leaves_no_share() -> None:
    cluster = preparing()
    cluster.end(ExitCode.INFRASTRUCTURE)
    assert cluster.status["phase"] == "Preparing"
    assert "progress" not in cluster.status
    cluster.pass_time(3600)
    cluster.reconcile()
    cluster.progress = news(2, attempt=2, **word("reading"))
    cluster.reconcile()
    assert cluster.status["progress"]["percent"] == "2%"
    assert said(cluster) == {"Attempt 2 of prepare runs: reading rows."}


def test_a_job_that_failed_shows_no_time_left() -> None:
    cluster = preparing()
    cluster.end(ExitCode.DATA_ERROR)
    assert cluster.status["phase"] == "Failed"
    assert "progress" not in cluster.status


def test_the_time_that_prepare_has_left_is_no_cost_of_training() -> None:
    budget = {"gpuHours": "1", "pricePerGpuHour": "2.50", "currency": "EUR"}
    cluster = preparing(budget=budget, compute={"gpusPerNode": 2})
    assert "estimatedGpuSeconds" not in cluster.status["cost"]
