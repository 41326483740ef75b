"""Starting and stopping: nothing twice, nothing of others, nothing left."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith_cluster import controlplane
from tunesmith_cluster.client import eventually
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.processes import ProcessTable, find_left_over, is_alive, start_time

# Control planes start and end here.
pytestmark = pytest.mark.timeout(300)

SLEEP = ["/usr/bin/sleep", "1000"]
STUBBORN = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.01; done"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(Shape.CONTROL_PLANE, tmp_path / "state", bound=True)
    yield cluster
    cluster.down()
    assert find_left_over(str(cluster.state)) == []
    assert not cluster.state.exists()


@pytest.fixture
def table(tmp_path: Path) -> Iterator[ProcessTable]:
    table = ProcessTable(tmp_path)
    yield table
    table.stop_all(grace=1)


def test_a_second_start_finds_the_running_cluster(cluster: Cluster) -> None:
    cluster.up()
    before = cluster.processes.records()
    Cluster(cluster.shape, cluster.state).up()
    assert cluster.processes.records() == before
    assert all(is_alive(record) for record in before)


def test_a_dead_component_is_reported_and_a_new_start_heals(cluster: Cluster) -> None:
    cluster.up()
    kwok = next(record for record in cluster.processes.records() if record.name == "kwok")
    os.kill(kwok.pid, signal.SIGKILL)
    eventually(lambda: not is_alive(kwok), what="kwok to die")

    status = cluster.status()
    assert list(status.dead) == ["kwok"]
    assert "Watch" in status.dead["kwok"]

    cluster.up()
    assert cluster.status().dead == {}


def test_a_component_that_fails_takes_the_others_with_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlplane, "SERVICE_RANGE", "no range")
    with pytest.raises(ClusterError, match=r"kube-apiserver ended(.|\n)*not a valid cidr"):
        cluster.up()
    assert find_left_over(str(cluster.state)) == []
    assert (cluster.logs / "kube-apiserver.log").exists()


def test_stopping_spares_a_process_that_was_given_the_same_pid(table: ProcessTable) -> None:
    ours = table.start("ours", SLEEP)
    stranger = table.start("stranger", SLEEP)
    earlier = replace(stranger, name="gone", started=stranger.started - 1)
    table.replace([ours, earlier])

    table.stop_all(grace=1)

    assert not is_alive(ours)
    assert is_alive(stranger)
    table.replace([stranger])


def test_a_process_that_ignores_sigterm_is_killed(table: ProcessTable) -> None:
    stubborn = table.start("stubborn", STUBBORN)
    eventually(lambda: "deaf" in Path(stubborn.log).read_text(), what="the trap to be set")
    table.stop_all(grace=0.1)
    assert not is_alive(stubborn)


def test_a_process_that_was_stopped_starts_again_by_its_command(table: ProcessTable) -> None:
    first = table.start("sleeper", SLEEP)
    command = table.stop("sleeper", grace=5)
    assert not is_alive(first)
    with pytest.raises(ClusterError, match="sleeper does not run"):
        table.stop("sleeper", grace=5)
    second = table.start("sleeper", command)
    assert is_alive(second)
    assert table.records() == [second]


def test_a_bound_process_dies_with_its_starter(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal
from tunesmith_cluster.processes import ProcessTable
ProcessTable(pathlib.Path({str(tmp_path)!r})).start("bound", {SLEEP!r}, bound=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    starter = subprocess.run([sys.executable, "-c", code], check=False)
    assert starter.returncode == -signal.SIGKILL
    (bound,) = ProcessTable(tmp_path).records()
    eventually(lambda: start_time(bound.pid) != bound.started, what="the bound process to die")
