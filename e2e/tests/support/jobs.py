"""Creation and completion of FineTuneJobs and EvalRuns in end-to-end tests."""

from collections.abc import Callable
from typing import Any

import pytest
from invoices import MODEL, NAMESPACE, Installation

from tunesmith_cluster.client import eventually
from tunesmith_demo.progress import DemoFailed, require_success

TRAINING_SECONDS = 900
#: One run of the quickstart's size: a training, or an evaluation.
SECONDS_OF_A_RUN = 600
# The pods of two jobs find room beside each other: a gang that gets half its pods would wait for ever. A limit of one
# core starts one thread: threads of several jobs on few cores mostly wait for each other.
RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1"}}

#: Long enough to be interrupted.
INTERRUPTIBLE: dict[str, Any] = {
    "hyperparameters": {"epochs": 100, "maxSteps": 120, "batchSize": 8, "learningRate": "1e-3"},
    "checkpoints": {"everySteps": 10, "keep": 2},
}


def build_training(name: str, **more: Any) -> dict[str, Any]:
    """A FineTuneJob on a CPU that learns the first answer in one epoch; ``more`` replaces parts of its spec."""
    spec: dict[str, Any] = {
        "baseModel": {"uri": f"pvc://models/{MODEL}"},
        "dataset": {"train": {"uri": "configmap://invoices/first.jsonl"}},
        "method": {"sft": {"maxLength": 128}},
        "adapter": {},
        "hyperparameters": {"epochs": 1, "batchSize": 8, "learningRate": "1e-2"},
        "compute": {},
        "output": {"uri": "pvc://artifacts"},
    }
    more["adapter"] = {"rank": 8, "alpha": 32} | more.get("adapter", {})
    more["compute"] = {"gpusPerNode": 0, "resources": RESOURCES} | more.get("compute", {})
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec | more,
    }


def succeeded(status: dict[str, Any]) -> bool:
    """True if a job has succeeded."""
    return status.get("phase") == "Succeeded"


def wait_for_job(
    installation: Installation,
    name: str,
    done: Callable[[dict[str, Any]], Any] = succeeded,
    *,
    fails: bool = False,
) -> dict[str, Any]:
    """The job, once ``done`` says so of its status; fails at once where the job does, unless that is expected."""

    def read() -> dict[str, Any] | None:
        job = installation.client.get("ftj", name, NAMESPACE)
        if not fails:
            require_success(job)
        return job if done(job.get("status", {})) else None

    try:
        return eventually(read, TRAINING_SECONDS, what=f"ftj/{name}")
    except (TimeoutError, DemoFailed) as error:
        pytest.fail(f"{error}\n{installation.client.kubectl('-n', NAMESPACE, 'describe', 'ftj', name)}")


def build_job(name: str, answer: str) -> dict[str, Any]:
    """A FineTuneJob that learns one answer, and its evaluation on held-out questions."""
    suite = {
        "name": "invoices",
        "dataset": {"uri": f"configmap://invoices/{answer}-test.jsonl"},
        "metrics": [{"type": "ExactMatch"}],
        "maxNewTokens": 24,
    }
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "baseModel": {"uri": f"pvc://models/{MODEL}"},
            "dataset": {"train": {"uri": f"configmap://invoices/{answer}.jsonl"}},
            "method": {"sft": {"maxLength": 128}},
            "adapter": {"rank": 8, "alpha": 32},
            "hyperparameters": {"epochs": 3, "batchSize": 8, "learningRate": "1e-2"},
            "compute": {"gpusPerNode": 0, "resources": RESOURCES},
            "output": {"uri": "pvc://artifacts"},
            "evaluation": {
                "suites": [suite],
                "gates": [{"suite": "invoices", "metric": "ExactMatch", "expect": "Better", "margin": "0.3"}],
                "compute": {"gpus": 0, "resources": RESOURCES},
            },
        },
    }


def wait_for(installation: Installation, kind: str, name: str, done: Any, seconds: float) -> dict[str, Any]:
    """The resource, once ``done`` says so of its status; fails at once where it is stalled."""

    def read() -> dict[str, Any] | None:
        resource = installation.client.get(kind, name, installation.namespace)
        require_success(resource)
        return resource if done(resource.get("status", {})) else None

    try:
        return eventually(read, seconds, what=f"{kind}/{name}")
    except (TimeoutError, DemoFailed) as error:
        described = installation.client.kubectl("-n", installation.namespace, "describe", kind, name)
        pytest.fail(f"{error}\n{described}")


def judged_adapter(installation: Installation, name: str) -> str:
    """Digest of the adapter of a job, once it went all its way, with a verdict of Pass."""
    digest: str = wait_for_job(installation, name)["status"]["artifact"]["digest"]
    run = wait_for(installation, "er", name, lambda status: "verdict" in status, SECONDS_OF_A_RUN)
    assert run["status"]["verdict"] == "Pass", run["status"]
    assert run["status"]["candidate"]["digest"] == digest
    return digest
