"""Proxy, certificate authorities and mirror of the hub in all pods; users and groups that the namespace assigns."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulation.serving_world import ENVIRONMENT as SERVING_ENVIRONMENT
from simulation.serving_world import World, build_adapter
from simulation.simulated_cluster import (
    DIGEST,
    ENVIRONMENT,
    GENERATE,
    START,
    eval_run,
    fine_tune_job,
    success,
)

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.pod_template import PodTemplate
from tunesmith.decide.evalrun.config import ResolvedEvaluation, resolve_evaluation
from tunesmith.decide.evalrun.sides import SideSources
from tunesmith.decide.finetunejob.observed import ObservedTraining
from tunesmith.decide.finetunejob.planning import plan_training
from tunesmith.decide.finetunejob.run_config import resolve_run
from tunesmith.decide.plan import Create
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.outbound import CA_VARIABLES, CABundle, Outbound, outbound_of
from tunesmith.manifests.run_snapshots import Inputs, parse_inputs
from tunesmith.manifests.serving_config_maps import ServingInputs
from tunesmith.manifests.serving_deployment import build_serving_deployment
from tunesmith.manifests.stage_jobs import build_data_job, build_evaluate_job, build_train_job
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.stages import Stage

PROXY = "http://proxy.corp:3128"
MIRROR = "https://hub.corp/hf"
SECRET = {"secretKeyRef": {"name": "proxy", "key": "url"}}
BUNDLE = "/var/lib/tunesmith-trust/ca-certificates.crt"
OUTBOUND = Outbound(
    {
        "HTTPS_PROXY": {"value": PROXY},
        "no_proxy": {"value": ".corp, 10.0.0.0/8"},
        "HF_ENDPOINT": {"value": MIRROR},
    },
    CABundle("trust", "root-certs.pem"),
)
#: Containers whose contract promises no network.
CLOSED = {"sandbox", "suite-texts", "pause"}

Pod = dict[str, Any]


def training_pods(environment: Environment, **compute: Any) -> Iterator[tuple[str, Pod]]:
    """Pods of generate, prepare and train."""
    job = FineTuneJob.parse(
        fine_tune_job(compute=compute, dataset={"generate": GENERATE, "validation": {"fraction": "0.1"}})
    )
    first = plan_training(job, ObservedTraining(), START, environment).actions[0]
    assert isinstance(first, Create)
    inputs = parse_inputs(first.manifest)
    run = resolve_run(job.spec, inputs, success("prepare"))
    assert isinstance(run, TrainConfig)
    for stage in (Stage.GENERATE, Stage.PREPARE):
        yield stage, pod_of(build_data_job(job, inputs, stage, 1, environment))
    yield Stage.TRAIN, pod_of(build_train_job(job, inputs, run, 1, environment))


def evaluation_pod(environment: Environment, **compute: Any) -> Pod:
    """Pod of an evaluation with an engine, a sandbox and the container of a suite."""
    data = {"uri": "pvc://data/items.jsonl"}
    suites = [
        {
            "name": "texts",
            "dataset": data,
            "metrics": [{"type": "ContainerScore"}],
            "container": {"image": "scorer:1"},
        },
        {"name": "code", "dataset": data, "metrics": [{"type": "CodeTests"}]},
    ]
    gates = [{"suite": "code", "metric": "CodeTests", "expect": "Better"}]
    run = EvalRun.parse(eval_run(suites=suites, gates=gates, compute=compute))
    tuned = fine_tune_job()
    artifact = {"uri": f"pvc://artifacts/sha256/{'a' * 64}", "digest": DIGEST, "sizeBytes": 7}
    tuned["status"] = {"phase": "Succeeded", "artifact": artifact, "resolved": {"baseModelRevision": "r"}}
    resolved = resolve_evaluation(run, SideSources({"expenses": FineTuneJob.parse(tuned)}))
    assert isinstance(resolved, ResolvedEvaluation)
    inputs = Inputs("", "trainer:1", START, resolved.config, "", engine_image="serving:1")
    return pod_of(build_evaluate_job(run, inputs, 1, environment))


def serving_pod(environment: Environment, **template: Any) -> Pod:
    engine: dict[str, Any] = {"engine": {"gpus": 0, "template": template}} if template else {}
    resource = World(build_adapter("one"), **engine).resource
    changed = replace(
        SERVING_ENVIRONMENT, assigned_ids=environment.assigned_ids, outbound=environment.outbound
    )
    return pod_of(build_serving_deployment(resource, ServingInputs(1, "", "serving:1"), changed))


def all_pods(environment: Environment) -> dict[str, Pod]:
    return {
        **dict(training_pods(environment)),
        "evaluate": evaluation_pod(environment),
        "serving": serving_pod(environment),
    }


def pod_of(manifest: Pod) -> Pod:
    pod: Pod = manifest["spec"]["template"]["spec"]
    return pod


def containers(pod: Pod) -> dict[str, Pod]:
    return {each["name"]: each for each in (*pod.get("initContainers", ()), *pod["containers"])}


def variables(container: Pod) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", ())}


def extended(outbound: Outbound, *own: dict[str, Any]) -> dict[str, Any]:
    return variables(outbound.extend({"env": list(own)}))


PODS = all_pods(replace(ENVIRONMENT, outbound=OUTBOUND))


@pytest.mark.parametrize("name", PODS)
def test_all_containers_that_need_a_network_get_proxy_authorities_and_mirror(name: str) -> None:
    pod = PODS[name]
    first, *others = containers(pod).values()
    assert (first["name"], "restartPolicy" in first) == ("trust", False)
    for container in others:
        found = variables(container)
        if container["name"] in CLOSED:
            assert not {"HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "HF_ENDPOINT"} & set(found)
            continue
        assert (found["HTTPS_PROXY"], found["https_proxy"], found["HF_ENDPOINT"]) == (PROXY, PROXY, MIRROR)
        # The hub's client turns to huggingface.co otherwise, whatever the mirror.
        assert found["HF_HUB_DISABLE_TELEMETRY"] == "1"
        assert {found[name] for name in CA_VARIABLES} == {BUNDLE}
        assert {"name": "trust", "mountPath": str(Path(BUNDLE).parent), "readOnly": True} in container[
            "volumeMounts"
        ]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    source = volumes["authorities"]["configMap"]
    assert (source["name"], source["items"]) == ("trust", [{"key": "root-certs.pem", "path": "ca.crt"}])


def test_the_evaluation_has_all_kinds_of_containers() -> None:
    names = ["trust", "sandbox", "suite-texts", "engine", "pause", "trainer"]
    assert list(containers(PODS["evaluate"])) == names


def test_without_settings_pods_are_as_they_were() -> None:
    for pod in all_pods(ENVIRONMENT).values():
        assert "trust" not in containers(pod)
        assert not {"trust", "authorities"} & {volume["name"] for volume in pod["volumes"]}
        assert not {"NO_PROXY", "SSL_CERT_FILE"} & {
            name for each in containers(pod).values() for name in variables(each)
        }


def test_the_cluster_is_reached_without_the_proxy() -> None:
    found = extended(OUTBOUND)
    assert found["NO_PROXY"] == found["no_proxy"]
    assert found["NO_PROXY"].split(",") == [
        *("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local", "$(KUBERNETES_SERVICE_HOST)"),
        *(".corp", "10.0.0.0/8"),
    ]
    assert "HTTP_PROXY" not in found
    assert "NO_PROXY" not in extended(Outbound({"HF_ENDPOINT": {"value": MIRROR}}))


def test_python_reads_those_hosts_as_meant() -> None:
    script = (
        "import urllib.request as r; print([bool(r.proxy_bypass(h)) for h in "
        "('tunesmith.system.svc', 'judge.team.svc.cluster.local', '10.96.0.1', 'huggingface.co')])"
    )
    environment = {name: value for name, value in extended(OUTBOUND).items() if isinstance(value, str)}
    environment["no_proxy"] = environment["no_proxy"].replace("$(KUBERNETES_SERVICE_HOST)", "10.96.0.1")
    del environment["NO_PROXY"]
    command = ["python3", "-c", script]
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "[True, True, True, False]"


def test_a_password_stays_in_its_secret_in_both_spellings() -> None:
    found = extended(Outbound({"https_proxy": {"valueFrom": SECRET}}))
    assert found["HTTPS_PROXY"] == found["https_proxy"] == SECRET
    template = PodTemplate.model_validate({"proxy": {"secretRef": {"name": "proxy"}}})
    found = extended(outbound_of(template, OUTBOUND))
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        reference = {"secretKeyRef": {"name": "proxy", "key": name}}
        assert found[name] == found[name.lower()] == reference
    assert found["NO_PROXY"].endswith(".corp,10.0.0.0/8")


def test_a_container_s_own_variables_win() -> None:
    assert extended(OUTBOUND, {"name": "HF_ENDPOINT", "value": "other"})["HF_ENDPOINT"] == "other"


def test_the_template_of_a_resource_wins_over_the_installation() -> None:
    template = {
        "proxy": {"httpProxy": "http://other:1", "noProxy": [".team"]},
        "caBundle": {"configMapName": "own"},
        "hfEndpoint": "https://own",
    }
    environment = replace(ENVIRONMENT, outbound=OUTBOUND)
    pods = [pod for _, pod in training_pods(environment, template=template)]
    pods += [evaluation_pod(environment, template=template), serving_pod(environment, **template)]
    for pod in pods:
        assert not {"proxy", "caBundle", "hfEndpoint"} & set(pod)
        found = variables(pod["containers"][0])
        assert (found["HTTP_PROXY"], found["HF_ENDPOINT"]) == ("http://other:1", "https://own")
        assert "HTTPS_PROXY" not in found
        assert found["NO_PROXY"].endswith(".corp,10.0.0.0/8,.team")
        (source,) = (volume["configMap"] for volume in pod["volumes"] if volume["name"] == "authorities")
        assert (source["name"], source["items"][0]["key"]) == ("own", "ca.crt")


def test_a_serving_pod_says_which_config_map_is_missing_where_a_job_s_pod_waits_for_it() -> None:
    optional = {
        name: next(volume for volume in pod["volumes"] if volume["name"] == "authorities")["configMap"].get(
            "optional", False
        )
        for name, pod in PODS.items()
    }
    assert optional == {name: name == "serving" for name in PODS}


def join(folder: Path, authorities: str) -> subprocess.CompletedProcess[str]:
    """Run the first container's command on files in a folder."""
    container = containers(PODS["train"])["trust"]
    (folder / "ca.crt").write_text(authorities)
    paths = {"AUTHORITIES": str(folder / "ca.crt"), "BUNDLE": str(folder / "bundle")}
    environment = {**os.environ, **variables(container), **paths}
    return subprocess.run(container["command"], env=environment, capture_output=True, text=True, check=False)


def test_private_authorities_are_added_to_the_public_ones(tmp_path: Path) -> None:
    assert join(tmp_path, "PRIVATE").returncode == 0
    bundle = (tmp_path / "bundle").read_text()
    assert bundle.endswith("-----END CERTIFICATE-----\n\nPRIVATE")
    assert bundle.count("BEGIN CERTIFICATE") > 50


def test_a_missing_config_map_is_named_in_the_container_s_last_words(tmp_path: Path) -> None:
    ended = join(tmp_path, "")
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        'ConfigMap "trust" does not exist in this namespace, or has no key "root-certs.pem"'
    )
    assert len(ended.stderr.splitlines()) == 1


def test_namespaces_assign_users_and_groups_where_the_platform_does() -> None:
    ids = {"runAsUser", "runAsGroup", "fsGroup"}
    for pod in all_pods(replace(ENVIRONMENT, outbound=OUTBOUND, assigned_ids=True)).values():
        contexts = [pod["securityContext"], *(each["securityContext"] for each in containers(pod).values())]
        assert not [ids & set(context) for context in contexts if ids & set(context)]
        assert pod["securityContext"]["runAsNonRoot"] is True
    for pod in PODS.values():
        assert ids <= set(pod["securityContext"])
