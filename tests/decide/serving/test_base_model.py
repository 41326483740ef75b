"""Change of the base model: its pods take over all aliases at once, with versions that were trained on it."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases
from simulation.serving_world import FakePod, World, build_adapter, digest_of

from tunesmith.manifests.serving_deployment import base_model_uri, set_number
from tunesmith.manifests.serving_service import selected_set
from tunesmith_contract.agent import FEATURES, OTHER

OLD, NEW = "pvc://models/base", "pvc://models/larger"
NAMES = ("expenses", "tickets")


def build_world(**spec: Any) -> World:
    """Two aliases with versions for the old model; "two" and "three" are for the new one."""
    world = World(*(build_adapter("one", name) for name in NAMES), pods=0, **spec)
    world.trained_on = {digest_of("one"): OLD, digest_of("two"): NEW, digest_of("three"): NEW}
    world.runs_pods = True
    world.settle()
    world.settle()
    return world


def change(world: World, uri: str = NEW, **words: str) -> None:
    """Apply another base model, with other artifacts of some adapters."""
    world.spec = world.spec | {"baseModel": {"uri": uri}}
    for name, word in words.items():
        world.set_adapter(build_adapter(word, name))


def selected(world: World) -> int:
    service = world.find("Service")
    assert service is not None
    return selected_set(service)


def stable_words(world: World) -> dict[str, str]:
    words = {digest_of(word): word for word in ("one", "two", "three")}
    return {alias.name: words[alias.stable.digest] if alias.stable else "" for alias in world.desired.aliases}


def answers(world: World) -> dict[str, set[str]]:
    """What the pods that the Service selects have active, by alias; only what all of them have."""
    found: dict[str, set[str]] = {}
    for name in NAMES:
        held = [
            {
                version.digest
                for version in world.report(pod).versions
                if version.alias == name and version.state == "Active"
            }
            for pod in world.selected_pods()
        ]
        found[name] = set.intersection(*held) if held else set()
    return found


def test_all_aliases_change_at_once_and_each_pod_answers_with_versions_for_its_model() -> None:
    world = build_world()
    change(world, expenses="two", tickets="three")
    world.reconcile()
    world.run_pods()
    assert selected(world) == 1
    assert stable_words(world) == {"expenses": "one", "tickets": "one"}
    assert world.adapter()["reason"] == "WaitingForSwitch"
    world.settle()
    assert selected(world) == 3
    assert stable_words(world) == {"expenses": "two", "tickets": "three"}
    assert answers(world) == {"expenses": {digest_of("two")}, "tickets": {digest_of("three")}}
    assert {adapter["phase"] for adapter in world.status["adapters"]} == {"Stable"}
    assert [past["version"] for past in world.adapter()["history"]] == [2, 1]
    world.settle()
    assert len(world.of_kind("Deployment")) == 1, "pods on the former model stay for open connections"
    assert world.desired.other is None


def test_whoever_is_connected_to_a_former_pod_gets_answers_until_it_is_gone() -> None:
    world = build_world()
    change(world, expenses="two", tickets="three")
    world.reconcile()
    world.run_pods()
    former: list[FakePod] = [pod for pod in world.pods.values() if pod.base_model == OLD]
    for _ in range(5):
        world.reconcile()
        assert all(pod.aliases == dict.fromkeys(NAMES, (digest_of("one"),)) for pod in former)
    assert selected(world) == 3
    assert stable_words(world) == {"expenses": "two", "tickets": "three"}


def test_an_alias_without_a_version_for_the_model_is_named_and_no_pod_starts() -> None:
    world = build_world()
    adapter = build_adapter("two", "tickets") | {"requireEvalRun": {"verdict": "Pass"}}
    world.set_adapter(adapter)
    change(world, expenses="three")
    world.settle()
    assert len(world.of_kind("Deployment")) == 1
    waits = world.condition("Reconciling")
    assert waits["reason"] == "NoPassingEvalRun"
    assert "tickets" in waits["message"] and NEW in waits["message"]
    world.judge("run", "two", "Pass")
    world.settle()
    world.settle()
    assert stable_words(world) == {"expenses": "three", "tickets": "two"}


def test_an_artifact_of_the_former_model_stalls_the_change_by_name_and_the_old_pods_answer() -> None:
    world = build_world()
    change(world, expenses="two")
    world.settle()
    stalled = world.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "Incompatible")
    assert "tickets: version 1" in stalled["message"] and "WrongBaseModel" in stalled["message"]
    assert selected(world) == 1
    assert answers(world) == {name: {digest_of("one")} for name in NAMES}
    change(world, tickets="three")
    world.settle()
    assert selected(world) != 1
    assert stable_words(world) == {"expenses": "two", "tickets": "three"}


def test_the_same_model_at_another_place_keeps_the_versions() -> None:
    world = build_world()
    world.trained_on = {}
    change(world, "pvc://artifacts/copy-of-base")
    world.generation += 1
    world.settle()
    world.settle()
    assert selected(world) == 2
    assert {adapter["stable"]["version"] for adapter in world.status["adapters"]} == {1}


def test_a_rollout_in_progress_is_left_and_its_version_not_rejected() -> None:
    world = build_world()
    world.trained_on.pop(digest_of("two"))
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert world.adapter()["candidate"]["weight"] == 5
    change(world, tickets="three")
    world.settle()
    world.settle()
    assert stable_words(world) == {"expenses": "two", "tickets": "three"}
    assert not world.adapter()["rejected"]


def test_a_change_back_before_the_switch_goes_on_with_the_old_versions() -> None:
    world = build_world()
    change(world, expenses="two")
    world.settle()
    change(world, OLD, expenses="one")
    world.settle()
    assert len(world.of_kind("Deployment")) == 1
    assert stable_words(world) == dict.fromkeys(NAMES, "one")
    assert world.condition("Ready")["status"] == "True"
    assert world.desired.other is None


def test_an_undo_meanwhile_goes_on_with_the_pods_that_answer() -> None:
    world = build_world()
    world.trained_on.pop(digest_of("two"))
    for word in ("two", "tenth"):
        world.set_adapter(build_adapter(word, rollout={"steps": [{"weight": 100}], "rollbackWindow": "0s"}))
        world.settle()
    world.slow = {digest_of("one"), digest_of("three")}
    change(world, expenses="three", tickets="three")
    world.reconcile()
    assert world.ask("undo", toVersion=1)["result"] == "Done"
    for _ in range(3):
        world.reconcile()
    assert "Withdrawn" not in world.reasons()
    assert world.reasons().count("Loading") == 5, "the version of the undo was loaded again and again"
    world.slow.remove(digest_of("one"))
    world.reconcile()
    assert stable_words(world)["expenses"] == "one"
    world.slow.clear()
    world.settle()
    world.settle()
    assert stable_words(world) == dict.fromkeys(NAMES, "three")


def test_an_undo_to_a_version_on_the_former_model_is_refused_with_what_to_write() -> None:
    world = build_world()
    change(world, expenses="two", tickets="three")
    world.settle()
    world.settle()
    assert stable_words(world) == {"expenses": "two", "tickets": "three"}
    refused = world.ask("undo", toVersion=1)
    assert refused["result"] == "Refused"
    assert f"write baseModel.uri: {OLD} and name pvc://artifacts/one as source" in refused["message"]
    refused = world.ask("undo", "no-version")
    assert refused["message"] == f"it names no version that served before on {NEW}; these did: none"
    assert world.condition("Ready")["status"] == "True"
    # What the message says brings it back.
    change(world, OLD, expenses="one", tickets="one")
    world.settle()
    world.settle()
    assert stable_words(world) == dict.fromkeys(NAMES, "one")


def test_an_undo_on_the_same_model_at_another_place_goes_back_over_the_move() -> None:
    world = build_world()
    world.trained_on = {}
    change(world, "pvc://artifacts/copy-of-base")
    world.settle()
    world.settle()
    world.set_adapter(build_adapter("two", rollout={"steps": [{"weight": 100}], "rollbackWindow": "0s"}))
    world.settle()
    assert stable_words(world)["expenses"] == "two"
    assert world.ask("undo")["result"] == "Done"
    assert stable_words(world)["expenses"] == "one"


def test_behind_a_service_of_someone_else_no_pods_on_another_model_start() -> None:
    world = build_world()
    name = "assistants"
    foreign = {"kind": "Service", "metadata": {"name": name, "ownerReferences": []}}
    own, world.objects["Service", name] = world.objects["Service", name], foreign
    change(world, expenses="two", tickets="three")
    world.settle()
    world.settle()
    assert len(world.of_kind("Deployment")) == 1
    assert world.condition("Stalled")["reason"] == "ServiceNameTaken"
    assert "Switched" not in world.reasons()
    world.objects["Service", name] = own
    world.settle()
    world.settle()
    assert stable_words(world) == {"expenses": "two", "tickets": "three"}


def test_a_claim_of_one_pod_is_named_where_it_keeps_the_other_pods_from_starting() -> None:
    world = build_world(replicas=1)
    world.claims = {"artifacts": ("ReadWriteOncePod",)}
    world.spec["engine"] = {"gpus": 0}
    change(world, expenses="two", tickets="three")
    world.reconcile()
    world.run_pods()
    for pod in world.pods.values():
        if pod.base_model == NEW:
            pod.connected = pod.ready = False
            pod.unschedulable = "node has pod using PersistentVolumeClaim with ReadWriteOncePod access mode"
    world.reconcile()
    stalled = world.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "ClaimNotShared")
    assert "can't start beside the others" in stalled["message"] and '"artifacts"' in stalled["message"]


def test_agents_that_do_not_know_of_two_models_do_not_take_over() -> None:
    world = build_world()
    change(world, expenses="two", tickets="three")
    world.reconcile()
    world.run_pods()
    lacking = tuple(feature for feature in FEATURES if feature != OTHER)
    for pod in world.pods.values():
        if pod.base_model == NEW:
            pod.restart_agent()
            pod.features = lacking
    world.settle()
    assert world.condition("Stalled")["reason"] == "AgentsOutdated"
    assert selected(world) == 1
    assert answers(world) == {name: {digest_of("one")} for name in NAMES}


@settings(max_examples=cases(10, 500), deadline=None)
@given(
    kills=st.lists(st.integers(0, 14), max_size=12),
    back=st.none() | st.integers(0, 12),
)
def test_an_operator_killed_between_any_two_actions_mixes_nothing(kills: list[int], back: int | None) -> None:
    """There and, at any moment, back again."""
    world = build_world()
    change(world, expenses="two", tickets="three")
    models = {1: OLD}
    for number, actions in enumerate([*kills, 99, 99, 99, 99]):
        if number == back:
            change(world, OLD, expenses="one", tickets="one")
        world.reconcile(actions)
        models |= {set_number(body): base_model_uri(body) for body in world.of_kind("Deployment")}
        expected = {"one"} if models[selected(world)] == OLD else {"two", "three"}
        for digests in answers(world).values():
            assert digests & {digest_of(word) for word in expected}, "no version, or one of the other model"
        world.run_pods()
    for _ in range(3):
        world.settle()
    went_back = back is not None and back < len(kills) + 4
    words = {"expenses": "one", "tickets": "one"} if went_back else {"expenses": "two", "tickets": "three"}
    assert stable_words(world) == words
    assert len(world.of_kind("Deployment")) == 1
