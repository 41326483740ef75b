"""Search for hyperparameters with a real pod, which is taken away in the middle."""

from typing import Any

from invoices import NAMESPACE, Installation
from jobs import build_training, wait_for_job

TRIALS = 2
#: A trial takes long enough that the next one is not over before the end of the first is known.
STEPS = 100


def test_trials_of_one_pod_survive_its_loss(installation: Installation) -> None:
    job = build_training(
        "searched",
        dataset={
            "train": {"uri": "configmap://invoices/first.jsonl"},
            "validation": {"fraction": "0.1"},
        },
        hyperparameters={"epochs": 100, "maxSteps": STEPS, "batchSize": 8, "learningRate": "1e-2"},
        search={
            "mode": "SharedPod",
            "parameters": [{"name": "learningRate", "min": "1e-4", "max": "1e-1", "scale": "Log"}],
            "budget": {"trials": TRIALS},
        },
    )
    installation.client.apply(job)

    def ended(status: dict[str, Any]) -> bool:
        return bool(status.get("search", {}).get("completed"))

    before = wait_for_job(installation, "searched", ended)["status"]["search"]["trials"]
    selector = "tunesmith.dev/owner-name=searched,tunesmith.dev/stage=train"
    installation.client.kubectl("-n", NAMESPACE, "delete", "pod", "-l", selector, "--wait=false")
    status = wait_for_job(installation, "searched")["status"]
    trials = status["search"]["trials"]
    assert status["disruptions"] == 1
    assert [(trial["number"], trial["state"]) for trial in trials] == [
        (number, "Completed") for number in range(1, TRIALS + 1)
    ]
    assert trials[0] == before[0]
    best = min(trials, key=lambda trial: float(trial["loss"]))
    assert status["search"]["best"]["number"] == best["number"]
    assert status["artifact"]["digest"]
