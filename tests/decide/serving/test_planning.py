"""Records before status, pods that outlive the operator, status that is made again from the records."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from simulation.serving_world import ENVIRONMENT, UID, World, build_adapter, digest_of

from tunesmith.api.common import InvalidResource
from tunesmith.decide.plan import Apply, Create, Delete, Mount, Patch, Push, Replace
from tunesmith.manifests.environment import ServingNetwork
from tunesmith_contract.agent import DesiredState


def canary_world() -> World:
    """Version 1 is stable, version 2 was taken back, version 3 answers 5 %, and has answered some requests."""
    world = World(build_adapter("one"), build_adapter("other", name="tickets"))
    world.settle()
    world.set_adapter(build_adapter("two"))
    world.settle()
    world.pods["pod-0"].serve("expenses", digest_of("two"), 40, 40)
    world.pass_seconds(10)
    world.set_adapter(build_adapter("three"))
    world.settle()
    world.pods["pod-0"].serve("expenses", digest_of("three"), 50, 1)
    world.pass_seconds(20)
    return world


def test_records_are_written_before_pods_and_pods_are_told_after_the_record() -> None:
    world = World(build_adapter("one"))
    actions = world.reconcile().actions
    kinds = [
        f"{type(action).__name__} {action.manifest['kind']}"
        if isinstance(action, Create | Apply | Replace | Mount)
        else "Push"
        for action in actions
    ]
    assert kinds == [
        "Replace ConfigMap",  # the record
        "Mount ConfigMap",
        "Push",
        "Replace ConfigMap",  # the history
        "Create ControllerRevision",
        "Create ConfigMap",
        "Apply Service",
        "Apply Deployment",
        "Apply PodDisruptionBudget",
    ]


def test_weight_is_taken_away_before_anything_else_is_written() -> None:
    world = canary_world()
    world.set_adapter(build_adapter("more", name="tickets"))
    world.pods["pod-0"].serve("expenses", digest_of("three"), 50, 50)
    world.pass_seconds(9)
    world.now += timedelta(seconds=1)
    actions = world.reconcile().actions
    assert isinstance(actions[0], Replace) and actions[0].alias == "expenses"
    assert isinstance(actions[1], Push)
    first = {alias.name: alias for alias in actions[1].publication.desired.aliases}
    assert (first["expenses"].candidate, first["expenses"].weight) == (None, 0)


def test_a_wiped_status_comes_back_from_the_records() -> None:
    world = canary_world()
    before = world.status
    world.status = {}
    world.settle()
    for part in ("adapters", "pods", "generation", "url", "adaptersStable"):
        assert world.status[part] == before[part]
    by_type = {condition["type"]: condition["status"] for condition in before["conditions"]}
    assert {condition["type"]: condition["status"] for condition in world.status["conditions"]} == by_type


def test_the_next_step_comes_at_its_time_for_an_operator_that_knows_nothing() -> None:
    world = canary_world()
    world.status = {}
    world.pass_seconds(39)
    assert world.adapter()["candidate"]["weight"] == 5
    world.pass_seconds(1)
    assert world.adapter()["candidate"]["weight"] == 25


def test_a_lost_config_map_leaves_the_promoted_version_stable_and_generations_grow() -> None:
    world = canary_world()
    generation = world.desired.generation
    for key in [key for key in world.objects if key[1].endswith("-desired")]:
        del world.objects[key]
    world.settle()
    assert world.desired.generation > generation
    assert world.adapter()["stable"]["version"] == 1
    assert (world.adapter()["candidate"]["version"], world.adapter()["candidate"]["weight"]) == (3, 5)


def test_a_killed_operator_leaves_no_rejection_unsaid() -> None:
    world = canary_world()
    world.pods["pod-0"].serve("expenses", digest_of("three"), 50, 50)
    world.now += timedelta(minutes=1)
    plan = world.reconcile(actions=1)
    assert isinstance(plan.actions[0], Replace)
    world.set_adapter(build_adapter("four"))
    assert any(isinstance(action, Patch) for action in world.reconcile().actions)
    world.set_adapter(build_adapter("three"))
    world.settle()
    assert world.adapter()["phase"] == "RolledBack"


def test_an_operator_upgrade_replaces_no_pod() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.environment = replace(ENVIRONMENT, serving_image="registry/serving:2", ca_bundle="NEW PEM")
    before = world.find("Deployment")
    generation = world.desired.generation
    world.settle()
    assert world.find("Deployment") == before
    assert world.desired.generation == generation
    assert "NEW PEM" in str(world.of_kind("ConfigMap"))


def test_another_engine_image_is_taken_once_it_is_written() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.spec = world.spec | {
        "engine": {"gpus": 0, "image": "registry/mine:1", "updateStrategy": "StartFirst"}
    }
    world.settle()
    deployment = world.find("Deployment")
    assert deployment is not None
    pod = deployment["spec"]["template"]["spec"]
    assert {container["image"] for container in pod["containers"] + pod["initContainers"]} == {
        "registry/mine:1"
    }


def test_replicas_are_changed_without_touching_the_pods_template() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.spec = world.spec | {"replicas": 1}
    actions = world.reconcile().actions
    assert [type(action).__name__ for action in actions] == ["Patch", "Delete"]
    assert isinstance(actions[0], Patch) and actions[0].patch["spec"]["replicas"] == 1


def test_a_service_of_someone_else_is_left_alone() -> None:
    world = World(build_adapter("one"))
    world.objects["Service", "assistants"] = {"metadata": {"name": "assistants", "ownerReferences": []}}
    world.settle()
    assert world.condition("Stalled")["reason"] == "ServiceNameTaken"
    service = world.find("Service")
    assert service is not None
    assert service["metadata"]["ownerReferences"] == []


def test_an_agent_that_is_behind_is_told_again() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.pods["pod-0"].restart_agent()
    assert [type(action) for action in world.reconcile().actions] == [Push]
    assert world.reconcile().actions == ()


def test_an_agent_that_a_new_operator_has_told_nothing_is_told() -> None:
    """It may have all that it kept, and yet waits for the operator's word."""
    world = World(build_adapter("one"))
    world.settle()
    world.pods["pod-0"].told = False
    assert [type(action) for action in world.reconcile().actions] == [Push]
    assert world.reconcile().actions == ()


