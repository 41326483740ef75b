"""Data preparation with real pods: cleaning, report, generation by a teacher within a budget."""

import json
from pathlib import Path
from typing import Any

import pytest
from invoices import NAMESPACE, QUESTION, Installation
from jobs import build_training, wait_for_job
from mixed import LEAKED, MAIL, build_config_map

from tunesmith_cluster.client import eventually

TEACHER = "teacher"
SUPPORT = Path(__file__).parent / "support"
#: A teacher waits for its container, which pulls nothing.
READY_SECONDS = 120


def build_teacher(image: str) -> list[dict[str, Any]]:
    """The teacher's pod, under the ``restricted`` level, and its Service."""
    labels = {"app": TEACHER}
    container = {
        "name": TEACHER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "/etc/teacher/teacher.py"],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "code", "mountPath": "/etc/teacher", "readOnly": True}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "code", "configMap": {"name": TEACHER}}],
    }
    metadata = {"name": TEACHER, "namespace": NAMESPACE}
    service = {"selector": labels, "ports": [{"port": 8000}]}
    return [
        build_config_map(TEACHER, {"teacher.py": (SUPPORT / "teacher.py").read_text()}),
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata | {"labels": labels}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]


@pytest.fixture(scope="module")
def teacher(installation: Installation) -> str:
    """The URL of a teacher that is ready."""
    for body in build_teacher(installation.images["trainer"]):
        installation.client.apply(body)

    def ready() -> bool:
        status = installation.client.get("pod", TEACHER, NAMESPACE).get("status", {})
        conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
        return conditions.get("Ready") == "True"

    eventually(ready, READY_SECONDS, what="the teacher's pod")
    return f"http://{TEACHER}.{NAMESPACE}.svc:8000/v1"


def test_rows_are_cleaned_and_the_report_says_how(installation: Installation, undisturbed: None) -> None:
    job = wait_for_job(installation, "second")
    found = job["status"]["dataset"]
    assert (found["rows"], found["duplicates"], found["leakedRows"], found["droppedRows"]) == (243, 1, 1, 1)
    assert found["trainRows"] + found["validationRows"] == 240
    issues = {issue["check"]: issue["rows"] for issue in found["issues"]}
    assert issues["leaked_rows"] == 1
    assert found["report"].startswith(f"pvc://artifacts/{NAMESPACE}/")
    assert found["report"].endswith("/data-report/report.html")
    assert found["recommendation"]
    ready = next(each for each in job["status"]["conditions"] if each["type"] == "DataReady")
    assert "1 leaked" in ready["message"]
    assert QUESTION.format(number=LEAKED) not in json.dumps(job["status"])
    assert MAIL.partition("@")[0] not in json.dumps(job)
    assert job["status"]["estimate"]["steps"] == job["status"]["progress"]["totalSteps"]


@pytest.mark.long
def test_a_teacher_makes_the_rows(installation: Installation, teacher: str) -> None:
    prompts = (
        json.dumps({"prompt": [{"role": "user", "content": QUESTION.format(number=number)}]})
        for number in range(60)
    )
    installation.client.apply(build_config_map("prompts", {"prompts.jsonl": "\n".join(prompts)}))
    generate = {
        "endpoint": {"url": teacher, "model": "numbers"},
        "answers": {"prompts": {"uri": "configmap://prompts/prompts.jsonl"}},
        "budget": {"calls": 50},
    }
    numbers = {"maxSteps": 4, "batchSize": 8, "learningRate": "1e-3"}
    job = build_training("taught", dataset={"generate": generate}, hyperparameters=numbers)
    installation.client.apply(job)
    taught = wait_for_job(installation, "taught")
    made = taught["status"]["generation"]
    assert (made["rows"], made["calls"]) == (50, 50)
    assert taught["status"]["dataset"]["rows"] == 50
    assert made["completionTokens"] == 250
