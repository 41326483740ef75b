"""Node that is lost during training and returns after another pod has taken over."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from invoices import NAMESPACE, Installation
from jobs import build_training, wait_for_job

STEPS = 150
SELECTOR = "tunesmith.dev/owner-name=lost,tunesmith.dev/stage=train"


@contextmanager
def frozen_containers(installation: Installation) -> Iterator[None]:
    """Context in which the processes of the job's pod stand still, as those of a node that hangs."""
    path = "jsonpath={.items[*].status.containerStatuses[*].containerID}"
    listed = installation.client.kubectl("-n", NAMESPACE, "get", "pods", "-l", SELECTOR, "-o", path)
    containers = [name.removeprefix("containerd://") for name in listed.split()]
    assert containers
    # The kernel names a process's container in the path of its control group.
    groups = ((int(folder.name), folder / "cgroup") for folder in Path("/proc").glob("[0-9]*"))
    processes = [
        pid
        for pid, group in groups
        if group.exists() and any(container in group.read_text() for container in containers)
    ]
    assert processes
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def test_a_silent_kubelet_costs_one_interval_at_most(installation: Installation) -> None:
    if installation.processes is None:
        pytest.skip("the kubelet of a given cluster is not ours to stop")
    job = build_training(
        "lost",
        hyperparameters={"epochs": 1000, "maxSteps": STEPS, "batchSize": 4, "learningRate": "1e-4"},
        checkpoints={"everySteps": 20, "keep": 2},
    )
    installation.client.apply(job)
    wait_for_job(installation, "lost", lambda status: status.get("checkpoints"))
    with installation.processes.paused("kubelet"), frozen_containers(installation):
        # What the eviction of a silent node's pods does; with one node alone, Kubernetes spares it.
        evict = ("delete", "pod", "-l", SELECTOR, "--grace-period=5", "--wait=false")
        installation.client.kubectl("-n", NAMESPACE, *evict)
        before = wait_for_job(installation, "lost", lambda status: status.get("disruptions") == 1)
        assert before["status"]["phase"] != "Succeeded"
    ended = wait_for_job(installation, "lost")
    assert ended["status"]["progress"]["step"] == STEPS
    assert ended["status"]["disruptions"] == 1
    assert "failure" not in ended["status"]
