"""A search on a real API server with real controllers; the operator is a process that may be killed."""

from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition
from control_plane.restartable_operator import RestartableOperator
from simulation.search_world import SEARCH, loss_of, trained
from simulation.simulated_cluster import fine_tune_job, success

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

KIND = "FineTuneJob"


@pytest.fixture
def runs(server: ControlPlane, operator: RestartableOperator, tmp_path: Any) -> Runs:
    """A namespace with claims."""
    return Runs(server, tmp_path)


def begin(runs: Runs, name: str, **search: Any) -> dict[str, Any]:
    """A job with a search whose data is prepared."""
    body = fine_tune_job(compute={"gpusPerNode": 0}, search=SEARCH | search)
    made = runs.create(body, name)
    runs.finish(made, "prepare", 1, 0, success("prepare"))
    return made


def trial(runs: Runs, name: str, number: int) -> dict[str, Any]:
    """The FineTuneJob of a trial, once it is there."""
    wanted = f"{name}-trial-{number}"
    eventually(lambda: runs.exists(KIND, wanted), what=f"FineTuneJob {wanted}")
    return runs.read(KIND, wanted)


def end(runs: Runs, made: dict[str, Any]) -> float:
    """Let a trial end well; its loss."""
    loss = loss_of(made)
    runs.finish(made, "train", 1, 0, trained(loss, made["metadata"]["name"]))
    return loss


def test_killed_wiped_and_held_no_trial_is_lost_or_made_twice(
    runs: Runs, operator: RestartableOperator
) -> None:
    begin(runs, "searched", budget={"trials": 3})
    first, second = trial(runs, "searched", 1), trial(runs, "searched", 2)
    runs.pod(second, "train", 1)
    losses = {1: end(runs, first)}
    third = trial(runs, "searched", 3)
    runs.pod(third, "train", 1)
    operator.kill()
    runs.wipe_status(KIND, "searched")
    runs.wipe_status(KIND, "searched-trial-1")
    operator.start()
    # Held and resumed, as a person does it.
    runs.patch(KIND, "searched", {"spec": {"suspend": True}})
    runs.wait(KIND, "searched", "Suspended")
    runs.wait(KIND, "searched-trial-2", "Suspended")
    runs.patch(KIND, "searched", {"spec": {"suspend": False}})
    runs.wait(KIND, "searched-trial-2", "Training")
    for number, made in ((2, second), (3, third)):
        losses[number] = end(runs, made)
    status = runs.wait(KIND, "searched", "Succeeded")
    best = min(losses, key=lambda number: losses[number])
    assert status["artifact"]["uri"] == f"pvc://artifacts/searched-trial-{best}"
    assert status["search"]["best"]["number"] == best
    assert (status["search"]["ended"], status["search"]["completed"]) == ("3/3", 3)
    assert condition(status, "Ready")["status"] == "True"
    assert not runs.exists(KIND, "searched-trial-4")
    listed = runs.server.kubectl("get", "ftj", "-o", "wide", f"--namespace={runs.namespace}")
    assert "3/3" in listed


def test_trials_go_with_their_search(runs: Runs) -> None:
    begin(runs, "gone")
    trial(runs, "gone", 1)
    runs.delete(KIND, "gone")
    eventually(lambda: not runs.exists(KIND, "gone-trial-1"), 90, what="the end of the trials")