def test_a_version_that_cannot_be_proved_is_promoted_and_said_once() -> None:
    world = World(build_adapter("one"))
    world.unproven[digest_of("one")] = "its effect is small"
    world.settle()
    assert world.adapter()["phase"] == "Stable"
    assert world.adapter()["reason"] == "Unproven"
    assert world.condition("Ready")["status"] == "True"
    world.pass_seconds(60)
    said = [event for event in world.events if event.reason == "Unproven"]
    assert [event.message for event in said] == [
        f"expenses: version 1 ({digest_of('one')[7:19]}) answers all requests; its effect is small"
    ]


def test_numbers_alone_are_written_every_ten_seconds_at_most() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.pods["pod-0"].aliases = {}
    world.pass_seconds(1)
    assert world.adapter()["stable"]["loadedOn"] == 2
    world.pass_seconds(9)
    assert world.adapter()["stable"]["loadedOn"] == 1


def test_status_says_that_a_version_answers_when_a_ready_pod_has_confirmed_it() -> None:
    world = World(build_adapter("one"))
    world.reconcile()
    for pod in world.pods.values():
        pod.is_slow = True
    world.settle()
    assert world.record().stable is not None
    assert world.adapter()["phase"] == "Progressing"
    assert world.condition("Ready")["status"] == "False"
    world.pods["pod-1"].is_slow = False
    world.pods["pod-1"].take(world.desired)
    world.settle()
    assert world.adapter()["phase"] == "Stable"


def test_the_change_of_one_alias_leaves_the_others_stable_meanwhile() -> None:
    world = World(build_adapter("one"), build_adapter("red", "tickets"))
    world.settle()
    world.set_adapter(build_adapter("blue", "tickets"))
    for pod in world.pods.values():
        pod.is_slow = True
    world.settle()
    assert world.adapter()["phase"] == "Stable"


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": 'persistentvolumeclaim "artifacts" not found',
                    }
                ]
            },
            "VolumeClaimNotFound",
            '"artifacts" not found',
        ),
        (
            {
                "initContainerStatuses": [
                    {
                        "name": "engine",
                        "state": {
                            "waiting": {
                                "reason": "CreateContainerConfigError",
                                "message": 'secret "hub-token" not found',
                            }
                        },
                    }
                ]
            },
            "SecretNotFound",
            '"hub-token" not found',
        ),
        (
            {
                "initContainerStatuses": [
                    {"name": "engine", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}
                ]
            },
            "ImageNotPulled",
            "container engine: ImagePullBackOff",
        ),
    ],
)
def test_what_a_pod_lacks_is_named(status: dict[str, Any], reason: str, said: str) -> None:
    world = World(build_adapter("one"), pods=1, replicas=1)
    world.reconcile()
    name, deployment = next((key, body) for key, body in world.objects.items() if key[0] == "Deployment")
    world.objects[name] = deployment | {"status": {}}
    pod = world.pods["pod-0"].to_body() | {"status": status}
    world.pods["pod-0"].to_body = lambda: pod  # type: ignore[method-assign]
    world.reconcile()
    assert world.condition("Ready")["reason"] == reason
    assert said in world.condition("Ready")["message"]
    assert said in world.status["pods"][0]["message"]


def test_a_pod_whose_engine_does_not_answer_is_named() -> None:
    world = World(build_adapter("one"))
    world.settle()
    name, deployment = next((key, body) for key, body in world.objects.items() if key[0] == "Deployment")
    world.objects[name] = deployment | {"status": {**deployment["status"], "availableReplicas": 1}}
    pod = world.pods["pod-1"]
    pod.ready = pod.engine_ready = False
    world.reconcile()
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "EngineStarting")
    assert ready["message"] == "1 of 2 pods are ready; no engine answers in pod-1"
    assert "engine" in world.status["pods"][1]["message"] and "message" not in world.status["pods"][0]
    pod.connected = False
    world.pass_seconds(20)
    assert world.condition("Ready")["message"] == "1 of 2 pods are ready", "nobody knows any more"


