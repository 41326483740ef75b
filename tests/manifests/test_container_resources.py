"""Requests and limits of containers: of what people wrote, of the defaults, and of what a quota may count."""

from dataclasses import replace
from typing import Any

import pytest
from simulation.serving_world import ENVIRONMENT as SERVING_ENVIRONMENT
from simulation.serving_world import World, build_adapter
from simulation.simulated_cluster import ENVIRONMENT, START, eval_run, fine_tune_job

from tunesmith.api.common import Resources
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.values import quantity_amount, scale_quantity
from tunesmith.decide.evalrun.config import ResolvedEvaluation, resolve_evaluation
from tunesmith.decide.evalrun.sides import SideSources
from tunesmith.manifests.container_resources import (
    ContainerDefaults,
    LimitRules,
    build_resources,
)
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.outbound import CABundle, Outbound
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith.manifests.serving_config_maps import ServingInputs
from tunesmith.manifests.serving_deployment import build_serving_deployment
from tunesmith.manifests.stage_jobs import build_evaluate_job

DEFAULTS = ContainerDefaults({"cpu": "500m", "memory": "1Gi"})
COUNTED = {"cpu", "memory"}
LIMITS = {"limits": {"cpu": "4", "memory": "16Gi"}}


def evaluation_pod(environment: Environment = ENVIRONMENT, **compute: Any) -> dict[str, Any]:
    """An evaluation's pod with each container that there can be."""
    scorer = {"image": f"registry.example/team/scorer@sha256:{'0' * 64}"}
    data = {"uri": "pvc://data/items.jsonl"}
    suites = [
        {"name": "texts", "dataset": data, "metrics": [{"type": "ContainerScore"}], "container": scorer},
        {"name": "code", "dataset": data, "metrics": [{"type": "CodeTests"}]},
    ]
    gates = [{"suite": "code", "metric": "CodeTests", "expect": "Better"}]
    run = EvalRun.parse(eval_run(suites=suites, gates=gates, compute=compute))
    tuned = fine_tune_job()
    digest = f"sha256:{'a' * 64}"
    artifact = {"uri": f"pvc://artifacts/sha256/{'a' * 64}", "digest": digest, "sizeBytes": 7}
    tuned["status"] = {"phase": "Succeeded", "artifact": artifact, "resolved": {"baseModelRevision": "r"}}
    resolved = resolve_evaluation(run, SideSources({"expenses": FineTuneJob.parse(tuned)}))
    assert isinstance(resolved, ResolvedEvaluation)
    inputs = Inputs("", "trainer:1", START, resolved.config, "", engine_image="serving:1")
    pod: dict[str, Any] = build_evaluate_job(run, inputs, 1, environment)["spec"]["template"]["spec"]
    return pod


def serving_pod(environment: Environment = SERVING_ENVIRONMENT, **engine: Any) -> dict[str, Any]:
    world = World(build_adapter("one"), engine={"gpus": 0, **engine})
    deployment = build_serving_deployment(world.resource, ServingInputs(1, "", "serving:1"), environment)
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def resources_by_name(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each["resources"] for each in (*pod["initContainers"], *pod["containers"])}


@pytest.mark.parametrize(
    ("quantity", "factor", "scaled"),
    [("500m", "4", "2000m"), ("1Gi", "2", "2Gi"), ("1.5Gi", "2", "3Gi"), ("5m", "1.5", "8m"), ("2", "0.5", "1"),
     ("100", "10", "1000"), ("1e3", "2", "2000")],
)  # fmt: skip
def test_quantities_are_multiplied_in_their_unit(quantity: str, factor: str, scaled: str) -> None:
    assert scale_quantity(quantity, factor) == scaled


def test_quantities_are_compared_across_units() -> None:
    assert sorted(("1Gi", "1G", "1024Ki", "999M", "0.5"), key=quantity_amount) == [
        "0.5", "1024Ki", "999M", "1G", "1Gi",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="not a quantity"):
        quantity_amount("Auto")


