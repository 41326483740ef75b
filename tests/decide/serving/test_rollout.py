"""The way of a version from its source to all requests, or back."""

from typing import Any

import pytest
from simulation.serving_world import ROLLOUT, World, build_adapter, digest_of

from tunesmith_contract.agent import PROOF_FAILED


def stable_world(**fields: Any) -> World:
    """Version 1 of ``expenses`` is stable on two pods."""
    world = World(build_adapter("one", **fields))
    world.settle()
    assert world.adapter()["phase"] == "Stable"
    return world


def canary_world(**fields: Any) -> World:
    """Version 2 answers 5 % of the requests."""
    world = stable_world(**fields)
    world.set_adapter(build_adapter("two", **fields))
    world.settle()
    assert world.adapter()["candidate"]["weight"] == 5
    return world


def test_first_version_is_loaded_and_proven_and_then_gets_all_requests() -> None:
    world = World(build_adapter("one"))
    world.slow.add(digest_of("one"))
    world.settle()
    assert (world.adapter()["phase"], world.desired.aliases[0].stable) == ("Loading", None)
    world.slow.clear()
    world.settle()
    assert world.adapter()["stable"] == {
        "version": 1,
        "digest": digest_of("one"),
        "uri": "pvc://artifacts/one",
        "weight": 100,
        "loadedOn": 2,
    }
    assert world.reasons() == ["Loading", "Promoted"]
    assert world.condition("Ready")["status"] == "True"


def test_new_version_goes_step_by_step() -> None:
    world = canary_world()
    assert world.adapter()["stable"]["weight"] == 95
    world.pass_seconds(59)
    assert world.desired.aliases[0].weight == 5
    world.pass_seconds(1)
    assert (world.adapter()["candidate"]["weight"], world.adapter()["candidate"]["step"]) == (25, 1)
    world.pass_seconds(120)
    assert (world.adapter()["phase"], world.adapter()["stable"]["version"]) == ("Stable", 2)
    assert [past["version"] for past in world.adapter()["history"]] == [2, 1]
    assert world.reasons()[2:] == ["Loading", "StepStarted", "StepStarted", "Promoted"]


def test_nothing_is_left_to_do_once_all_is_stable() -> None:
    world = stable_world()
    world.pass_seconds(10)
    plan = world.reconcile()
    assert (plan.actions, plan.status, plan.events, plan.requeue_after) == ((), None, (), None)


def test_a_pod_that_does_not_hold_the_candidate_holds_the_step() -> None:
    world = canary_world()
    world.pods["pod-1"].restart_agent()
    world.slow.add(digest_of("two"))
    world.pass_seconds(60)
    assert world.adapter()["candidate"]["weight"] == 5
    assert (
        world.adapter()["message"] == f"version 2 ({digest_of('two')[7:19]}) is active on 0 of 2 ready pods"
    )
    world.slow.clear()
    world.settle()
    assert world.adapter()["candidate"]["weight"] == 25


def test_an_agent_that_is_not_heard_of_holds_the_step_for_a_minute() -> None:
    world = canary_world()
    world.pods["pod-0"].connected = False
    world.pass_seconds(60)
    assert world.adapter()["candidate"]["weight"] == 5
    world.pass_seconds(59)
    assert world.adapter()["candidate"]["weight"] == 5
    world.pass_seconds(1)
    assert world.adapter()["candidate"]["weight"] == 25


def test_errors_take_the_candidate_back_for_ever() -> None:
    world = canary_world()
    world.pods["pod-0"].serve("expenses", digest_of("two"), 40, 20)
    world.pass_seconds(10)
    adapter = world.adapter()
    assert adapter["phase"] == "RolledBack"
    assert (adapter["stable"]["version"], adapter["stable"]["weight"]) == (1, 100)
    assert adapter["rejected"][0]["digest"] == digest_of("two")
    assert adapter["rejected"][0]["reason"] == "ErrorRateTooHigh"
    assert "20 of 40 requests failed" in adapter["message"]
    assert adapter["message"].endswith("at weight 5")
    assert world.condition("Stalled")["status"] == "True"
    assert world.condition("Available")["status"] == "True"
    world.generation += 1
    world.pass_seconds(3600)
    assert world.desired.aliases[0].candidate is None


def test_a_rejected_digest_stays_rejected_after_other_versions() -> None:
    world = canary_world()
    world.pods["pod-0"].serve("expenses", digest_of("two"), 40, 20)
    world.pass_seconds(10)
    world.set_adapter(build_adapter("three"))
    for _ in range(5):
        world.pass_seconds(120)
    assert (world.adapter()["phase"], world.adapter()["stable"]["version"]) == ("Stable", 3)
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["stable"]["version"]) == ("RolledBack", 3)


def test_rolling_back_lasts_until_no_pod_holds_the_version() -> None:
    world = canary_world()
    world.pods["pod-1"].serve("expenses", digest_of("two"), 40, 40)
    world.now = world.now.replace(second=10)
    world.reconcile()
    assert world.status["adapters"][0]["phase"] == "RollingBack"
    world.reconcile()
    assert world.adapter()["phase"] == "RolledBack"


def test_errors_of_a_life_that_is_over_still_count() -> None:
    world = canary_world()
    for boot in range(3):
        for pod in world.pods.values():
            pod.serve("expenses", digest_of("two"), 3, 2 if boot else 0)
        for name in world.pods:
            world.restart_agent(name)
        world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"


