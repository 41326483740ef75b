"""FineTuneJobs in queues of Kueue itself; in the long form, since Kueue has to be built for it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from control_plane.cluster_runs import Runs, condition
from control_plane.kueue import QUEUE, add_queue, running_kueue
from control_plane.restartable_operator import RestartableOperator
from simulation.simulated_cluster import fine_tune_job, success

from tunesmith.decide.run.usage import USED_ANNOTATION
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

# Kueue takes minutes to build, once.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

KIND = "FineTuneJob"
LABELS = {"kueue.x-k8s.io/queue-name": QUEUE}
PRIORITY = "kueue.x-k8s.io/priority-class"


@pytest.fixture(scope="module", autouse=True)
def _kueue(server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with running_kueue(server, tmp_path_factory.mktemp("kueue")):
        yield


@pytest.fixture
def runs(server: ControlPlane, operator: RestartableOperator, tmp_path: Path) -> Runs:
    """A namespace with a queue of one GPU, claims that several nodes may write to, and rows."""
    made = Runs(server, tmp_path, access_mode="ReadWriteMany")
    rows = {"metadata": {"name": "rows"}, "data": {"train.jsonl": "{}"}}
    server.api.create(f"/api/v1/namespaces/{made.namespace}/configmaps", rows)
    add_queue(server, made.namespace, gpus=1)
    return made


def queued(runs: Runs, name: str, priority: str | None = None, **spec: Any) -> dict[str, Any]:
    """A job in the queue, prepared."""
    labels = LABELS | ({PRIORITY: priority} if priority else {})
    made = runs.create(fine_tune_job(**spec), name, labels)
    runs.finish(made, "prepare", 1, 0, success("prepare"))
    return made


def finish(runs: Runs, made: dict[str, Any], attempt: int = 1) -> None:
    runs.finish(made, "train", attempt, 0, success("train"))
    runs.wait(KIND, made["metadata"]["name"], "Succeeded")


def used(runs: Runs, path: str) -> str | None:
    """The Job's note of what its pods used before they were suspended."""
    return (runs.read_child(path)["metadata"].get("annotations") or {}).get(USED_ANNOTATION)


def test_the_second_job_waits_for_the_quota_of_the_first(runs: Runs) -> None:
    first = queued(runs, "first")
    runs.wait(KIND, "first", "Training")
    second = queued(runs, "second")
    status = runs.wait(KIND, "second", "Queued")
    ready = condition(status, "Ready")
    assert ready["reason"] == "Queued"
    assert QUEUE in ready["message"]
    finish(runs, first)
    runs.wait(KIND, "second", "Training")
    finish(runs, second)


def test_a_job_of_a_higher_class_takes_the_place_and_gives_it_back(runs: Runs) -> None:
    low = queued(runs, "low", "low")
    runs.wait(KIND, "low", "Training")
    high = queued(runs, "high", "high")
    runs.wait(KIND, "high", "Training")
    runs.wait(KIND, "low", "Queued")
    finish(runs, high)
    runs.wait(KIND, "low", "Training")
    finish(runs, low)
    # One attempt of prepare and one of train: what was taken away and given back costs none.
    status = runs.status(KIND, "low")
    assert (status["attempts"], status.get("disruptions", 0)) == (2, 0), status


def test_a_job_that_a_person_suspends_gives_its_place_to_the_next(runs: Runs) -> None:
    made = queued(runs, "held")
    runs.wait(KIND, "held", "Training")
    started = datetime.fromisoformat(runs.pod(made, "train", 1)["status"]["startTime"])
    eventually(lambda: datetime.now(UTC) - started > timedelta(seconds=2), what="something to note")
    runs.patch(KIND, "held", {"spec": {"suspend": True}})
    runs.wait(KIND, "held", "Suspended")
    path = next(name for name in runs.children(made) if "jobs/" in name and name.endswith("train-1"))
    noted = eventually(lambda: used(runs, path), what="the note of what ran")
    assert '"gpu"' in noted
    other = queued(runs, "other")
    runs.wait(KIND, "other", "Training")
    runs.patch(KIND, "held", {"spec": {"suspend": False}})
    runs.wait(KIND, "held", "Queued")
    finish(runs, other)
    runs.wait(KIND, "held", "Training")
    finish(runs, made)


def test_a_gang_starts_whole_or_not_at_all(runs: Runs) -> None:
    gang = queued(runs, "gang", compute={"nodes": 2, "gpusPerNode": 1})
    runs.wait(KIND, "gang", "Queued")
    assert not [name for name in runs.children(gang) if "pods/" in name and "-train-" in name]
