"""Evaluation with real pods: several that share the items, containers beside them, the engine.

The tests of one module run side by side in the cluster: all runs are created first.
"""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from invoices import ANSWERS, NAMESPACE, QUESTION, Installation
from jobs import RESOURCES, SECONDS_OF_A_RUN, wait_for

from tunesmith_cluster.client import eventually

CODES = "codes"
SELECTOR = "tunesmith.dev/owner-name={},batch.kubernetes.io/job-completion-index={}"


def build_run(name: str, *suites: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An EvalRun that compares job ``first`` with its base model."""
    suite = {
        "name": "invoices",
        "dataset": {"uri": "configmap://invoices/first-test.jsonl"},
        "metrics": [{"type": "ExactMatch"}],
        "maxNewTokens": 8,
    }
    spec = {
        "candidate": {"fineTuneJobRef": {"name": "first"}},
        "suites": [suite, *suites],
        "gates": [{"suite": "invoices", "metric": "ExactMatch", "expect": "Better", "margin": "0.3"}],
        "safety": {"disabled": True, "reason": "the model knows four words"},
        "compute": {"gpus": 0, "resources": RESOURCES},
    }
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "EvalRun",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec | more,
    }


def build_items() -> dict[str, Any]:
    """Items whose answers are run as code."""
    row = {
        "messages": [
            {"role": "user", "content": QUESTION.format(number=500)},
            {"role": "assistant", "content": ANSWERS["first"]},
        ],
        "tests": "assert True",
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CODES, "namespace": NAMESPACE},
        "data": {"items.jsonl": json.dumps(row) + "\n"},
    }


def pods_of(installation: Installation, selector: str) -> list[dict[str, Any]]:
    """Pods that a label selector finds."""
    listed = installation.client.kubectl("-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "json")
    pods: list[dict[str, Any]] = json.loads(listed)["items"]
    return pods


def ended_pods(installation: Installation, selector: str) -> list[dict[str, Any]]:
    """Pods that a label selector finds, once all their containers have ended; the verdict comes with the first end."""

    def read() -> list[dict[str, Any]]:
        pods = pods_of(installation, selector)
        states = [
            each["state"]
            for pod in pods
            for kind in ("initContainerStatuses", "containerStatuses")
            for each in pod["status"].get(kind, ())
        ]
        return pods if all("terminated" in state for state in states) else []

    return eventually(read, what="the end of all containers")


def ends_of_containers(pod: dict[str, Any]) -> dict[str, int]:
    """Exit codes of a pod's containers; one that is killed after the grace period has 137."""
    statuses = (*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"])
    return {each["name"]: each["state"]["terminated"]["exitCode"] for each in statuses}


def saves_its_state(installation: Installation, pod: dict[str, Any]) -> bool:
    """True if the evaluation runs and handles SIGTERM; before, the signal has no effect and the pod is killed."""
    statuses = pod["status"].get("containerStatuses", ())
    if not statuses or "running" not in statuses[0]["state"]:
        return False
    command = ("exec", pod["metadata"]["name"], "-c", "trainer", "--", "grep", "SigCgt", "/proc/1/status")
    caught = int(installation.client.kubectl("-n", NAMESPACE, *command).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.fixture(scope="module")
def begun(installation: Installation, first: str) -> Iterator[None]:
    """Both runs, created."""
    if not installation.scorer:
        pytest.skip("the node does not have the scoring container by its digest")
    words = {
        "name": "words",
        "dataset": {"uri": "configmap://invoices/second-test.jsonl"},
        "container": {"image": installation.scorer, "resources": {"requests": {"cpu": "50m"}}},
        "metrics": [{"type": "ContainerScore"}],
        "maxNewTokens": 8,
    }
    code = {
        "name": CODES,
        "dataset": {"uri": f"configmap://{CODES}/items.jsonl"},
        "metrics": [{"type": "CodeTests"}],
        "maxNewTokens": 8,
    }
    installation.client.apply(build_items())
    installation.client.apply(build_run("shared", words, code, parallelism=2))
    installation.client.apply(build_run("engine", engine="VLLM"))
    yield
    installation.client.kubectl("-n", NAMESPACE, "delete", "er", "shared", "engine")


def test_pods_share_the_items_and_lose_one(installation: Installation, begun: None) -> None:
    def runs() -> dict[str, Any] | None:
        pods = pods_of(installation, SELECTOR.format("shared", 1))
        return next((pod for pod in pods if saves_its_state(installation, pod)), None)

    pod = eventually(runs, SECONDS_OF_A_RUN, what="the second pod of the run")
    # Their claim for artifacts is ReadWriteOnce.
    (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    installation.client.kubectl("-n", NAMESPACE, "delete", "pod", pod["metadata"]["name"], "--wait=false")
    run = wait_for(installation, "er", "shared", lambda status: "verdict" in status, SECONDS_OF_A_RUN)
    status = run["status"]
    assert (status["verdict"], status["attempts"], status["disruptions"]) == ("Pass", 2, 1)
    items = {suite["name"]: (suite["items"], suite["broken"]) for suite in status["suites"]}
    assert items == {"invoices": (40, 0), "words": (40, 0), CODES: (1, 0)}
    results = {result["suite"]: float(result["candidate"]) for result in status["results"]}
    # Two of the five words of the second answer are in the first; which is no Python.
    assert results == {"invoices": 1.0, "words": pytest.approx(0.4), CODES: 0.0}
    (second,) = ended_pods(installation, f"{SELECTOR.format('shared', 1)},tunesmith.dev/attempt=2")
    assert ends_of_containers(second) == {"sandbox": 0, "suite-words": 0, "pause": 0, "trainer": 0}


def test_an_engine_beside_the_evaluation_ends_with_it(installation: Installation, begun: None) -> None:
    run = wait_for(installation, "er", "engine", lambda status: "verdict" in status, SECONDS_OF_A_RUN)
    assert (run["status"]["verdict"], run["status"]["attempts"]) == ("Pass", 1)
    (pod,) = ended_pods(installation, SELECTOR.format("engine", 0))
    assert ends_of_containers(pod) == {"engine": 0, "pause": 0, "trainer": 0}
    assert all(each["restartCount"] == 0 for each in pod["status"]["initContainerStatuses"])