def test_errors_before_the_step_do_not_count_again() -> None:
    world = canary_world(rollout=ROLLOUT | {"analysis": {"interval": "10s", "minimumRequests": 1}})
    world.pods["pod-0"].serve("expenses", digest_of("two"), 100, 1)
    world.pass_seconds(60)
    assert world.adapter()["candidate"]["weight"] == 25
    world.pods["pod-0"].serve("expenses", digest_of("two"), 10)
    world.pass_seconds(10)
    analysis = world.adapter()["candidate"]["analysis"][0]
    assert (analysis["requests"], analysis["value"], analysis["verdict"]) == (10, "0", "Pass")


def test_failed_looks_are_tolerated_up_to_the_limit() -> None:
    analysis = {"interval": "10s", "failureLimit": 1, "minimumRequests": 0}
    world = canary_world(rollout=ROLLOUT | {"analysis": analysis})
    world.pods["pod-0"].serve("expenses", digest_of("two"), 40, 20)
    world.pass_seconds(10)
    assert world.adapter()["candidate"]["analysis"][0]["failures"] == 1
    world.pods["pod-0"].serve("expenses", digest_of("two"), 1, 1)
    world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"


def test_a_step_waits_for_the_requests_that_it_needs() -> None:
    world = canary_world(rollout=ROLLOUT | {"analysis": {"interval": "10s", "minimumRequests": 20}})
    world.pods["pod-0"].serve("expenses", digest_of("two"), 19)
    world.pass_seconds(600)
    assert world.adapter()["reason"] == "WaitingForRequests"
    assert "has answered 19 of the 20 requests" in world.condition("Reconciling")["message"]
    world.pods["pod-0"].serve("expenses", digest_of("two"), 1)
    world.pass_seconds(10)
    assert world.adapter()["candidate"]["weight"] == 25


def test_paused_holds_the_step_but_not_the_way_back() -> None:
    world = canary_world()
    world.set_adapter(build_adapter("two", paused=True))
    world.pass_seconds(600)
    assert (world.adapter()["phase"], world.adapter()["candidate"]["weight"]) == ("Paused", 5)
    world.pods["pod-0"].serve("expenses", digest_of("two"), 40, 20)
    world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"


def test_a_newer_digest_supersedes_the_candidate_without_rejecting_it() -> None:
    world = canary_world()
    world.set_adapter(build_adapter("three"))
    world.settle()
    assert world.adapter()["candidate"]["version"] == 3
    assert "rejected" not in world.adapter() or world.adapter()["rejected"] == []
    assert "Withdrawn" in world.reasons()


def test_back_to_the_stable_digest_ends_the_rollout() -> None:
    world = canary_world()
    world.set_adapter(build_adapter("one"))
    world.settle()
    assert (world.adapter()["phase"], world.adapter().get("candidate")) == ("Stable", None)


def test_a_version_that_comes_back_keeps_its_number() -> None:
    world = canary_world()
    world.set_adapter(build_adapter("one"))
    world.settle()
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert world.adapter()["candidate"]["version"] == 2


def test_what_proves_not_to_be_this_adapter_is_rejected_without_any_request() -> None:
    world = stable_world()
    world.failing[digest_of("two")] = (PROOF_FAILED, "it answers like the base model")
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert world.adapter()["phase"] == "RolledBack"
    assert "it answers like the base model" in world.adapter()["message"]
    assert "StepStarted" not in world.reasons()


def test_what_fails_to_load_is_said_and_tried_again() -> None:
    world = stable_world()
    world.failing[digest_of("two")] = ("ArtifactNotFound", "no manifest.json")
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["reason"]) == ("Loading", "LoadFailed")
    assert "pod pod-0: ArtifactNotFound: no manifest.json" in world.condition("Ready")["message"]
    world.failing.clear()
    world.settle()
    assert world.adapter()["phase"] == "Progressing"


def test_a_stable_version_that_fails_degrades_its_own_name_alone() -> None:
    world = World(build_adapter("one"), build_adapter("other", name="tickets"))
    world.settle()
    world.failing[digest_of("one")] = ("EngineRefused", "rank 128 is above 64")
    world.reconcile()
    assert (world.adapter()["phase"], world.adapter("tickets")["phase"]) == ("Degraded", "Stable")
    assert world.adapter()["stable"]["version"] == 1


@pytest.mark.parametrize("steps", [[{"weight": 100}], [{"weight": 50, "pause": "0s"}, {"weight": 100}]])
def test_a_rollout_without_pauses_takes_over_as_soon_as_it_is_proven(steps: list[dict[str, object]]) -> None:
    world = stable_world()
    world.set_adapter(build_adapter("two", rollout=ROLLOUT | {"steps": steps}))
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["stable"]["version"]) == ("Stable", 2)


def test_a_removed_name_is_forgotten_but_its_numbers_are_not() -> None:
    world = stable_world()
    world.spec = world.spec | {"adapters": []}
    world.settle()
    assert world.desired.aliases == ()
    world.set_adapter(build_adapter("two"))
    world.settle()
    adapter = world.adapter()
    assert (adapter["stable"]["version"], adapter["candidate"]["version"]) == (1, 2)
    assert adapter["candidate"]["weight"] == 5
