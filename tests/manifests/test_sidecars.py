"""Containers beside the trainer's: what they share with it, and what they don't get."""

import os
import signal
import subprocess
from typing import Any

import pytest
from simulation.simulated_cluster import DIGEST, ENVIRONMENT, START, eval_run, fine_tune_job

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.evalrun.config import ResolvedEvaluation, resolve_evaluation
from tunesmith.decide.evalrun.sides import SideSources
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith.manifests.stage_jobs import build_evaluate_job

DATA = {"uri": "pvc://data/items.jsonl"}
SCORER = {"image": "registry.example/team/scorer:1"}


def pod(*suites: dict[str, Any], engine_image: str = "", **spec: Any) -> dict[str, Any]:
    """Evaluation pod of a run with these suites."""
    gate = {"suite": suites[0]["name"], "metric": suites[0]["metrics"][0]["type"], "expect": "Better"}
    run = EvalRun.parse(eval_run(suites=list(suites), gates=[gate], **spec))
    tuned = fine_tune_job()
    artifact = {"uri": f"pvc://artifacts/sha256/{'a' * 64}", "digest": DIGEST, "sizeBytes": 7}
    tuned["status"] = {"phase": "Succeeded", "artifact": artifact, "resolved": {"baseModelRevision": "r"}}
    resolved = resolve_evaluation(run, SideSources({"expenses": FineTuneJob.parse(tuned)}))
    assert isinstance(resolved, ResolvedEvaluation)
    secrets = {"base-model": "hub"}
    inputs = Inputs(
        spec="",
        image="trainer:1",
        started=START,
        config=resolved.config,
        ca_bundle="",
        secrets=secrets,
        engine_image=engine_image,
    )
    result = build_evaluate_job(run, inputs, 1, ENVIRONMENT)["spec"]["template"]["spec"]
    assert isinstance(result, dict)
    return result


def suite(name: str, *metrics: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "dataset": DATA, "metrics": [{"type": metric} for metric in metrics], **fields}


def mounts(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def test_without_them_a_pod_has_one_container() -> None:
    assert "initContainers" not in pod(suite("texts", "ExactMatch"))


def test_container_of_a_suite_shares_two_folders_and_nothing_else() -> None:
    spec = pod(suite("texts", "ContainerScore", container=SCORER))
    scorer, pause = spec["initContainers"]
    assert not {"volumeMounts", "envFrom"} & set(pause)
    (trainer,) = spec["containers"]
    assert scorer["name"] == "suite-texts"
    assert scorer["restartPolicy"] == "Always"
    assert "command" not in scorer
    assert {path: mount["readOnly"] for path, mount in mounts(scorer).items() if path != "/tmp"} == {
        "/tunesmith/input": True,
        "/tunesmith/output": False,
    }
    shared = {mount["name"]: mount for mount in trainer["volumeMounts"]}
    assert shared["suite-texts-input"] == {
        "name": "suite-texts-input",
        "mountPath": "/tunesmith/suites/texts/input",
        "readOnly": False,
    }
    assert shared["suite-texts-output"]["readOnly"] is True
    assert not spec["automountServiceAccountToken"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in scorer["volumeMounts"]:
        assert set(volumes[mount["name"]]) == {"name", "emptyDir"}
        assert volumes[mount["name"]]["emptyDir"]["sizeLimit"]
    assert [variable["name"] for variable in scorer["env"]] == ["HOME", "NVIDIA_VISIBLE_DEVICES"]


def test_containers_are_restricted_and_run_as_another_user() -> None:
    spec = pod(suite("texts", "ContainerScore", container=SCORER), suite("code", "CodeTests"))
    for sidecar in spec["initContainers"]:
        security = sidecar["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["runAsUser"] != spec["securityContext"]["runAsUser"]
        assert sidecar["resources"]["limits"]["memory"]
    names = [volume["name"] for volume in spec["volumes"]]
    assert len(names) == len(set(names))


def test_resources_and_command_are_those_that_people_write() -> None:
    written = {"limits": {"memory": "8Gi"}, "requests": {"cpu": "2"}}
    container = {**SCORER, "command": ["python", "score.py"], "resources": written}
    scorer = pod(suite("texts", "ContainerScore", container=container))["initContainers"][0]
    assert scorer["command"] == ["python", "score.py"]
    assert scorer["resources"] == {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}}


def test_code_of_answers_runs_in_a_sandbox_of_the_trainer_image() -> None:
    spec = pod(suite("code", "CodeTests"), suite("more", "CodeTests"))
    sandbox = spec["initContainers"][0]
    assert (sandbox["name"], sandbox["image"]) == ("sandbox", "trainer:1")
    assert sandbox["command"][-2:] == ["tunesmith_evaluation.metrics.sandbox", "/tunesmith/sandbox/socket"]
    assert "/tunesmith/sandbox" in mounts(sandbox)
    assert "/tunesmith/sandbox" in mounts(spec["containers"][0])


def test_the_last_sidecar_runs_until_it_is_told_to_end() -> None:
    containers = pod(
        suite("texts", "ContainerScore", container=SCORER),
        suite("code", "CodeTests"),
        engine_image="serving:1",
    )["initContainers"]
    assert [each["name"] for each in containers] == ["sandbox", "suite-texts", "engine", "pause"]
    with subprocess.Popen(containers[-1]["command"], start_new_session=True) as pause:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                pause.wait(0.3)
            pause.terminate()
            assert pause.wait(20) == 0
        finally:
            os.killpg(pause.pid, signal.SIGKILL)


def test_the_engine_has_shared_memory() -> None:
    spec = pod(suite("texts", "ExactMatch"), engine_image="serving:1")
    assert "/dev/shm" in mounts(spec["initContainers"][0])
    assert (
        next(volume for volume in spec["volumes"] if volume["name"] == "shm")["emptyDir"]["medium"]
        == "Memory"
    )


def test_pod_reads_the_data_and_definition_of_a_task() -> None:
    harness = {"task": "arc_easy", "data": "pvc://tasks/arc", "include": "pvc://definitions/own"}
    task = {"name": "arc", "harness": harness, "metrics": [{"type": "TaskScore"}]}
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod(task)["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert {"tasks", "definitions"} <= claims
