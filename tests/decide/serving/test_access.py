"""Clients with keys: what conditions say, tokens folded over restarts of all kinds, limits shared by pods."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from simulation.serving_world import NAME, World, build_adapter

from tunesmith.decide.serving.clients import usage
from tunesmith.decide.serving.clients.usage import (
    MAX_BYTES,
    ClientTokens,
    CountingRun,
    UsageRecord,
    is_over,
)
from tunesmith.manifests.environment import ServingNetwork
from tunesmith_contract.agent import MAX_CLIENTS, AccessReport, ClientFault, ClientUsage

KEYS = {"keysSecretRef": {"name": "clients"}}
DAY = "2030-01-01"
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def report(pod: str, tokens: int = 0, run: str = "", period: str = DAY, **fields: Any) -> AccessReport:
    usage = ClientUsage(client="ada", period=period, tokens=tokens, budget=1000)
    return AccessReport(run=run or f"run-of-{pod}", clients=2, usage=(usage,), **fields)


@pytest.fixture
def world() -> World:
    world = World(build_adapter("one"), access=KEYS)
    for pod in world.pods.values():
        pod.access = report(pod.name)
    world.settle()
    return world


def count(world: World, pod: str, tokens: int) -> None:
    """A pod has counted so many tokens, and knows what it knew."""
    access = world.pods[pod].access
    assert access is not None
    known = access.usage[0].model_copy(update={"tokens": tokens})
    world.pods[pod].access = access.model_copy(update={"usage": (known,)})


def others(world: World, pod: str) -> int | None:
    access = world.pods[pod].access
    assert access is not None
    return access.usage[0].others


def used(world: World) -> int:
    budgets = world.status["access"]["budgets"]
    return int(budgets[0]["used"])


def usage_map(world: World) -> dict[str, Any]:
    return next(body for body in world.of_kind("ConfigMap") if body["metadata"]["name"].endswith("-usage"))


# -- tokens


def test_pods_learn_what_the_others_have_counted(world: World) -> None:
    assert [others(world, pod) for pod in world.pods] == [0, 0]
    count(world, "pod-0", 30)
    count(world, "pod-1", 12)
    world.pass_seconds(12)
    assert [others(world, pod) for pod in world.pods] == [12, 30]
    assert world.status["access"] == {
        "clients": 2,
        "budgets": [{"client": "ada", "period": DAY, "used": 42, "budget": 1000}],
    }
    assert not world.reconcile().actions


def test_tokens_outlive_agents_pods_and_operators(world: World) -> None:
    count(world, "pod-0", 30)
    count(world, "pod-1", 12)
    world.settle()
    world.remove_pod("pod-0")
    world.settle()
    world.ended.clear()
    world.status = {}
    world.pass_seconds(20)
    assert used(world) == 42 and others(world, "pod-1") == 30
    # The agent begins anew, with what its pod kept; another one has lost it.
    world.restart_agent("pod-1")
    world.pods["pod-1"].access = report("pod-1", 15)
    world.pass_seconds(20)
    assert used(world) == 45
    world.pods["pod-1"].access = report("pod-1", 5, run="another")
    world.pass_seconds(20)
    assert used(world) == 50 and others(world, "pod-1") == 45


def test_a_pod_that_was_not_heard_of_keeps_its_tokens(world: World) -> None:
    """After a restart of the operator some agents have not come back."""
    count(world, "pod-0", 30)
    world.pass_seconds(20)
    access, world.pods["pod-0"].access = world.pods["pod-0"].access, None
    world.pods["pod-0"].connected = False
    world.pass_seconds(20)
    world.pods["pod-0"].access, world.pods["pod-0"].connected = access, True
    count(world, "pod-0", 31)
    world.pass_seconds(20)
    assert used(world) == 31


def test_nothing_is_counted_twice(world: World) -> None:
    count(world, "pod-0", 30)
    for _ in range(5):
        plan = world.reconcile(actions=1)
        world.carry_out(plan, actions=2)
    world.pass_seconds(60)
    assert used(world) == 30


def test_counts_of_a_pod_that_is_gone_are_written_at_once(world: World) -> None:
    world.pass_seconds(20)
    count(world, "pod-0", 30)
    world.settle()
    written = usage_map(world)["metadata"]["resourceVersion"]
    count(world, "pod-0", 33)
    world.settle()
    assert usage_map(world)["metadata"]["resourceVersion"] == written
    world.remove_pod("pod-0")
    world.settle()
    world.ended.clear()
    world.settle()
    world.pass_seconds(12)
    assert used(world) == 33


def test_a_new_period_begins_at_zero(world: World) -> None:
    count(world, "pod-0", 30)
    world.pass_seconds(12)
    world.now = datetime(2030, 1, 2, 0, 0, 5, tzinfo=UTC)
    for pod in world.pods.values():
        assert pod.access is not None
        fresh = ClientUsage(client="ada", period="2030-01-02", tokens=7, budget=1000)
        pod.access = pod.access.model_copy(update={"usage": (*pod.access.usage, fresh)})
    world.pass_seconds(12)
    assert world.status["access"]["budgets"][0] == {
        "client": "ada", "period": "2030-01-02", "used": 14, "budget": 1000,
    }  # fmt: skip
    world.now += timedelta(hours=1, minutes=1)
    world.pass_seconds(12)
    record = UsageRecord.model_validate_json(usage_map(world)["data"]["usage.json"])
    assert [each.period for each in record.tokens] == ["2030-01-02"]


@pytest.mark.parametrize(
    ("period", "now", "over"),
    [
        (DAY, NOON, False),
        (DAY, datetime(2030, 1, 2, 0, 59, tzinfo=UTC), False),
        (DAY, datetime(2030, 1, 2, 1, 0, tzinfo=UTC), True),
        ("2030-01", datetime(2030, 1, 31, 23, tzinfo=UTC), False),
        ("2030-01", datetime(2030, 2, 1, 1, tzinfo=UTC), True),
        ("2031-01", NOON, False),
    ],
)
def test_the_end_of_a_period(period: str, now: datetime, over: bool) -> None:
    assert is_over(period, now) is over


def test_a_record_that_was_edited_is_begun_anew_and_said(world: World) -> None:
    count(world, "pod-0", 30)
    world.pass_seconds(12)
    world.edit(usage_map(world)["metadata"]["name"], "usage.json", "{broken")
    world.settle()
    assert "can't be read: tokens that were counted by deleted pods are lost" in world.events[-1].message
    world.pass_seconds(12)
    assert used(world) == 30


def largest_usage(pods: int) -> UsageRecord:
    """All clients with budgets, two periods of each."""
    runs = tuple(CountingRun(run=f"{number:032}", pod_uid=f"{number:036}") for number in range(pods))
    tokens = tuple(
        ClientTokens(
            client=f"{number:063}", period=period, budget=10**12, ended=10**12, counts=(1_234_567,) * pods
        )
        for number in range(MAX_CLIENTS)
        for period in ("2029-12-31", DAY)
    )
    return UsageRecord(runs=runs, tokens=tokens, written=NOON)


@pytest.mark.parametrize(("connected", "kept"), [(1000, 0), (980, 20), (500, 0)])
def test_the_record_fits_into_a_config_map_on_a_thousand_pods(connected: int, kept: int) -> None:
    record = largest_usage(1000)
    stored = record.within_limit({run.run for run in record.runs[:connected]})
    assert len(stored.to_json()) <= MAX_BYTES < 0.75 * 1024**2
    assert [len(each.counts) for each in stored.tokens] == [kept] * 2 * MAX_CLIENTS
    assert stored.runs == (record.runs[connected:] if kept else ())
    assert largest_usage(100).within_limit(()) == largest_usage(100)


def test_counts_that_have_no_room_are_kept_once_their_pod_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    count(world, "pod-0", 30)
    world.pass_seconds(20)
    monkeypatch.setattr(usage, "MAX_BYTES", len(usage_map(world)["data"]["usage.json"]) - 1)
    count(world, "pod-1", 12)
    world.pass_seconds(20)
    assert used(world) == 42
    assert UsageRecord.model_validate_json(usage_map(world)["data"]["usage.json"]).runs == ()
    world.remove_pod("pod-0")
    world.settle()
    world.ended.clear()
    world.settle()
    world.pass_seconds(12)
    assert used(world) == 42


def test_agents_can_not_make_the_record_grow(world: World) -> None:
    clients = tuple(
        ClientUsage(client=f"c{number}", period=DAY, tokens=1, budget=1) for number in range(2 * MAX_CLIENTS)
    )
    for pod in world.pods.values():
        assert pod.access is not None
        renamed = (each.model_copy(update={"client": f"{pod.name}-{each.client}"}) for each in clients)
        pod.access = pod.access.model_copy(update={"usage": tuple(renamed)})
    world.pass_seconds(12)
    record = UsageRecord.model_validate_json(usage_map(world)["data"]["usage.json"])
    assert len(record.tokens) == 2 * MAX_CLIENTS
    assert len(world.status["access"]["budgets"]) == 20


# -- shares of limits


def test_the_pods_that_share_limits_are_in_the_state(world: World) -> None:
    assert world.desired.pods == 2
    generation = world.desired.generation
    world.spec = {**world.spec, "replicas": 5}
    world.settle()
    assert (world.desired.pods, world.desired.generation) == (5, generation + 1)
    assert all(pod.desired and pod.desired.pods == 5 for pod in world.pods.values())


def test_without_keys_the_state_is_as_before() -> None:
    world = World(build_adapter("one"))
    world.settle()
    assert world.desired.pods is None and "pods" not in json.loads(world.desired.to_json())
    assert "access" not in world.status
    assert not any(body["metadata"]["name"].endswith("-usage") for body in world.of_kind("ConfigMap"))


# -- conditions


def condition(world: World) -> tuple[str, str, str]:
    found = world.condition("AccessRestricted")
    return found["status"], found["reason"], found["message"]


def test_a_service_without_keys_says_that_it_is_open() -> None:
    world = World(build_adapter("one"))
    without = world.environment
    world.environment = replace(without, serving_network=ServingNetwork())
    world.settle()
    assert condition(world) == (
        "False",
        "OpenToNetwork",
        "open to every client that the NetworkPolicy of the pods admits. To require keys, set access.keysSecretRef",
    )
    world.environment = without
    world.pass_seconds(12)
    assert "servingNetworkPolicy is switched off" in condition(world)[2]


def test_keys_are_asked_for(world: World) -> None:
    assert condition(world) == ("True", "KeysRequired", "clients with keys in Secret clients: 2")
    assert world.condition("Ready")["status"] == "True"


def test_a_missing_secret_is_said_with_what_to_write(world: World) -> None:
    for pod in world.pods.values():
        pod.access = AccessReport(run="x")
    world.settle()
    status, reason, message = condition(world)
    assert (status, reason) == ("True", "NoClients")
    assert 'kubectl create secret generic clients --from-literal=CLIENT=\'{"key": "…"}\'' in message
    assert world.condition("Stalled")["reason"] == "NoClients"
    assert world.reasons().count("NoClients") == 1
    world.pass_seconds(60)
    assert world.reasons().count("NoClients") == 1


def test_broken_entries_are_told_once_for_each_change(world: World) -> None:
    def break_entries(count: int, *names: str, message: str = "is no JSON object") -> None:
        faults = tuple(ClientFault(client=name, message=message) for name in names)
        world.pods["pod-1"].access = report("pod-1", fault_count=count, faults=faults)
        world.pass_seconds(25)

    break_entries(6, "a", "b", "c", "d", "e")
    assert condition(world)[1] == "InvalidClients"
    assert "a: is no JSON object; b:" in condition(world)[2] and condition(world)[2].endswith("and 2 others")
    assert world.condition("Ready")["status"] == "True"
    assert world.reasons().count("InvalidClients") == 1
    break_entries(99, *(4 * "x" for _ in range(4)), message="m" * 512)
    assert len(condition(world)[2]) == 1024 and condition(world)[2].endswith("and 95 others")
    break_entries(1, "b")
    assert world.reasons().count("InvalidClients") == 3
    assert world.events[-1].type == "Warning"


def test_pods_that_ask_for_no_keys_are_named(world: World) -> None:
    world.pods["pod-1"].access = None
    world.settle()
    assert condition(world) == (
        "False",
        "PodsOpen",
        "these pods require no keys until they are replaced: pod-1",
    )


def test_agents_that_have_not_come_back_change_nothing(world: World) -> None:
    """After a restart of the operator, pods are ready and their agents not yet connected."""
    before = world.condition("AccessRestricted")
    observed = world.observe()
    world.observe = lambda: replace(observed, agents=())  # type: ignore[method-assign]
    world.pass_seconds(30)
    assert world.condition("AccessRestricted") == before
    world.status = {}
    world.settle()
    assert condition(world) == ("Unknown", "EngineStarting", "no agent has reported yet")


def test_an_image_that_can_not_ask_for_keys_is_replaced() -> None:
    world = World(build_adapter("one"))
    world.settle()
    name = next(name for kind, name in world.objects if kind == "ConfigMap" and "-inputs-" in name)
    inputs = json.loads(world.objects["ConfigMap", name]["data"]["inputs.json"])
    assert inputs.pop("clientKeys") is True
    world.objects["ConfigMap", name]["data"]["inputs.json"] = json.dumps({**inputs, "image": "old:1"})
    world.settle()
    assert image(world) == "registry/serving:1"
    world.spec = {
        **world.spec,
        "engine": {"gpus": 0, "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "INFO"}]},
    }
    world.settle()
    assert image(world) == "old:1"
    world.spec = {**world.spec, "access": KEYS}
    world.settle()
    assert image(world) == "registry/serving:1"


def image(world: World) -> str:
    """Image of the pods that were wanted last."""
    deployment = world.of_kind("Deployment")[-1]
    assert deployment["metadata"]["name"].startswith(NAME)
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])
