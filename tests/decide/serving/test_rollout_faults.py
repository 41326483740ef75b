"""What goes wrong around a rollout: in pods, engines, clients, clocks, records and other operators."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from simulation.serving_world import ENVIRONMENT, NAME, ROLLOUT, FakePod, World, build_adapter, digest_of

from tunesmith.controller_runtime.errors import Conflict
from tunesmith.decide.plan import Mount, Push
from tunesmith.decide.serving.records.first_record import FirstRecord
from tunesmith.decide.serving.records.record import Lift
from tunesmith.manifests.serving_config_maps import FIRST_RECORD_KEY, HISTORY_KEY, RECORD_KEY
from tunesmith_contract.agent import DesiredState, first_generation

DEFAULT = {"steps": [{"weight": 10, "pause": "1m"}, {"weight": 100}]}
ONE, TWO, THREE = digest_of("one"), digest_of("two"), digest_of("three")


def canary(rollout: dict[str, Any] = ROLLOUT, **fields: Any) -> World:
    """Version 2 is at its first step beside version 1, on two pods."""
    world = World(build_adapter("one", rollout=rollout), **fields)
    world.settle()
    world.set_adapter(build_adapter("two", rollout=rollout))
    world.settle()
    assert world.adapter()["candidate"]["weight"] == rollout["steps"][0]["weight"]
    return world


def promoted() -> World:
    """Version 2 has just replaced version 1."""
    world = canary()
    for _ in range(4):
        world.pass_seconds(60)
    assert world.adapter()["stable"]["version"] == 2
    return world


def alias(world: World, name: str = "expenses") -> Any:
    return next(found for found in world.desired.aliases if found.name == name)


def test_a_version_whose_errors_a_breaker_hides_is_rolled_back() -> None:
    world = canary(DEFAULT)
    for pod in world.pods.values():
        pod.serve_candidate("expenses", TWO, 200, failing=False)
        pod.serve("expenses", ONE, 1800)
    world.pass_seconds(29)
    for _ in range(4):
        for pod in world.pods.values():
            pod.serve_candidate("expenses", TWO, 50, failing=True)
            pod.serve("expenses", ONE, 450)
        world.pass_seconds(30)
    assert (world.adapter()["phase"], world.adapter()["stable"]["version"]) == ("RolledBack", 1)
    assert world.adapter()["rejected"][0]["reason"] in {"BreakerOpen", "ErrorRateTooHigh"}


def test_an_open_breaker_of_one_client_blocks_the_promotion_without_rejecting() -> None:
    world = canary(DEFAULT)
    world.pods["pod-0"].serve("expenses", TWO, 30)
    world.pods["pod-1"].serve("expenses", TWO, 5, 5, keys=1)
    world.pods["pod-1"].tripped.add(("expenses", TWO))
    world.pass_seconds(300)
    assert world.adapter()["candidate"]["weight"] == 10
    assert world.adapter()["reason"] == "BreakerOpen"
    assert "only one or two clients" in world.adapter()["message"]


def test_an_open_breaker_of_three_clients_rejects_where_another_pod_saw_a_few_errors() -> None:
    """The home pod has changed, or its agent: the sums over both tell of fewer clients than the last one saw."""
    world = canary(DEFAULT)
    for pod in world.pods.values():
        pod.serve("expenses", ONE, 100)
    world.pods["pod-0"].serve("expenses", TWO, 1, 1)
    world.pods["pod-1"].serve("expenses", TWO, 9, 9, keys=3)
    world.pods["pod-1"].tripped.add(("expenses", TWO))
    world.pods["pod-1"].breaker_clients = 3
    world.pass_seconds(60)
    assert world.adapter()["phase"] == "RolledBack"


def test_an_open_breaker_rejects_nothing_where_the_stable_version_fails_too() -> None:
    world = canary(DEFAULT)
    for pod in world.pods.values():
        pod.serve("expenses", ONE, 100, 90)
    world.pods["pod-1"].serve("expenses", TWO, 9, 9)
    world.pods["pod-1"].tripped.add(("expenses", TWO))
    world.pods["pod-1"].breaker_clients = 9
    world.pass_seconds(120)
    adapter = world.adapter()
    assert (adapter["candidate"]["weight"], adapter["reason"]) == (10, "BreakerOpen")
    assert "the stable version fails too" in adapter["message"]


def test_an_open_breaker_rejects_nothing_before_its_errors_count() -> None:
    """The engine may be dying under them."""
    world = canary(DEFAULT)
    world.pods["pod-1"].tripped.add(("expenses", TWO))
    world.pods["pod-1"].breaker_clients = 3
    world.pass_seconds(120)
    assert (world.adapter()["candidate"]["weight"], world.adapter()["reason"]) == (10, "BreakerOpen")


@pytest.mark.parametrize("minimum", [0, 20])
def test_a_version_whose_clients_wait_in_vain_is_rolled_back(minimum: int) -> None:
    world = canary(DEFAULT | {"analysis": {"interval": "10s", "minimumRequests": minimum}})
    world.pods["pod-0"].serve("expenses", TWO, 10, abandoned=10)
    world.pass_seconds(20)
    assert world.adapter()["phase"] == "RolledBack"
    assert "10 of 10 requests failed (10 were left by clients" in world.adapter()["message"]


def test_an_engine_that_dies_under_both_versions_rejects_nothing() -> None:
    world = canary()
    for digest in (ONE, TWO):
        world.pods["pod-0"].serve("expenses", digest, 12, 12)
    world.pass_seconds(120)
    assert world.adapter()["candidate"]["weight"] == 5
    assert world.adapter()["reason"] == "StableFailsToo"
    assert world.reasons().count("StableFailsToo") == 1


def test_requests_that_lost_their_engine_hold_the_step_and_do_not_count() -> None:
    world = canary()
    world.pods["pod-0"].serve("expenses", TWO, 20)
    world.pass_seconds(59)
    world.pods["pod-0"].serve("expenses", TWO, 0, engine_lost=12)
    world.pass_seconds(1)
    assert (world.adapter()["candidate"]["weight"], world.adapter()["reason"]) == (5, "EngineLost")
    world.pass_seconds(10)
    assert world.adapter()["candidate"]["weight"] == 25


def test_one_burst_of_errors_fails_one_check() -> None:
    world = canary(ROLLOUT | {"analysis": {"interval": "10s", "failureLimit": 2, "minimumRequests": 0}})
    world.pods["pod-0"].serve("expenses", TWO, 20, 20)
    world.pass_seconds(300)
    assert world.adapter()["candidate"]["analysis"][0]["failures"] == 1
    for _ in range(2):
        world.pods["pod-0"].serve("expenses", TWO, 5, 5)
        world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"


def test_one_broken_client_rejects_no_version() -> None:
    world = canary(DEFAULT)
    for number in range(1, 20):
        requests = 50 * number
        squares = dict.fromkeys(("requests_squared", "failures_squared", "requests_failures"), requests**2)
        one_key = {"requests": requests, "errors": requests, "keys": 1, **squares}
        world.pods["pod-0"].counters["expenses", TWO] = one_key
        world.pods["pod-1"].serve("expenses", TWO, 30)
        world.pods["pod-1"].serve("expenses", ONE, 400)
        world.pass_seconds(10)
    assert (world.adapter()["phase"], world.adapter()["stable"]["version"]) == ("Stable", 2)


def test_a_pod_alone_that_refutes_a_version_is_left_aside() -> None:
    world = World(build_adapter("one"), replicas=3, pods=3)
    world.settle()
    world.pods["pod-0"].refuting[TWO] = "it answers like the base model"
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["reason"]) == ("Loading", "LoadFailed")
    world.pass_seconds(70)
    assert world.adapter()["candidate"]["weight"] == 5
    world.pods["pod-1"].refuting[TWO] = "it answers like the base model"
    world.settle()
    assert world.adapter()["phase"] == "RolledBack"


@pytest.mark.parametrize("seconds", [-600, 600])
def test_a_clock_that_jumps_neither_stops_the_analysis_nor_ends_a_pause(seconds: int) -> None:
    world = canary()
    world.pass_seconds(10)
    world.jump(seconds)
    world.settle()
    assert world.adapter()["candidate"]["weight"] == 5
    world.pass_seconds(15)
    assert world.adapter()["candidate"]["weight"] == 5
    world.pods["pod-0"].serve("expenses", TWO, 100, 100)
    world.pass_seconds(20)
    assert world.adapter()["phase"] == "RolledBack"


def test_an_hour_without_an_operator_ends_no_pause() -> None:
    world = canary()
    world.now += timedelta(hours=1)
    world.settle()
    assert world.adapter()["candidate"]["weight"] == 5


def test_a_leader_that_stood_still_undoes_nothing() -> None:
    world = canary()
    world.pods["pod-0"].serve("expenses", TWO, 3, 0)
    world.pass_seconds(59)
    world.now += timedelta(seconds=1)
    old = world.plan = world_plan(world)
    assert any(isinstance(action, Mount) for action in old.actions)
    world.environment = replace(ENVIRONMENT, term=1)
    world.pods["pod-0"].serve("expenses", TWO, 60, 60)
    world.settle()
    assert world.adapter()["phase"] == "RolledBack"
    before = world.desired
    with pytest.raises(Conflict):
        world.carry_out(old)
    assert world.desired == before
    assert before.generation > first_generation(1)
    for action in old.actions:
        if isinstance(action, Push):
            world.act(action)
    assert all(TWO not in pod.aliases["expenses"] for pod in world.pods.values())


def world_plan(world: World) -> Any:
    """The plan of an operator that is stopped before it acts."""
    return world.reconcile(actions=0)


def test_pods_that_hold_another_content_under_the_same_generation_are_told_again() -> None:
    world = canary()
    state = world.desired
    other = state.model_copy(update={"aliases": state.aliases[:0]})
    world.pods["pod-0"].desired, world.pods["pod-0"].aliases = other, {}
    world.settle()
    assert world.desired.generation > state.generation
    assert {pod.generation for pod in world.pods.values()} == {world.desired.generation}
    assert world.reconcile().actions == ()


@pytest.mark.parametrize("text", ["", "{}", '{"name": "tickets"}', None])
def test_a_record_that_was_edited_is_rebuilt_and_concerns_its_own_alias_alone(text: str | None) -> None:
    world = World(build_adapter("one"), build_adapter("one", name="tickets"))
    world.settle()
    for name in ("expenses", "tickets"):
        world.set_adapter(build_adapter("two", name=name))
    world.settle()
    world.edit(world.record_name("expenses"), RECORD_KEY, text)
    world.pods["pod-0"].serve("tickets", TWO, 50, 50)
    world.pass_seconds(10)
    assert (world.adapter("tickets")["phase"], world.adapter()["stable"]["version"]) == ("RolledBack", 1)
    assert world.reasons().count("RecordRebuilt") == 1


@pytest.mark.parametrize(
    ("written", "edited"),
    [('"stable"', '"stabel"'), ('"weight":5', '"weight":100'), ('"requests":40', '"requests":4')],
)
def test_a_record_that_was_edited_and_still_can_be_read_is_not_believed(written: str, edited: str) -> None:
    """A misspelled key would leave nobody who answers, and another weight would skip the analysis."""
    world = canary()
    world.pods["pod-0"].serve("expenses", TWO, 40)
    world.pass_seconds(10)
    text = world.record_text()
    assert written in text
    world.edit(world.record_name(), RECORD_KEY, text.replace(written, edited, 1))
    plan = world.reconcile()
    assert (alias(world).stable.digest, alias(world).weight) == (ONE, 5)
    candidate = world.record().candidate
    assert candidate is not None
    assert candidate.evidence.candidate.total.requests == 0
    assert [event.reason for event in plan.events].count("RecordRebuilt") == 1


@pytest.mark.parametrize("text", ["", "[]", "no json"])
def test_a_mounted_state_that_was_edited_is_written_again(text: str) -> None:
    world = canary()
    name = next(
        body["metadata"]["name"] for body in world.of_kind("ConfigMap") if "state.json" in body["data"]
    )
    before = world.desired
    for key in ("state.json", "desired.json", "rollout.json"):
        world.edit(name, key, text)
    world.settle()
    assert world.desired.aliases == before.aliases
    assert world.desired.generation > before.generation


def test_a_refused_record_keeps_no_other_alias_waiting() -> None:
    world = World(build_adapter("one"), build_adapter("one", name="tickets"))
    world.settle()
    for name in ("expenses", "tickets"):
        world.set_adapter(build_adapter("two", name=name))
    world.settle()
    world.refused.add("expenses")
    for name in ("expenses", "tickets"):
        world.pods["pod-0"].serve(name, TWO, 50, 50)
    world.pass_seconds(20)
    assert alias(world, "tickets").candidate is None
    assert alias(world, "expenses").candidate is not None
    assert all(TWO not in pod.aliases["tickets"] for pod in world.pods.values())
    world.refused.clear()
    world.pass_seconds(10)
    assert alias(world, "expenses").candidate is None


def test_what_a_pod_counted_before_its_end_still_counts() -> None:
    world = canary()
    world.pods["pod-1"].serve("expenses", TWO, 30, 30)
    world.remove_pod("pod-1")
    world.pods["pod-2"] = FakePod("pod-2", "uid-2")
    world.settle()
    assert world.record().candidate.evidence.candidate.total.failures == 30  # type: ignore[union-attr]
    world.ended.clear()
    world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"


def test_counters_that_an_agent_forgot_count_from_zero_again() -> None:
    world = canary()
    world.pods["pod-0"].serve("expenses", TWO, 500)
    world.pass_seconds(10)
    del world.pods["pod-0"].counters["expenses", TWO]
    world.pods["pod-0"].serve("expenses", TWO, 300, 300)
    world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"


def test_a_pod_younger_than_the_step_is_not_waited_for() -> None:
    world = canary()
    for pod in world.pods.values():
        pod.created = world.now - timedelta(hours=1)
    world.pass_seconds(30)
    world.pods["young"] = FakePod("young", "uid-young", created=world.now, connected=False)
    world.pass_seconds(30)
    assert world.adapter()["candidate"]["weight"] == 25


def test_a_rollout_without_traffic_says_what_is_missing_and_is_stalled_after_its_deadline() -> None:
    world = canary(DEFAULT)
    world.pods["pod-0"].serve("expenses", TWO, 3)
    world.pass_seconds(90)
    assert world.adapter()["reason"] == "WaitingForRequests"
    (event,) = [event for event in world.events if event.reason == "WaitingForRequests"]
    assert "3 of the 20 requests" in event.message
    assert world.condition("Stalled")["status"] == "False"
    world.pass_seconds(3600)
    assert world.condition("Stalled")["reason"] == "ProgressDeadlineExceeded"
    assert world.condition("Reconciling")["status"] == "False"
    assert "3 of the 20 requests" in world.condition("Stalled")["message"]
    assert world.reasons().count("ProgressDeadlineExceeded") == 1
    world.pods["pod-0"].serve("expenses", TWO, 30)
    world.pass_seconds(30)
    assert (world.adapter()["phase"], world.adapter()["stable"]["version"]) == ("Stable", 2)


def test_checks_that_measure_nothing_stall_the_rollout_until_one_does() -> None:
    world = canary(ROLLOUT | {"analysis": {"interval": "10s", "consecutiveErrorLimit": 2}})
    for pod in world.pods.values():
        pod.connected = False
    world.pass_seconds(20)
    assert world.condition("Stalled")["status"] == "False"
    world.pass_seconds(20)
    assert world.condition("Stalled")["reason"] == "AnalysisLimitExceeded"
    for pod in world.pods.values():
        pod.connected = True
        pod.serve("expenses", TWO, 30)
    world.pass_seconds(60)
    assert (world.condition("Stalled")["status"], world.adapter()["candidate"]["weight"]) == ("False", 25)


def test_a_rollout_whose_deployment_is_scaled_to_zero_waits_for_its_pods() -> None:
    world = canary()
    world.pods.clear()
    world.pass_seconds(4000)
    assert (world.adapter()["candidate"]["weight"], world.condition("Stalled")["status"]) == (5, "False")
    world.pods["pod-2"] = FakePod("pod-2", "uid-2")
    world.settle()
    world.pass_seconds(400)
    assert world.adapter()["stable"]["version"] == 2


def test_more_inconclusive_checks_than_allowed_hold_the_rollout_until_the_limit_is_raised() -> None:
    analysis = {"interval": "10s", "inconclusiveLimit": 1}
    world = canary(DEFAULT | {"analysis": analysis})
    world.pass_seconds(90)
    assert world.condition("Stalled")["reason"] == "AnalysisLimitExceeded"
    world.pods["pod-0"].serve("expenses", TWO, 60)
    world.pass_seconds(60)
    assert world.adapter()["candidate"]["weight"] == 10
    assert "checks had too few requests; inconclusiveLimit" in world.adapter()["message"]
    world.set_adapter(
        build_adapter("two", rollout=DEFAULT | {"analysis": analysis | {"inconclusiveLimit": 9}})
    )
    world.pass_seconds(10)
    assert world.adapter()["stable"]["version"] == 2


def test_a_lifted_rejection_lets_the_version_be_tried_again() -> None:
    world = canary()
    world.pods["pod-0"].serve("expenses", TWO, 40, 40)
    world.pass_seconds(10)
    assert alias(world).rejected == (TWO,)
    lifted = world.record().model_copy(update={"lifts": (Lift(digest=TWO, time=world.now, by="ada"),)})
    world.put_record(lifted)
    world.settle()
    assert (alias(world).candidate.digest, alias(world).weight, alias(world).rejected) == (TWO, 5, ())
    world.recreate()
    world.settle()
    assert (alias(world).candidate.digest, alias(world).rejected) == (TWO, ())


@pytest.mark.parametrize("features", [("previous", "rejected"), ()])
def test_what_no_pod_can_ever_load_is_stalled_at_once(features: tuple[str, ...]) -> None:
    world = World(build_adapter("one"))
    for pod in world.pods.values():
        pod.features = features
    world.settle()
    world.failing[TWO] = ("EngineRefused", "rank 128 is above 64: write engine.maxRank: 128")
    world.permanent.add(TWO)
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["reason"]) == ("Blocked", "Incompatible")
    assert (world.condition("Stalled")["status"], world.condition("Reconciling")["status"]) == (
        "True",
        "False",
    )
    (event,) = [event for event in world.events if event.reason == "Incompatible"]
    assert (event.type, "engine.maxRank: 128" in event.message) == ("Warning", True)


def test_a_permanent_failure_on_one_pod_blocks_the_version_on_all() -> None:
    world = World(build_adapter("one"), replicas=3, pods=3)
    world.settle()
    world.permanent.add(TWO)
    world.pods["pod-0"].refuting[TWO] = "write engine.maxRank: 128"
    world.set_adapter(build_adapter("two"))
    world.pass_seconds(120)
    assert (world.adapter()["phase"], world.adapter()["candidate"]["weight"]) == ("Blocked", 0)


def test_a_rank_above_the_engines_is_said_before_a_pod_tries() -> None:
    world = World(build_adapter("x", source={"fineTuneJobRef": {"name": "tune"}}))
    world.finish_job("tune", "one")
    world.jobs["tune"]["spec"] = {"adapter": {"rank": 100}}  # type: ignore[index]
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["reason"]) == ("Blocked", "Incompatible")
    assert world.adapter()["message"].endswith(
        "rank 100, and engine.maxRank is 64: write engine.maxRank: 128"
    )
    assert (world.condition("Stalled")["status"], alias(world).candidate) == ("True", None)
    world.spec = world.spec | {"engine": {"gpus": 0, "maxRank": 128}}
    world.settle()
    assert world.adapter()["phase"] == "Stable"


def test_a_job_or_verdict_that_was_edited_concerns_its_own_alias_alone() -> None:
    world = World(
        build_adapter("x", source={"fineTuneJobRef": {"name": "tune"}}), build_adapter("one", name="tickets")
    )
    world.finish_job("tune", "one")
    world.jobs["tune"]["status"]["phase"] = "nothing known"  # type: ignore[index]
    world.judge("quality", "one", "Pass")
    (run,) = world.eval_runs
    world.eval_runs = [replace(run, body={**run.body, "status": {"verdict": 7}})]
    world.settle()
    assert (world.adapter()["phase"], world.adapter("tickets")["phase"]) == ("Blocked", "Stable")


def test_a_version_that_fails_after_its_promotion_is_switched_back_at_once() -> None:
    world = promoted()
    assert world.adapter()["previous"] == {"version": 1, "digest": ONE, "loadedOn": 2}
    world.pods["pod-1"].serve("expenses", TWO, 60, 60)
    world.reconcile()
    assert (alias(world).stable.digest, alias(world).previous) == (ONE, None)
    assert alias(world).rejected == (TWO,)
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["stable"]["version"]) == ("RolledBack", 1)
    assert "after its promotion" in world.adapter()["message"]
    assert [past["version"] for past in world.adapter()["history"]] == [1, 2]


def test_after_the_window_a_failing_version_is_only_reported() -> None:
    world = promoted()
    world.pass_seconds(700)
    assert "previous" not in world.adapter()
    world.pods["pod-1"].serve("expenses", TWO, 600, 600)
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["reason"]) == ("Degraded", "ErrorRateTooHigh")
    assert alias(world).stable.digest == TWO
    assert world.reasons().count("ErrorRateTooHigh") == 1


def test_the_previous_version_is_back_at_once_when_its_source_names_it() -> None:
    world = promoted()
    world.set_adapter(build_adapter("one"))
    world.settle()
    assert (alias(world).stable.digest, alias(world).candidate, alias(world).previous.digest) == (
        ONE,
        None,
        TWO,
    )
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert alias(world).stable.digest == TWO


def test_rejections_and_the_stable_version_outlive_the_resource() -> None:
    world = canary()
    world.pods["pod-0"].serve("expenses", TWO, 40, 40)
    world.pass_seconds(10)
    world.recreate()
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["stable"]["digest"]) == ("RolledBack", ONE)
    assert world.adapter()["rejected"][0]["digest"] == TWO
    world.set_adapter(build_adapter("three"))
    world.settle()
    assert (world.adapter()["candidate"]["weight"], world.adapter()["candidate"]["version"]) == (5, 3)


def test_the_first_version_after_a_known_name_comes_back_is_analysed() -> None:
    world = promoted()
    world.set_adapter(build_adapter("three"))
    world.recreate()
    world.slow.add(TWO)
    world.settle()
    assert (alias(world).stable.digest, alias(world).weight) == (TWO, 0)
    world.slow.clear()
    world.settle()
    assert alias(world).weight == 5


def test_a_known_name_whose_old_version_is_gone_does_without_it() -> None:
    world = promoted()
    world.set_adapter(build_adapter("three"))
    world.recreate()
    world.failing[TWO] = ("ArtifactNotFound", "no manifest.json")
    world.pass_seconds(100)
    assert alias(world).stable.digest == THREE


def test_a_history_of_someone_else_is_left_alone() -> None:
    world = World(build_adapter("one"))
    foreign = {"kind": "ConfigMap", "metadata": {"name": f"{NAME}-rollout-history"}, "data": {"mine": "1"}}
    world.objects["ConfigMap", f"{NAME}-rollout-history"] = foreign
    world.settle()
    assert world.condition("Stalled")["reason"] == "HistoryNameTaken"
    assert world.objects["ConfigMap", f"{NAME}-rollout-history"] == foreign


def test_a_history_that_was_edited_is_made_anew() -> None:
    world = canary()
    world.edit(f"{NAME}-rollout-history", HISTORY_KEY, "no json")
    world.settle()
    assert ONE in world.objects["ConfigMap", f"{NAME}-rollout-history"]["data"][HISTORY_KEY]


@pytest.mark.parametrize("part", ["-rollout-history", "-desired", "-usage", "-alias-expenses"])
def test_a_config_map_whose_data_was_removed_is_written_anew(part: str) -> None:
    world = canary()
    found = [key for key in world.objects if key[0] == "ConfigMap" and key[1].endswith(part)]
    for key in found:
        before = world.objects[key].pop("data")
        world.settle()
        assert set(world.objects[key]["data"]) == set(before)
    assert alias(world).stable.digest == ONE


def test_times_without_a_zone_that_somebody_wrote_stop_nothing() -> None:
    world = canary()
    world.pods["pod-0"].serve("expenses", TWO, 40, 40)
    world.pass_seconds(10)
    for body in world.of_kind("ControllerRevision"):
        annotations = world.objects["ControllerRevision", body["metadata"]["name"]]["metadata"]["annotations"]
        for name, text in annotations.items():
            annotations[name] = text.replace("+00:00", "").replace("Z", "")
    history = world.objects["ConfigMap", f"{NAME}-rollout-history"]["data"]
    assert "Z" in history[HISTORY_KEY]
    history[HISTORY_KEY] = history[HISTORY_KEY].replace("Z", "")
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["stable"]["digest"]) == ("RolledBack", ONE)
    assert "Z" in world.objects["ConfigMap", f"{NAME}-rollout-history"]["data"][HISTORY_KEY]


@pytest.mark.parametrize("generation", [2**62, 2**63 - 1])
def test_a_pod_that_reports_an_absurd_generation_keeps_status_and_rollbacks_going(generation: int) -> None:
    world = canary()
    world.pods["pod-1"].generation = generation
    world.pods["pod-0"].serve("expenses", TWO, 40, 40)
    world.pass_seconds(10)
    assert world.adapter()["phase"] in {"RollingBack", "RolledBack"}
    assert world.status["generation"] < 2**63
    assert world.pods["pod-0"].aliases["expenses"] == (ONE,)


class FirstRelease:
    """The operator of the first release, as far as its ConfigMap shows it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = next(
            body["metadata"]["name"] for body in world.of_kind("ConfigMap") if "desired.json" in body["data"]
        )

    @property
    def record(self) -> FirstRecord:
        data = self.world.objects["ConfigMap", self.name]["data"]
        return FirstRecord.model_validate_json(data[FIRST_RECORD_KEY])

    def write(self, generation: int, **change: Any) -> None:
        """Change the only alias, as that release does in one write."""
        data = self.world.objects["ConfigMap", self.name]["data"]
        (entry,) = self.record.aliases
        entry = entry.model_copy(update=change)
        desired = DesiredState.model_validate_json(data["desired.json"])
        told = {
            "candidate": entry.trial.version if entry.trial else None,
            "weight": entry.trial.weight if entry.trial else 0,
            "stable": entry.stable,
        }
        (before,) = desired.aliases
        desired = DesiredState(generation=generation, aliases=(before.model_copy(update=told),))
        self.world.edit(self.name, "desired.json", desired.to_json())
        self.world.edit(self.name, FIRST_RECORD_KEY, FirstRecord(aliases=(entry,)).to_json())


