"""A node falls silent in the middle of training, and comes back after the job was given to another pod."""

import pytest
from invoices import Installation
from jobs import build_training, wait_for_job

#: So many that training is still under way when the node counts as lost: 40 s for the node, 5 for the pod, 20 for the
#: operator.
STEPS = 1500


def test_a_silent_kubelet_costs_one_interval_at_most(installation: Installation) -> None:
    if installation.processes is None:
        pytest.skip("the kubelet of a given cluster is not ours to stop")
    tolerations = [
        {
            "key": f"node.kubernetes.io/{what}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 5,
        }
        for what in ("unreachable", "not-ready")
    ]
    numbers = {"epochs": 1000, "maxSteps": STEPS, "batchSize": 4, "learningRate": "1e-4"}
    job = build_training(
        "lost",
        hyperparameters=numbers,
        checkpoints={"everySteps": 50, "keep": 2},
        compute={"template": {"tolerations": tolerations}},
    )
    installation.client.apply(job)
    wait_for_job(installation, "lost", lambda status: status.get("checkpoints"))
    with installation.processes.paused("kubelet"):
        before = wait_for_job(installation, "lost", lambda status: status.get("disruptions") == 1)
        assert before["status"]["phase"] != "Succeeded"
    ended = wait_for_job(installation, "lost")
    assert ended["status"]["progress"]["step"] == STEPS
    assert ended["status"]["disruptions"] == 1
    assert "failure" not in ended["status"]
