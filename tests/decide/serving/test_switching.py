"""Change of engine, image or Secret: a second set of pods takes over when it holds all that the first one serves."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from long_form import cases
from simulation.serving_world import ENVIRONMENT, FakePod, World, build_adapter, digest_of

from tunesmith.decide.plan import Apply, Delete
from tunesmith.decide.serving.planning import plan_serving
from tunesmith.manifests.serving_deployment import serving_image, set_number
from tunesmith.manifests.serving_service import selected_set

FIRST, SECOND, THIRD = "registry/serving:1", "registry/mine:2", "registry/mine:3"
#: Labels of the Deployment and the Service of earlier releases.
EARLIER_SELECTOR = {"tunesmith.dev/owner-uid", "tunesmith.dev/stage"}


def build_world(*adapters: dict[str, Any], **spec: Any) -> World:
    world = World(*(adapters or [build_adapter("one")]), pods=0, **spec)
    world.runs_pods = True
    world.settle()
    world.settle()
    return world


def images(world: World) -> dict[int, str]:
    return {set_number(body): serving_image(body) for body in world.of_kind("Deployment")}


def selected(world: World) -> int:
    service = world.find("Service")
    assert service is not None
    return selected_set(service)


def roles(world: World) -> dict[int, str]:
    return {each["number"]: each["role"] for each in world.status["sets"]}


def test_a_new_set_answers_once_its_pods_hold_all_that_gets_requests() -> None:
    world = build_world()
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert world.adapter()["candidate"]["weight"] == 5
    world.forgetful.add(SECOND)
    world.change_engine(image=SECOND)
    world.settle()
    assert images(world) == {1: FIRST, 3: SECOND}
    assert (selected(world), roles(world)) == (1, {1: "Serving", 3: "Next"})
    assert world.condition("Reconciling")["reason"] == "WarmingUp"
    assert world.status["nextSet"] == "0/2"
    weight = world.adapter()["candidate"]["weight"]

    world.forgetful.clear()
    world.settle()
    assert (selected(world), roles(world)) == (3, {1: "Former", 3: "Serving"})
    assert world.adapter()["candidate"]["weight"] == weight, "a conversation changed sides by the switch"
    assert "nextSet" not in world.status
    assert [reason for reason in world.reasons() if reason in ("WarmingUp", "Switched")] == [
        "WarmingUp",
        "Switched",
    ]


def begin_second_set_after_promotion(**rollout: Any) -> World:
    """Version 2 was promoted a moment ago; the pods of a second set are ready but for version 1, which loads."""
    quick = {"steps": [{"weight": 100}], "analysis": {"minimumRequests": 0}, **rollout}
    world = build_world(build_adapter("one", rollout=quick))
    world.set_adapter(build_adapter("two", rollout=quick))
    world.settle()
    assert world.adapter()["previous"]["digest"] == digest_of("one")
    world.slow.add(digest_of("one"))
    world.change_engine(image=SECOND)
    world.settle()
    return world


def test_a_set_answers_once_it_also_holds_what_an_undo_needs_at_once() -> None:
    world = begin_second_set_after_promotion()
    assert (selected(world), world.status["nextSet"]) == (1, "0/2")
    world.slow.clear()
    world.settle()
    assert selected(world) == 3
    assert world.ask("undo")["result"] == "Done"
    assert world.adapter()["stable"]["digest"] == digest_of("one")


def test_a_previous_version_that_can_not_be_loaded_holds_up_no_set() -> None:
    world = begin_second_set_after_promotion()
    world.failing[digest_of("one")] = ("ArtifactNotFound", "it is gone")
    world.settle()
    assert selected(world) == 3


def test_a_previous_version_is_waited_for_until_the_progress_deadline() -> None:
    world = begin_second_set_after_promotion(progressDeadline="5m", rollbackWindow="2h")
    world.pass_seconds(290)
    assert selected(world) == 1
    world.pass_seconds(20)
    assert selected(world) == 3


def test_pods_that_lack_the_previous_version_answer_where_nobody_else_does() -> None:
    world = begin_second_set_after_promotion()
    for pod in world.pods.values():
        pod.ready = set_number(pod.to_body()) != 1
    world.reconcile()
    assert selected(world) == 3


def counted(world: World) -> int:
    """Requests of the candidate in its step."""
    candidate = world.record().candidate
    assert candidate is not None
    return candidate.evidence.candidate.total.requests


def test_requests_are_counted_once_where_a_former_pod_comes_back_to_a_new_operator() -> None:
    world = build_world()
    world.set_adapter(build_adapter("two"))
    world.settle()
    world.change_engine(image=SECOND)
    world.settle()
    assert (selected(world), world.adapter()["candidate"]["weight"]) == (3, 5)
    world.set_adapter(build_adapter("two", paused=True))
    former = next(pod for pod in world.pods.values() if set_number(pod.to_body()) == 1)
    former.serve("expenses", digest_of("two"), 10)
    world.pass_seconds(20)
    assert counted(world) == 10
    world.selected_pods()[0].serve("expenses", digest_of("two"), 1)
    world.now += timedelta(seconds=20)
    observed = world.observe()
    heard = tuple(agent for agent in observed.agents if agent.report.pod_uid != former.uid)
    world.carry_out(
        plan_serving(world.resource, replace(observed, agents=heard), world.now, world.environment)
    )
    assert counted(world) == 11
    world.pass_seconds(20)
    assert counted(world) == 11


@pytest.mark.parametrize(
    "telemetry", [{"accessLogs": "All"}, {"traces": {"endpoint": "http://otel:4318/v1/traces"}}]
)
def test_other_telemetry_is_written_by_other_pods(telemetry: dict[str, Any]) -> None:
    world = build_world()
    world.spec = world.spec | {"telemetry": telemetry}
    world.generation += 1
    world.settle()
    assert selected(world) == 2
    world.settle()
    assert set(images(world)) == {1, 2}, "one more set"


def test_a_label_that_somebody_wrote_concerns_its_pod_alone() -> None:
    world = build_world()
    name = next(iter(world.pods))
    world.pods[name].labels = world.pods[name].labels | {"tunesmith.dev/set": "mine"}
    world.reconcile()
    assert world.status["replicas"] == 1


def test_the_former_set_stays_for_its_time_and_takes_part_in_the_rollout() -> None:
    world = build_world()
    world.change_engine(image=SECOND, scaleDownDelay="5m")
    world.settle()
    assert selected(world) == 2
    world.set_adapter(build_adapter("two"))
    world.pass_seconds(240)
    assert set(images(world)) == {1, 2}
    assert all(digest_of("two") in pod.aliases["expenses"] for pod in world.pods.values())
    world.pass_seconds(80)
    assert images(world) == {2: SECOND}
    assert len(world.pods) == 2


def test_a_change_back_within_the_time_needs_no_new_pod() -> None:
    world = build_world()
    world.change_engine(image=SECOND)
    world.settle()
    pods = {pod.uid for pod in world.pods.values()}
    world.change_engine(image=None)
    world.reconcile()
    assert selected(world) == 1
    world.settle()
    assert {pod.uid for pod in world.pods.values()} == pods
    assert roles(world) == {1: "Serving", 2: "Former"}
    world.pass_seconds(700)
    assert images(world) == {1: FIRST}


def test_a_change_back_before_the_switch_removes_the_set_that_began() -> None:
    world = build_world()
    world.unstartable.add(SECOND)
    world.change_engine(image=SECOND)
    world.settle()
    assert set(images(world)) == {1, 2}
    world.change_engine(image=None)
    world.settle()
    assert images(world) == {1: FIRST}
    assert world.condition("Ready")["status"] == "True"


def test_a_third_engine_replaces_the_one_that_never_answered() -> None:
    world = build_world()
    world.unstartable.add(SECOND)
    world.change_engine(image=SECOND)
    world.settle()
    world.change_engine(image=THIRD)
    actions = [action for action in world.reconcile().actions if isinstance(action, Apply | Delete)]
    assert [type(action) for action in actions] == [Delete, Apply], "there would be three sets"
    world.settle()
    assert images(world) == {1: FIRST, 3: THIRD}
    world.settle()
    assert selected(world) == 3


def test_pods_that_never_start_leave_the_others_answering_and_are_said() -> None:
    world = build_world()
    world.unstartable.add(SECOND)
    world.change_engine(image=SECOND)
    world.settle()
    deployment = world.objects["Deployment", "assistants-0f3c9d-serving-2"]
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    deployment["status"]["conditions"] = [late]
    world.pass_seconds(10)
    stalled = world.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "ProgressDeadlineExceeded")
    assert "assistants-0f3c9d-serving answers meanwhile" in stalled["message"]
    assert world.condition("Available")["status"] == "True"
    assert world.reasons().count("ProgressDeadlineExceeded") == 1
    assert selected(world) == 1


def test_a_version_that_the_new_engine_refuses_stalls_the_switch_at_once() -> None:
    world = build_world()
    world.change_engine(maxRank=8)
    world.reconcile()
    world.run_pods()
    world.failing[digest_of("one")] = ("RankTooLarge", "write engine.maxRank: 16")
    world.permanent.add(digest_of("one"))
    for pod in world.pods.values():
        if pod.name.startswith("assistants-0f3c9d-serving-2"):
            continue
        pod.connected = False
    world.reconcile()
    stalled = world.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "Incompatible")
    assert "expenses: version 1" in stalled["message"] and "maxRank: 16" in stalled["message"]
    assert selected(world) == 1


def test_gpus_for_a_second_set_are_counted_when_they_are_missing() -> None:
    world = build_world(replicas=3, engine={"gpus": 2, "gpuMemory": "80Gi"})
    world.change_engine(maxRank=8)
    world.reconcile()
    world.run_pods()
    for pod in world.pods.values():
        if "serving-2" in pod.name:
            pod.ready, pod.connected, pod.unschedulable = (
                False,
                False,
                "0/3 nodes: Insufficient nvidia.com/gpu",
            )
    world.reconcile()
    waits = world.condition("Reconciling")
    assert waits["reason"] == "WaitingForGPU"
    assert "6 in all" in waits["message"] and "updateStrategy: StopFirst" in waits["message"]
    world.change_engine(updateStrategy="StopFirst")
    world.settle()
    assert set(images(world)) == {1}
    assert world.condition("Ready")["status"] == "True"


@pytest.mark.parametrize(
    ("strategy", "claims", "sets"),
    [
        ("Auto", {"artifacts": ("ReadWriteMany",), "models": ("ReadOnlyMany",)}, 2),
        ("Auto", {"artifacts": ("ReadWriteOncePod",), "models": ("ReadOnlyMany",)}, 1),
        ("SecondSet", {"artifacts": ("ReadWriteOncePod",), "models": ("ReadOnlyMany",)}, 2),
        ("StartFirst", None, 1),
        ("StopFirst", None, 1),
    ],
)
def test_the_order_of_updates_decides(strategy: str, claims: dict[str, Any] | None, sets: int) -> None:
    world = build_world(replicas=1)
    world.claims = claims
    world.change_engine(updateStrategy=strategy, image=SECOND)
    world.reconcile()
    assert len(images(world)) == sets
    if sets == 1:
        assert images(world) == {1: SECOND}


def test_another_number_of_replicas_meets_both_sets_and_no_switch_lowers_it() -> None:
    world = build_world(replicas=2)
    world.unstartable.add(SECOND)
    world.change_engine(image=SECOND)
    world.settle()
    world.spec = world.spec | {"replicas": 3}
    world.settle()
    assert {body["spec"]["replicas"] for body in world.of_kind("Deployment")} == {3}
    world.unstartable.clear()
    world.run_pods()
    world.pods["assistants-0f3c9d-serving-2-0"].ready = False
    world.reconcile()
    assert selected(world) == 1
    world.pods["assistants-0f3c9d-serving-1"].ready = False
    world.reconcile()
    assert selected(world) == 2, "as many as answered"


def test_without_replicas_there_is_nothing_to_wait_for() -> None:
    world = build_world(replicas=0)
    world.change_engine(image=SECOND)
    world.settle()
    world.settle()
    assert selected(world) == 2


def test_the_former_set_answers_again_while_no_pod_of_the_new_one_is_ready() -> None:
    world = build_world()
    world.change_engine(image=SECOND)
    world.settle()
    world.unstartable.add(SECOND)
    world.run_pods()
    world.reconcile()
    assert selected(world) == 1
    assert "SwitchedBack" in world.reasons()
    world.reconcile()
    assert world.condition("Available")["status"] == "True"
    world.unstartable.clear()
    world.run_pods()
    world.settle()
    assert selected(world) == 2


def test_a_restarted_operator_does_not_switch_before_it_has_heard_the_old_pods() -> None:
    world = build_world()
    world.forgetful.add(SECOND)
    world.change_engine(image=SECOND)
    world.settle()
    for pod in world.pods.values():
        pod.connected = "serving-2" in pod.name
    world.reconcile()
    assert selected(world) == 1


def test_pods_that_have_not_heard_of_the_latest_weights_do_not_answer_yet() -> None:
    world = build_world()
    world.change_engine(image=SECOND)
    world.reconcile()
    world.run_pods()
    next_pods = [pod for pod in world.pods.values() if "serving-2" in pod.name]
    applied = next_pods[0].generation
    for pod in next_pods:
        pod.generation = applied - 1
    status = world.reconcile(actions=0).status
    assert status is not None and status["nextSet"] == "0/2"
    world.settle()
    assert selected(world) == 2


def test_pods_of_the_next_set_decide_no_rollout() -> None:
    world = build_world()
    world.change_engine(image=SECOND)
    world.reconcile()
    world.run_pods()
    world.set_adapter(build_adapter("two"))
    for pod in world.pods.values():
        if "serving-2" in pod.name:
            pod.refuting[digest_of("two")] = "the new engine reads it differently"
    world.reconcile()
    world.reconcile()
    assert world.adapter()["phase"] != "RolledBack"


def as_of_an_earlier_release(world: World) -> None:
    """The objects as an operator of the first release left them."""
    world.objects.pop(("PodDisruptionBudget", "assistants-0f3c9d-serving"))
    for body in world.objects.values():
        if body["kind"] == "Service":
            selector = body["spec"]["selector"]
            body["spec"]["selector"] = {key: selector[key] for key in EARLIER_SELECTOR}
            body["metadata"]["annotations"]["tunesmith.dev/applied"] = "sha256:other"


def test_the_deployment_of_an_earlier_release_is_the_set_that_answers() -> None:
    world = build_world()
    as_of_an_earlier_release(world)
    pods, before = dict(world.pods), world.find("Deployment")
    assert before is not None and set(before["spec"]["selector"]["matchLabels"]) == EARLIER_SELECTOR
    world.settle()
    assert (world.pods, world.find("Deployment")) == (pods, before)
    assert {pod.name for pod in world.selected_pods()} == set(pods)


def test_the_service_leaves_out_the_next_set_before_that_one_begins() -> None:
    world = build_world()
    as_of_an_earlier_release(world)
    world.forgetful.add(SECOND)
    world.change_engine(image=SECOND)
    kinds = [action.manifest["kind"] for action in world.reconcile().actions if isinstance(action, Apply)]
    assert kinds.index("Service") < kinds.index("Deployment")
    world.settle()
    assert {pod.name for pod in world.selected_pods()} == {
        "assistants-0f3c9d-serving-0",
        "assistants-0f3c9d-serving-1",
    }


def test_an_operator_of_the_first_release_finds_the_pods_of_a_later_set() -> None:
    world = build_world()
    world.change_engine(image=SECOND, scaleDownDelay="0s")
    world.settle()
    world.settle()
    assert images(world) == {2: SECOND}
    earlier = {"tunesmith.dev/owner-uid": world.uid, "tunesmith.dev/stage": "serving"}
    assert all(earlier.items() <= pod.labels.items() for pod in world.pods.values())
    as_of_an_earlier_release(world)
    world.settle()
    assert selected(world) == 2
    assert images(world) == {2: SECOND}


def test_the_budget_guards_the_pods_that_answer() -> None:
    world = build_world()
    world.change_engine(image=SECOND)
    world.settle()
    world.settle()
    budget = world.find("PodDisruptionBudget")
    assert budget is not None
    labels = budget["spec"]["selector"]["matchLabels"]
    assert {pod.name for pod in world.pods.values() if labels.items() <= pod.labels.items()} == {
        pod.name for pod in world.selected_pods()
    }


def test_another_address_of_the_operator_is_no_other_engine() -> None:
    world = build_world()
    world.environment = replace(ENVIRONMENT, operator_url="https://elsewhere:8443")
    world.settle()
    assert images(world) == {1: FIRST}
    assert "https://elsewhere:8443" in str(world.find("Deployment"))


class SwitchMachine(RuleBasedStateMachine):
    """An engine that changes again and again, pods that come and go, an operator killed between any two actions."""

    @initialize(replicas=st.integers(1, 3))
    def begin(self, replicas: int) -> None:
        self.world = World(
            build_adapter("one"), build_adapter("one", name="tickets"), replicas=replicas, pods=0
        )
        self.reconcile(99)
        self.start_pods()

    # What people and clusters do.

    @rule(
        change=st.sampled_from(
            [
                ("image", None),
                ("image", SECOND),
                ("image", THIRD),
                ("updateStrategy", "StopFirst"),
                ("updateStrategy", "Auto"),
                ("adapter", "one"),
                ("adapter", "two"),
                ("replicas", 0),
                ("replicas", 3),
                ("model", "pvc://models/base"),
                ("model", "pvc://models/copy"),
                ("time", 60),
                ("time", 400),
                ("time", -600),
                ("status", None),
            ]
        )
    )
    def change(self, change: tuple[str, Any]) -> None:
        match change:
            case "image" | "updateStrategy" as name, value:
                self.world.change_engine(**{name: value})
            case "adapter", word:
                self.world.set_adapter(build_adapter(word))
            case "replicas", number:
                self.world.spec = self.world.spec | {"replicas": number}
                self.world.generation += 1
            case "model", uri:
                self.world.spec = self.world.spec | {"baseModel": {"uri": uri}}
                self.world.generation += 1
            case "time", seconds:
                self.world.now += timedelta(seconds=seconds)
            case _:
                self.world.status = {}

    @rule(image=st.sampled_from([FIRST, SECOND, THIRD]), how=st.sampled_from(["broken", "forgetful", "well"]))
    def change_an_image(self, image: str, how: str) -> None:
        self.world.unstartable.discard(image)
        self.world.forgetful.discard(image)
        if how != "well":
            (self.world.unstartable if how == "broken" else self.world.forgetful).add(image)

    @rule()
    def start_pods(self) -> None:
        self.world.run_pods()

    @rule(
        image=st.sampled_from([FIRST, SECOND, THIRD]),
        how=st.sampled_from(["broken", "forgetful", "well", "well"]),
        kills=st.lists(st.integers(0, 7), max_size=3),
    )
    def update(self, image: str, how: str, kills: list[int]) -> None:
        """The usual way of another image, with kills where they hurt."""
        self.change_an_image(image, how)
        self.world.change_engine(image=None if image == FIRST else image)
        for _ in range(4):
            self.reconcile(kills.pop() if kills else 99)
            self.start_pods()

    @rule(data=st.data(), what=st.sampled_from(["unready", "ready", "disconnect", "connect", "restart"]))
    def change_pod(self, data: st.DataObject, what: str) -> None:
        if not self.world.pods:
            return
        pod: FakePod = self.world.pods[data.draw(st.sampled_from(sorted(self.world.pods)))]
        match what:
            case "ready" | "unready":
                pod.ready = what == "ready"
            case "connect" | "disconnect":
                pod.connected = what == "connect"
            case "restart":
                self.world.restart_agent(pod.name)
                pod.ready = False

    # What the operator does.

    @rule(actions=st.sampled_from([*range(8), 99, 99, 99, 99]))
    def reconcile(self, actions: int) -> None:
        """One pass, perhaps killed; between two actions nothing is lost either."""
        for done in range(actions + 1) if actions < 8 else (actions,):
            before = self.served()
            self.world.reconcile(done)
            lost = {
                (alias, digest) for alias, digest in before - self.served() if self.is_stable(alias, digest)
            }
            assert not lost, "the operator took away what was served"
            self.there_are_two_sets_at_most()
            self.the_service_selects_a_set_there_is()

    def is_stable(self, alias: str, digest: str) -> bool:
        stable = next(found.stable for found in self.world.desired.aliases if found.name == alias)
        return stable is not None and stable.digest == digest

    def served(self) -> set[tuple[str, str]]:
        """Stable versions that clients get, by alias."""
        maps = self.world.of_kind("ConfigMap")
        if not maps or not any("state.json" in body["data"] for body in maps):
            return set()
        stable = {alias.name: alias.stable.digest for alias in self.world.desired.aliases if alias.stable}
        return {
            (alias, digest)
            for alias, digest in stable.items()
            for pod in self.world.selected_pods()
            if self.world.images[pod.name] not in self.world.forgetful
            and digest in pod.aliases.get(alias, ())
        }

    # What never happens.

    @invariant()
    def there_are_two_sets_at_most(self) -> None:
        assert len(images(self.world)) <= 2

    @invariant()
    def the_service_selects_a_set_there_is(self) -> None:
        if self.world.find("Deployment") is not None:
            assert selected(self.world) in images(self.world)

    @rule()
    def all_ends_well(self) -> None:
        """Once everything works there is one set, of the engine that the spec asks for."""
        self.world.unstartable.clear()
        self.world.forgetful.clear()
        self.start_pods()
        for _ in range(12):
            self.reconcile(99)
            self.start_pods()
        self.world.now += timedelta(minutes=21)
        for _ in range(3):
            self.reconcile(99)
            self.start_pods()
        wanted = self.world.spec["engine"].get("image") or FIRST
        assert images(self.world) == {selected(self.world): wanted}
        assert len(self.world.pods) == self.world.spec["replicas"] == len(self.world.selected_pods())


SwitchMachine.TestCase.settings = settings(max_examples=cases(15, 1000), stateful_step_count=12)
TestSwitch = SwitchMachine.TestCase