def test_the_record_of_the_first_release_is_read_once_and_split() -> None:
    world = canary()
    first = FirstRelease(world)
    world.edit(first.name, "state.json", "")
    del world.objects["ConfigMap", first.name]["data"]["state.json"]
    for key in [key for key in world.objects if "-alias-" in key[1] or key[1].endswith("history")]:
        del world.objects[key]
    world.reconcile(actions=1)
    world.settle()
    assert (world.adapter()["candidate"]["weight"], world.adapter()["stable"]["version"]) == (5, 1)
    assert world.record().split_from is not None
    world.pods["pod-0"].serve("expenses", TWO, 40, 40)
    world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"


def test_an_operator_that_is_rolled_back_and_upgraded_again_loses_no_version() -> None:
    world = canary()
    first = FirstRelease(world)
    (entry,) = first.record.aliases
    assert entry.trial is not None and entry.stable is not None
    assert (entry.trial.weight, entry.trial.version.digest, entry.stable.digest) == (5, TWO, ONE)
    generation = world.desired.generation
    first.write(generation + 1, stable=entry.trial.version, promoted=world.now, trial=None)
    world.settle()
    assert (alias(world).stable.digest, world.desired.generation) == (TWO, generation + 2)


def test_agents_of_the_first_release_are_served_and_what_they_lack_is_said_once() -> None:
    world = promoted()
    world.pods["pod-1"].features = ()
    world.settle()
    assert world.condition("AgentsCurrent")["status"] == "False"
    assert "pod-1" in world.condition("AgentsCurrent")["message"]
    world.pass_seconds(60)
    assert world.reasons().count("AgentsOutdated") == 1
    world.pods["pod-0"].serve("expenses", TWO, 60, 60)
    world.settle()
    assert {pod.aliases["expenses"] for pod in world.pods.values()} == {(ONE,)}


