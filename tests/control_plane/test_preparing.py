"""What people see of a long prepare stage, on a real API server."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition
from control_plane.pod_credentials import issue_token
from control_plane.restartable_operator import RestartableOperator
from simulation.simulated_cluster import fine_tune_job, success

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.layout import TOKEN_AUDIENCE
from tunesmith_contract.progress import (
    PART,
    PROGRESS_PATH,
    PreparePart,
    ProgressMetric,
    ProgressUpdate,
    TrainerStatus,
)

KIND = "FineTuneJob"

Say = Callable[[int, PreparePart], None]


@pytest.fixture
def runs(server: ControlPlane, operator: RestartableOperator, tmp_path: Any) -> Runs:
    """A namespace with claims."""
    return Runs(server, tmp_path)


@pytest.fixture
def made(runs: Runs) -> dict[str, Any]:
    """A job that prepares."""
    made = runs.create(fine_tune_job(compute={"gpusPerNode": 0}), "long")
    runs.wait(KIND, "long", "Preparing")
    return made


@pytest.fixture
def say(runs: Runs, made: dict[str, Any], operator: RestartableOperator) -> Say:
    """Pushes percent and part as the job's pod does."""
    token = issue_token(runs.server, runs.pod(made, "prepare", 1), TOKEN_AUDIENCE)
    path = PROGRESS_PATH.format(namespace=runs.namespace, plural="finetunejobs", name="long")

    def say(percent: int, part: PreparePart) -> None:
        told = TrainerStatus(
            last_updated_time=datetime.now(UTC),
            progress_percentage=percent,
            estimated_remaining_seconds=100 - percent,
            metrics=(ProgressMetric(name=PART, value=part),),
        )
        assert operator.post(path, ProgressUpdate(trainer_status=told).to_json(), token) == 204

    return say


def test_people_see_how_far_prepare_is_until_training_begins(
    runs: Runs, made: dict[str, Any], say: Say
) -> None:
    say(61, PreparePart.CLEANING)
    eventually(lambda: "progress" in runs.status(KIND, "long"), what="the share in status")
    columns = runs.server.kubectl("get", "ftj", "long", f"--namespace={runs.namespace}", "--no-headers")
    assert columns.split()[:4] == ["long", "Preparing", "61%", "39s"]
    described = runs.server.kubectl("describe", "ftj", "long", f"--namespace={runs.namespace}")
    assert "Attempt 1 of prepare runs: cleaning rows." in described
    say(100, PreparePart.WRITING)
    runs.finish(made, "prepare", 1, 0, success("prepare"))
    status = runs.wait(KIND, "long", "Training")
    assert "progress" not in status
    assert condition(status, "Ready")["message"] == "Attempt 1 of train runs."