def test_what_people_write_comes_before_defaults_one_by_one() -> None:
    written = Resources.model_validate({"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}})
    assert build_resources(DEFAULTS, written) == {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}}
    assert build_resources(DEFAULTS) == {"requests": {"cpu": "500m", "memory": "1Gi"}}


def test_devices_and_claims_are_beside_the_rest() -> None:
    made = build_resources(DEFAULTS, devices={"amd.com/gpu": 2}, claims=("gpus", "nics"))
    assert made["limits"] == {"amd.com/gpu": "2"}
    assert made["claims"] == [{"name": "gpus"}, {"name": "nics"}]


def test_a_ratio_of_the_installation_limits_what_nobody_limits() -> None:
    rules = LimitRules({"cpu": "4", "memory": "1.5"})
    written = Resources.model_validate({"limits": {"memory": "8Gi"}})
    assert build_resources(DEFAULTS, written, rules)["limits"] == {"cpu": "2000m", "memory": "8Gi"}
    assert build_resources(DEFAULTS, None, rules)["limits"] == {"cpu": "2000m", "memory": "1.5Gi"}


def test_a_container_without_a_request_gets_a_limit_where_there_has_to_be_one() -> None:
    rules = LimitRules().for_pod(Resources.model_validate({"limits": {"ephemeral-storage": "50Gi"}}))
    assert build_resources(DEFAULTS, None, rules)["limits"] == {"ephemeral-storage": "2Gi"}


def test_devices_of_the_main_container_are_no_limits_of_others() -> None:
    assert LimitRules().for_pod(Resources.model_validate({"limits": {"rdma/hca": 1}})) == LimitRules()


def test_each_container_of_an_evaluation_has_the_limits_that_a_quota_counts() -> None:
    of_container = resources_by_name(evaluation_pod(gpus=1, resources=LIMITS))
    assert set(of_container) == {"sandbox", "suite-texts", "engine", "pause", "trainer"}
    for name, resources in of_container.items():
        assert resources["limits"].keys() >= COUNTED, name
        for kind, request in resources.get("requests", {}).items():
            assert quantity_amount(request) <= quantity_amount(resources["limits"].get(kind, request)), name
    assert of_container["engine"]["limits"] == LIMITS["limits"] | {"nvidia.com/gpu": "1"}
    assert of_container["sandbox"]["limits"] == {"cpu": "2", "memory": "4Gi"}


def test_without_limits_of_people_containers_keep_those_that_they_always_have() -> None:
    of_container = resources_by_name(evaluation_pod(gpus=1))
    limits = {name: resources.get("limits") for name, resources in of_container.items()}
    assert limits == {
        "sandbox": {"memory": "4Gi"},
        "suite-texts": {"memory": "2Gi"},
        "engine": {"nvidia.com/gpu": "1"},
        "pause": {"memory": "64Mi"},
        "trainer": None,
    }
    assert all(resources["requests"].keys() >= COUNTED for resources in of_container.values())


def test_containers_beside_the_engine_have_resources_of_their_own() -> None:
    own = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "8", "memory": "32Gi"}}
    pod = evaluation_pod(gpus=1, sandboxResources=own, evaluatorResources=own)
    of_container = resources_by_name(pod)
    assert of_container["sandbox"] == of_container["trainer"] == own


def test_agent_and_engine_have_the_limits_that_a_quota_counts() -> None:
    of_container = resources_by_name(serving_pod(resources=LIMITS))
    assert of_container["engine"]["limits"] == LIMITS["limits"]
    assert of_container["agent"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    }
    plain = resources_by_name(serving_pod())
    assert plain["agent"]["limits"] == {"memory": "1Gi"}
    assert plain["engine"] == {"requests": {"cpu": "250m", "memory": "1Gi"}}


def test_the_agents_resources_can_be_written() -> None:
    own = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}
    assert resources_by_name(serving_pod(agentResources=own))["agent"] == own


def test_the_agents_disk_holds_its_copies_of_adapters() -> None:
    limits = {"limits": {"ephemeral-storage": "100Gi"}}
    agent = resources_by_name(serving_pod(resources=limits, adapterCacheSize="16Gi"))["agent"]
    assert quantity_amount(agent["limits"]["ephemeral-storage"]) == 18 * 2**30


def test_a_ratio_of_the_installation_reaches_every_pod() -> None:
    rules = LimitRules({"cpu": "4", "memory": "2"})
    evaluation = evaluation_pod(replace(ENVIRONMENT, limit_rules=rules), gpus=0)
    serving = serving_pod(replace(SERVING_ENVIRONMENT, limit_rules=rules))
    for pod in (evaluation, serving):
        for name, resources in resources_by_name(pod).items():
            assert resources["limits"].keys() >= COUNTED, name


def test_the_container_that_joins_authorities_has_the_limits_that_a_quota_counts() -> None:
    private = Outbound(ca_bundle=CABundle("trust"))
    evaluation = evaluation_pod(replace(ENVIRONMENT, outbound=private), gpus=1, resources=LIMITS)
    serving = serving_pod(replace(SERVING_ENVIRONMENT, outbound=private), resources=LIMITS)
    for pod in (evaluation, serving):
        trust = resources_by_name(pod)["trust"]
        assert trust["limits"] == {"cpu": "500m", "memory": "64Mi"}