def test_many_aliases_on_many_pods_fit_into_their_config_maps() -> None:
    names = [f"alias-{number:02}-{'x' * 50}" for number in range(64)]
    world = World(*(build_adapter("one", name=name) for name in names), pods=100, replicas=100)
    for pod in world.pods.values():
        pod.uid = f"0f3c9d52-1111-2222-3333-{pod.uid:0>12}"
    world.settle(2)
    world.spec = world.spec | {"adapters": [build_adapter("two", name=name) for name in names]}
    world.settle(3)
    for pod in world.pods.values():
        for name in names[:2]:
            for digest in (ONE, TWO):
                pod.serve(name, digest, 100_000, 500, abandoned=400, refused=100, engine_lost=50)
    world.pass_seconds(10)
    sizes = [sum(map(len, body["data"].values())) for body in world.of_kind("ConfigMap")]
    assert max(sizes) < 200_000


def failing_stable(world: World, digest: str, seconds: int) -> None:
    """The stable version fails every request of fifty clients every five seconds."""
    for _ in range(seconds // 5):
        world.pods["pod-0"].serve("expenses", digest, 50, 50)
        world.pass_seconds(5)


@pytest.mark.parametrize("verb", ["undo", ""])
def test_a_version_that_is_stable_again_is_counted_from_the_switch_on(verb: str) -> None:
    """However long the interval between two checks is."""
    rollout = ROLLOUT | {"analysis": {"interval": "1h", "minimumRequests": 0}}
    world = canary(rollout)
    world.pass_seconds(400)
    if verb:
        assert world.ask(verb)["result"] == "Done"
    else:
        world.set_adapter(build_adapter("one", rollout=rollout))
        world.settle()
    assert alias(world).stable.digest == ONE
    failing_stable(world, ONE, 15)
    after_undo, after_return = ("Degraded", "ErrorRateTooHigh"), ("RolledBack", "DigestRejected")
    found = (world.adapter()["phase"], world.adapter()["reason"])
    assert found == (after_undo if verb else after_return)


@pytest.mark.parametrize(
    "lose", [World.recreate, lambda world: world.edit(world.record_name(), RECORD_KEY, "")]
)
def test_a_stable_version_that_fails_is_reported_soon_after_its_record_was_rebuilt(
    lose: Callable[[World], None],
) -> None:
    world = World(build_adapter("one"))
    world.settle()
    lose(world)
    world.settle()
    name = next(iter(world.pods))
    for _ in range(4):
        world.pods[name].serve("expenses", ONE, 50, 50)
        world.pass_seconds(10)
    assert (world.adapter()["phase"], world.adapter()["reason"]) == ("Degraded", "ErrorRateTooHigh")


def test_a_failing_stable_version_is_reported_while_the_source_names_a_rejected_one() -> None:
    world = canary()
    world.pods["pod-0"].serve("expenses", TWO, 60, 60)
    world.pass_seconds(10)
    assert world.adapter()["phase"] == "RolledBack"
    failing_stable(world, ONE, 30)
    assert (world.adapter()["phase"], world.adapter()["reason"]) == ("Degraded", "ErrorRateTooHigh")
    assert "was rolled back before" in world.adapter()["message"]
    assert world.condition("Stalled")["status"] == "True"
    assert world.reasons().count("ErrorRateTooHigh") == 1


def test_a_failing_stable_version_is_reported_while_the_candidate_waits_for_a_person() -> None:
    world = canary()
    world.ask("pause")
    failing_stable(world, ONE, 30)
    assert (world.adapter()["phase"], world.adapter()["reason"]) == ("Degraded", "ErrorRateTooHigh")
    assert "until the action resume" in world.adapter()["message"]


def test_a_first_version_that_fails_is_not_said_to_have_had_a_window() -> None:
    world = World(build_adapter("one"))
    world.settle()
    failing_stable(world, ONE, 30)
    assert "to go back to" in world.adapter()["message"]


def test_a_failing_stable_version_is_reported_beside_a_source_out_of_reach() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.spec = world.spec | {"artifactVolumes": [{"claim": "others"}]}
    world.set_adapter(build_adapter("two"))
    failing_stable(world, ONE, 30)
    assert world.adapter()["reason"] == "ErrorRateTooHigh"
    assert world.condition("SourcesReachable")["status"] == "False"
    assert world.condition("Stalled")["status"] == "True"