def test_an_empty_deployment_is_ready() -> None:
    world = World()
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.desired.model_copy(update={"peers": ()}) == DesiredState(generation=1)
    assert UID not in world.status["url"]


def test_numbers_are_written_by_a_clock_that_was_set_back() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.pass_seconds(10)
    world.slow.add(digest_of("one"))
    world.jump(-600)
    world.settle()
    assert world.adapter()["stable"]["loadedOn"] == 0


def test_another_secret_for_artifacts_replaces_the_pods_and_the_same_one_does_not() -> None:
    engine = {"gpus": 0, "updateStrategy": "StopFirst"}
    world = World(build_adapter("one"), artifactSecretRef={"name": "old"}, engine=engine)
    world.settle()
    assert not world.reconcile().actions
    for reference in ({"name": "new"}, None):
        world.spec = world.spec | {"artifactSecretRef": reference}
        [action] = world.reconcile().actions
        assert isinstance(action, Apply) and action.manifest["kind"] == "Deployment"
        assert not world.reconcile().actions


def test_another_access_log_replaces_the_pods_and_the_default_one_does_not() -> None:
    world = World(build_adapter("one"), engine={"gpus": 0, "updateStrategy": "StopFirst"})
    world.settle()
    world.spec = world.spec | {"telemetry": {"accessLogs": "Errors"}}
    assert not world.reconcile().actions
    for access_logs in ("All", "Errors"):
        world.spec = world.spec | {"telemetry": {"accessLogs": access_logs}}
        [action] = world.reconcile().actions
        assert isinstance(action, Apply) and action.manifest["kind"] == "Deployment"
        assert not world.reconcile().actions


def test_an_image_of_the_first_release_keeps_its_one_port_until_another_one_is_chosen() -> None:
    world = World(build_adapter("one"))
    world.settle()
    name = next(key[1] for key in world.objects if key[0] == "ConfigMap" and key[1].endswith("-inputs-1"))
    first_release = json.dumps({"requested": "", "image": "registry/serving:1", "onGpus": False})
    world.edit(name, "inputs.json", first_release)
    world.environment = replace(ENVIRONMENT, serving_image="registry/serving:2")
    for engine, image, ports in (
        ({"maxRank": 8}, "registry/serving:1", {8000}),
        ({"image": "registry/serving:2"}, "registry/serving:2", {8000, 8002}),
    ):
        world.spec = world.spec | {"engine": {"gpus": 0, "updateStrategy": "StopFirst", **engine}}
        world.settle()
        deployment = world.find("Deployment")
        assert deployment is not None
        [agent] = deployment["spec"]["template"]["spec"]["containers"]
        assert agent["image"] == image
        assert {port["containerPort"] for port in agent["ports"]} == ports


def test_a_network_policy_comes_before_the_pods_and_goes_when_the_installation_has_none() -> None:
    world = World(build_adapter("one"))
    world.environment = replace(ENVIRONMENT, serving_network=ServingNetwork(({"podSelector": {}},)))
    kinds = [action.manifest["kind"] for action in world.reconcile().actions if isinstance(action, Apply)]
    assert kinds.index("NetworkPolicy") < kinds.index("Deployment")
    world.settle()
    assert not world.reconcile().actions
    world.environment = ENVIRONMENT
    [action] = world.reconcile().actions
    assert isinstance(action, Delete) and action.kind == "NetworkPolicy"


def test_rollouts_go_on_where_a_later_release_refuses_an_argument_that_was_written_before() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.set_adapter(build_adapter("two"))
    world.spec = world.spec | {"engine": {"gpus": 0, "args": ["--enforce-eager", "--middleware=mine"]}}
    world.settle()
    stalled = world.condition("Stalled")
    assert stalled["status"] == "True" and "spec.engine.args[1]" in stalled["message"]
    assert len(world.of_kind("Deployment")) == 1
    assert world.adapter()["candidate"]["weight"] == 5
    world.pods["pod-0"].serve("expenses", digest_of("two"), 40, 40)
    world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"
    world.spec = world.spec | {"engine": {"gpus": 0, "args": ["--enforce-eager"]}}
    world.settle()
    assert world.condition("Stalled")["message"] != stalled["message"]
    assert len(world.of_kind("Deployment")) == 2


def test_other_faults_of_a_stored_resource_are_named_together() -> None:
    world = World(build_adapter("one"))
    world.spec = world.spec | {"replicas": -1, "engine": {"gpus": 0, "args": ["--middleware=mine"]}}
    with pytest.raises(InvalidResource, match=r"(?s)replicas.*args\[0\]"):
        world.settle()
