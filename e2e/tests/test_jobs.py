"""Training with real pods: several nodes, reward models, earlier artifacts, deleted pods.

The quickstart's tests come after these: their last one uninstalls the operator.
"""

import json
from typing import Any

import pytest
from invoices import ANSWERS, NAMESPACE, QUESTION, Installation
from jobs import INTERRUPTIBLE, build_training, wait_for_job

PREFERENCES = "preferences"

#: Sums in another order round otherwise; a small learning rate keeps that from growing.
CALM = {"epochs": 1, "batchSize": 8, "learningRate": "1e-3"}
ROUNDING = 0.02


@pytest.fixture(scope="module")
def alone(installation: Installation) -> dict[str, Any]:
    """A job on one node, which the others are compared with."""
    installation.client.apply(build_training("alone"))
    return wait_for_job(installation, "alone")


def losses(job: dict[str, Any]) -> dict[int, float]:
    """Training losses by step, as far as status tells them."""
    return {point["step"]: float(point["loss"]) for point in job["status"]["curve"] if "loss" in point}


def test_two_nodes_learn_what_one_does(installation: Installation) -> None:
    shared = {"compute": {"nodes": 2, "parallelism": "ZeRO3"}, "output": {"uri": "pvc://shared"}}
    installation.client.apply(build_training("one", hyperparameters=CALM))
    installation.client.apply(build_training("two", hyperparameters=CALM, **shared))
    one, two = (wait_for_job(installation, name) for name in ("one", "two"))
    assert two["status"]["resolved"]["parallelism"] == "ZeRO3"
    assert losses(two) == pytest.approx(losses(one), abs=ROUNDING)


def test_a_pod_that_is_taken_away_costs_nothing_that_was_learned(
    installation: Installation, undisturbed: None
) -> None:
    installation.client.apply(build_training("taken", **INTERRUPTIBLE))
    wait_for_job(installation, "taken", lambda status: status.get("checkpoints"))
    selector = "tunesmith.dev/owner-name=taken,tunesmith.dev/stage=train"
    installation.client.kubectl("-n", NAMESPACE, "delete", "pod", "-l", selector, "--wait=false")
    taken, left_alone = (wait_for_job(installation, name) for name in ("taken", "left-alone"))
    assert taken["status"]["disruptions"] == 1
    assert left_alone["status"]["disruptions"] == 0
    assert losses(taken) == losses(left_alone)


@pytest.mark.long
def test_a_reward_model_teaches_by_its_taste(installation: Installation) -> None:
    installation.client.apply(_build_preferences())
    data = {"train": {"uri": f"configmap://{PREFERENCES}/train.jsonl"}}
    installation.client.apply(build_training("taste", method={"reward": {"maxLength": 128}}, dataset=data))
    rloo = {
        "rewards": [{"name": "taste", "model": {"fineTuneJobRef": {"name": "taste"}}}],
        "generations": 4,
        "maxCompletionLength": 8,
        "maxLength": 128,
    }
    numbers = {"maxSteps": 4, "batchSize": 8, "learningRate": "1e-3"}
    # Both at once: the second waits until the first has succeeded.
    installation.client.apply(build_training("tasteful", method={"rloo": rloo}, hyperparameters=numbers))
    wait_for_job(installation, "taste")
    job = wait_for_job(installation, "tasteful")
    assert any("reward" in point for point in job["status"]["curve"])


@pytest.mark.long
def test_training_continues_from_an_earlier_artifact(
    installation: Installation, alone: dict[str, Any]
) -> None:
    numbers = {"maxSteps": 3, "batchSize": 8, "learningRate": "1e-4"}
    earlier = {"fineTuneJobRef": {"name": "alone"}}
    installation.client.apply(build_training("onward", baseModel=earlier, hyperparameters=numbers))
    job = wait_for_job(installation, "onward")
    assert losses(job)[1] < losses(alone)[1] - 2
    assert job["status"]["artifact"]["digest"] != alone["status"]["artifact"]["digest"]


@pytest.mark.long
def test_what_llama_cpp_does_not_know_is_said_before_training(installation: Installation) -> None:
    output = {"uri": "pvc://artifacts", "formats": ["Adapter", "GGUF"]}
    installation.client.apply(build_training("unknown", output=output))
    job = wait_for_job(installation, "unknown", lambda status: status.get("phase") == "Failed", fails=True)
    assert "leave GGUF out of output.formats" in job["status"]["failure"]["message"]
    assert job["status"]["failure"]["category"] == "UserError"


def _build_preferences() -> dict[str, Any]:
    """Pairs that like the first answer better than the second."""
    rows = (
        {
            "prompt": [{"role": "user", "content": QUESTION.format(number=number)}],
            "chosen": [{"role": "assistant", "content": ANSWERS["first"]}],
            "rejected": [{"role": "assistant", "content": ANSWERS["second"]}],
        }
        for number in range(64)
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": PREFERENCES, "namespace": NAMESPACE},
        "data": {"train.jsonl": "".join(json.dumps(row) + "\n" for row in rows)},
    }
