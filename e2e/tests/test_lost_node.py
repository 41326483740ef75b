"""Node that is lost during training and returns after another pod has taken over."""

import pytest
from invoices import NAMESPACE, Installation
from jobs import build_training, wait_for_job

#: So many that training is still under way when the pod counts as lost, half a minute later.
STEPS = 3000


def test_a_silent_kubelet_costs_one_interval_at_most(installation: Installation) -> None:
    if installation.processes is None:
        pytest.skip("the kubelet of a given cluster is not ours to stop")
    numbers = {"epochs": 1000, "maxSteps": STEPS, "batchSize": 4, "learningRate": "1e-4"}
    job = build_training(
        "lost",
        hyperparameters=numbers,
        checkpoints={"everySteps": 100, "keep": 2},
    )
    installation.client.apply(job)
    wait_for_job(installation, "lost", lambda status: status.get("checkpoints"))
    with installation.processes.paused("kubelet"):
        # What the eviction of a silent node's pods does; with one node alone, Kubernetes spares it.
        selector = "tunesmith.dev/owner-name=lost,tunesmith.dev/stage=train"
        evict = ("delete", "pod", "-l", selector, "--grace-period=5", "--wait=false")
        installation.client.kubectl("-n", NAMESPACE, *evict)
        before = wait_for_job(installation, "lost", lambda status: status.get("disruptions") == 1)
        assert before["status"]["phase"] != "Succeeded"
    ended = wait_for_job(installation, "lost")
    assert ended["status"]["progress"]["step"] == STEPS
    assert ended["status"]["disruptions"] == 1
    assert "failure" not in ended["status"]
