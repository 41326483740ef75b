"""Creation and completion of FineTuneJobs in end-to-end tests."""

from collections.abc import Callable
from typing import Any

import pytest
from invoices import MODEL, NAMESPACE, Installation

from tunesmith_cluster.client import eventually
from tunesmith_demo.progress import DemoFailed, require_success

TRAINING_SECONDS = 900
# The pods of two jobs find room beside each other: a gang that gets half its pods would wait for ever. A limit of one
# core starts one thread: threads of several jobs on few cores mostly wait for each other.
RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1"}}


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
