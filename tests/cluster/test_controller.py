"""One pass per change; every failure is shown in the status and tried again."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from api_server.fake_api import FakeApi, until
from long_form import cases

from tunesmith.cluster import controller as controller_module
from tunesmith.cluster.controller import Controller
from tunesmith.cluster.reconciler import Reader, Reconciler
from tunesmith.controller_runtime.backoff import Backoff
from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.errors import ApiError, Conflict, Gone, Refused, Retryable
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.decide.plan import Create, Delete, Event, Plan, Publication, Push
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import API_VERSION, CONTROLLER_LABEL, OWNER_UID_LABEL
from tunesmith_contract.agent import AgentReport, DesiredState

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ENVIRONMENT = Environment("trainer", "serving", "https://operator", "pem")
CHILD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"namespace": "ns", "name": "child"},
}
BODY: dict[str, Any] = {
    "apiVersion": API_VERSION,
    "kind": "FineTuneJob",
    "metadata": {"namespace": "ns", "name": "job", "uid": "job-uid", "generation": 1},
    "spec": {"valid": True},
}


def parse(body: Any) -> Any:
    if not body["spec"]["valid"]:
        raise ValueError("write spec.valid: true")
    return body


async def observe(reader: Reader, resource: Any) -> Any:
    return await reader.client.list("v1", "ConfigMap", "ns")


def plan(resource: Any, observed: Any, now: datetime, environment: Environment) -> Plan:
    if observed:
        return Plan((), {"phase": "Made"})
    return Plan((Create(CHILD),), {"phase": "Made"}, (Event("Made", "made the child"),))


def plan_owned(*_: Any) -> Plan:
    child = {**CHILD, "metadata": {**CHILD["metadata"], "ownerReferences": [{"uid": "job-uid"}]}}
    return Plan((Create(child),), {"phase": "Made"})


class Harness:
    """A controller on an API server in memory."""

    def __init__(self, plan: Callable[..., Plan], name: str = "") -> None:
        self.api = FakeApi()
        client = cast(Client, self.api)
        self.recorder = EventRecorder(client, Metrics(), "pod")
        reconciler = Reconciler("FineTuneJob", parse, observe, plan, children=(("v1", "ConfigMap"),))
        self.controller = Controller(
            client, [reconciler], self.recorder, Metrics(), ENVIRONMENT, lambda: NOW, name
        )

    def add(self, **spec: Any) -> None:
        self.controller.handle_event("ADDED", self.api.add({**BODY, "spec": {"valid": True, **spec}}))

    @property
    def status(self) -> dict[str, Any]:
        body = self.api.objects.get(("FineTuneJob", "ns", "job"), {})
        status: dict[str, Any] = body.get("status", {})
        return status

    def condition(self, kind: str) -> tuple[str, str, str]:
        conditions = {item["type"]: item for item in self.status.get("conditions", ())}
        condition = conditions.get(kind, {})
        return condition.get("status", ""), condition.get("reason", ""), condition.get("message", "")


@asynccontextmanager
async def running(plan: Callable[..., Plan] = plan, name: str = "") -> AsyncIterator[Harness]:
    harness = Harness(plan, name)
    workers = [asyncio.create_task(harness.controller.work()) for _ in range(2)]
    try:
        yield harness
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        harness.controller.queue.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "LOAD_BACKOFF", Backoff(first=0.001, longest=0.001))
    for name in ("SETTLE_SECONDS", "REFUSED_SECONDS"):
        monkeypatch.setattr(controller_module, name, 0.01)
    monkeypatch.setattr(controller_module, "FAILURES_SHOWN", 2)


async def test_actions_then_status_then_events_in_two_writes() -> None:
    async with running() as harness:
        harness.add()
        await until(lambda: harness.status == {"phase": "Made"})
        writes = [call for call in harness.api.calls if call[0] != "list"]
        assert writes[:2] == [("create", "ConfigMap"), ("status", "FineTuneJob")]
        await harness.recorder.flush(1)
        [event] = [body for key, body in harness.api.objects.items() if key[0] == "Event"]
        assert (event["reason"], event["note"], event["regarding"]["uid"]) == (
            "Made",
            "made the child",
            "job-uid",
        )


async def test_a_refusal_is_shown_with_its_message_and_tried_again() -> None:
    async with running() as harness:
        refused = Refused("pods is forbidden: exceeded quota: small", 403, "Forbidden")
        harness.api.failures["create", "ConfigMap"] = [refused]
        harness.add()
        await until(lambda: harness.condition("Ready")[1] == "Refused")
        assert harness.condition("Ready") == ("False", "Refused", "pods is forbidden: exceeded quota: small")
        assert harness.condition("Reconciling")[0] == "True"
        await until(lambda: harness.status == {"phase": "Made"})


async def test_a_refused_job_is_shown_beside_the_rest_of_the_status_and_tried_again() -> None:
    def plan_job(resource: Any, observed: Any, now: datetime, environment: Environment) -> Plan:
        return Plan((Create(CHILD, condition="JobCreated"),), {"phase": "Training"})

    async with running(plan_job) as harness:
        harness.api.failures["create", "ConfigMap"] = [Refused("exceeded quota", 403, "Forbidden")] * 3
        harness.add()
        await until(lambda: harness.condition("JobCreated")[0] == "False")
        assert harness.status["phase"] == "Training"
        assert harness.condition("Ready") == ("False", "Refused", "exceeded quota")
        await until(lambda: harness.status == {"phase": "Training"})
        assert ("ConfigMap", "ns", "child") in harness.api.objects


async def test_an_invalid_spec_stalls_until_it_is_changed() -> None:
    async with running() as harness:
        harness.add(valid=False)
        await until(lambda: harness.condition("Stalled")[0] == "True")
        assert harness.condition("Stalled") == ("True", "Invalid", "write spec.valid: true")
        assert ("ConfigMap", "ns", "child") not in harness.api.objects
        harness.add()
        await until(lambda: harness.status == {"phase": "Made"})


async def test_a_pass_in_progress_ends_and_agents_are_told_before_the_operator_ends() -> None:
    """Between the state that pods mount and its way to their agents there is nothing that a signal could cut off."""
    written, go_on = asyncio.Event(), asyncio.Event()
    desired = DesiredState(generation=1)

    def publish(*_: Any) -> Plan:
        return Plan(
            (Create(CHILD), Push(Publication(desired, DesiredState(generation=0)))), {"phase": "Made"}
        )

    async with running(publish) as harness:
        create = harness.api.create

        async def write(manifest: Any) -> Any:
            written.set()
            await go_on.wait()
            return await create(manifest)

        harness.api.create = write  # type: ignore[method-assign]
        hub = harness.controller.live.agents
        connection = hub.connect("job-uid", "pod")
        report = AgentReport(
            pod_name="pod", pod_uid="pod", boot_id="b", engine_ready=True, applied_generation=0
        )
        hub.report("job-uid", report, NOW)
        known = {**BODY, "status": {"observedGeneration": 1}}
        harness.controller.handle_event("ADDED", harness.api.add(known))
        await written.wait()
        draining = asyncio.create_task(harness.controller.drain())
        sender = asyncio.create_task(connection.next())
        await asyncio.sleep(0)
        go_on.set()
        assert await sender == desired
        following = asyncio.create_task(connection.next())
        await draining
        assert harness.status == {"phase": "Made"}
        following.cancel()


async def test_a_conflict_is_read_again() -> None:
    async with running() as harness:
        harness.api.failures["status", "FineTuneJob"] = [Conflict("modified", 409, "Conflict")]
        harness.add()
        await until(lambda: harness.status == {"phase": "Made"})
        assert ("get", "FineTuneJob") in harness.api.calls


async def test_a_name_that_somebody_else_has_is_told_until_it_is_free() -> None:
    async with running(plan_owned) as harness:
        stranger = {**CHILD, "metadata": {**CHILD["metadata"], "ownerReferences": [{"uid": "stranger"}]}}
        harness.api.add(stranger)
        harness.add()
        await until(lambda: harness.condition("Ready")[1] == "NameTaken")
        assert harness.condition("Ready")[2].startswith("ConfigMap child exists already and is not this")
        assert harness.status.get("phase") is None
        del harness.api.objects["ConfigMap", "ns", "child"]
        await until(lambda: harness.status == {"phase": "Made"})


@pytest.mark.parametrize(
    ("errors", "reason"),
    [([Retryable("webhook is away", 500)] * 3, "ApiUnavailable"), ([ApiError("odd")] * 3, "ApiUnavailable")],
)
async def test_repeated_failures_are_shown(errors: list[ApiError], reason: str) -> None:
    async with running() as harness:
        harness.api.failures["create", "ConfigMap"] = [*errors]
        harness.add()
        await until(lambda: harness.condition("Ready")[1] == reason)
        await until(lambda: harness.status == {"phase": "Made"})


async def test_a_fault_of_the_operator_shows_no_secret() -> None:
    def broken(*_: Any) -> Plan:
        raise KeyError("hf_secret")

    async with running(broken) as harness:
        harness.add()
        await until(lambda: harness.condition("Ready")[1] == "InternalError")
        assert harness.condition("Ready")[2] == "KeyError in the operator; see its log"


async def test_a_status_that_cannot_be_merged_does_not_end_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> Plan:
        raise KeyError("status")

    async with running(broken) as harness:
        body = {**BODY, "status": {"conditions": [{"type": "Ready"}]}}
        harness.controller.handle_event("ADDED", harness.api.add(body))
        await until(lambda: "status not written" in caplog.text)
        harness.api.objects.clear()
        other = {**BODY, "metadata": {**BODY["metadata"], "name": "other", "uid": "other"}}
        harness.controller.handle_event("ADDED", harness.api.add(other))
        await until(lambda: harness.api.objects["FineTuneJob", "ns", "other"].get("status"))


async def test_a_resource_whose_deletion_was_missed_is_forgotten() -> None:
    async with running() as harness:
        body = harness.api.add(BODY)
        harness.api.objects.clear()
        harness.api.failures["status", "FineTuneJob"] = [Gone("not found", 404, "NotFound")]
        harness.controller.handle_event(None, body)
        await until(lambda: harness.controller.bodies.of_kind("FineTuneJob") == ())
        assert ("get", "FineTuneJob") in harness.api.calls


async def test_all_resources_are_listed_before_any_is_reconciled() -> None:
    harness = Harness(plan)
    for name in ("job", "other"):
        harness.api.add({**BODY, "metadata": {**BODY["metadata"], "name": name, "uid": name}})
    harness.api.failures["list", "FineTuneJob"] = [Retryable("away")]
    await harness.controller.load()
    assert {body["metadata"]["name"] for body in harness.controller.bodies.of_kind("FineTuneJob")} == {
        "job",
        "other",
    }
    assert len(harness.controller.queue) == 2
    harness.controller.queue.close()


async def test_resync_finds_what_the_watch_missed() -> None:
    async with running() as harness:
        harness.add()
        await until(lambda: harness.status == {"phase": "Made"})
        harness.api.add({**BODY, "metadata": {**BODY["metadata"], "name": "missed", "uid": "u2"}})
        del harness.api.objects["FineTuneJob", "ns", "job"]
        await harness.controller.resync_kind("FineTuneJob")
        bodies = harness.controller.bodies.of_kind("FineTuneJob")
        assert {body["metadata"]["name"] for body in bodies} == {"missed"}
        await until(
            lambda: harness.api.objects["FineTuneJob", "ns", "missed"].get("status") == {"phase": "Made"}
        )


async def test_resync_takes_over_older_data_of_a_restored_server() -> None:
    async with running() as harness:
        harness.add()
        await until(lambda: harness.status == {"phase": "Made"})
        lost = {**BODY, "metadata": {**BODY["metadata"], "name": "lost", "uid": "lost"}}
        harness.controller.handle_event("ADDED", harness.api.add(lost))
        await harness.controller.resync_kind("FineTuneJob")
        assert not harness.controller.went_back.is_set()
        harness.api.objects.clear()
        harness.api.version = 1
        harness.add()
        resync = asyncio.create_task(harness.controller.resync())
        harness.controller.resync_soon()
        await until(harness.controller.went_back.is_set)
        await until(lambda: harness.status == {"phase": "Made"})
        bodies = harness.controller.bodies.of_kind("FineTuneJob")
        await until(lambda: len(harness.controller.bodies.of_kind("FineTuneJob")) == 1)
        assert int(bodies[0]["metadata"]["resourceVersion"]) <= harness.api.version
        resync.cancel()
        await asyncio.gather(resync, return_exceptions=True)


async def test_a_resync_that_was_asked_for_takes_over_older_data_though_versions_have_caught_up() -> None:
    async with running() as harness:
        harness.add()
        await until(lambda: harness.status == {"phase": "Made"})
        key = "FineTuneJob", "ns", "job"
        backup = {**harness.api.objects[key], "status": {}}
        backup["metadata"] = {**backup["metadata"], "resourceVersion": "1"}
        harness.api.version += 1000
        harness.api.objects[key] = backup
        harness.api.failures["list", "FineTuneJob"] = [Retryable("the API server starts")]
        resync = asyncio.create_task(harness.controller.resync())
        harness.controller.resync_soon()
        await until(lambda: harness.status == {"phase": "Made"})
        assert harness.controller.went_back.is_set()
        resync.cancel()
        await asyncio.gather(resync, return_exceptions=True)


async def test_a_job_of_a_run_that_had_ended_before_a_restore_is_left_alone() -> None:
    """What was known of the run, and what is listed of its children, are of different times until all is listed."""
    leftover: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"namespace": "ns", "name": "train-1"},
    }

    def plan_end(resource: Any, observed: Any, now: datetime, environment: Environment) -> Plan:
        ended = resource["status"].get("phase") == "Succeeded"
        delete = Delete("batch/v1", "Job", "ns", "train-1", "uid-of-job")
        return Plan((delete,) if ended else (), resource["status"] | {"observedGeneration": 1})

    async with running(plan_end) as harness:
        fence, controller = harness.controller.fence, harness.controller
        harness.add()
        body = harness.api.add({**BODY, "status": {"phase": "Succeeded", "observedGeneration": 1}})
        controller.handle_event("MODIFIED", body)
        await until(lambda: ("delete", "Job") in harness.api.calls)
        harness.api.calls.clear()
        # The API server is away, and comes back as it was when the run trained.
        fence.doubt()
        backup = {**BODY, "status": {"phase": "Training", "observedGeneration": 1}}
        backup["metadata"] = {**BODY["metadata"], "resourceVersion": "1"}
        harness.api.objects["FineTuneJob", "ns", "job"] = backup
        harness.api.add(leftover | {"metadata": {**leftover["metadata"], "uid": "uid-of-job"}})
        harness.api.version += 1000
        controller.child_changed("job-uid")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not harness.api.calls
        # The lease tells.
        controller.resync_soon()
        fence.confirm(1)
        resync = asyncio.create_task(controller.resync())
        await until(lambda: controller.went_back.is_set() and not len(controller.queue))
        assert ("delete", "Job") not in harness.api.calls
        await fence.wait()
        resync.cancel()
        await asyncio.gather(resync, return_exceptions=True)


async def test_a_pass_that_a_restore_interrupts_ends_before_its_next_action() -> None:
    def plan_two(resource: Any, observed: Any, now: datetime, environment: Environment) -> Plan:
        if "phase" in resource.get("status", {}):
            return Plan((), resource["status"])
        first, second = ({**CHILD, "metadata": {"namespace": "ns", "name": name}} for name in ("a", "b"))
        return Plan((Create(first), Create(second)), {"phase": "Made"})

    async with running(plan_two) as harness:
        create, controller = harness.api.create, harness.controller

        async def interrupted(manifest: Any) -> Any:
            harness.api.create = create  # type: ignore[method-assign]
            made = await create(manifest)
            controller.resync_soon()
            return made

        harness.api.create = interrupted  # type: ignore[method-assign]
        harness.add()
        await until(lambda: ("create", "ConfigMap") in harness.api.calls)
        for _ in range(20):
            await asyncio.sleep(0)
        assert harness.api.calls.count(("create", "ConfigMap")) == 1
        resync = asyncio.create_task(controller.resync())
        await until(lambda: ("ConfigMap", "ns", "b") in harness.api.objects)
        resync.cancel()
        await asyncio.gather(resync, return_exceptions=True)


def build_named(name: str, **status: Any) -> dict[str, Any]:
    return {**BODY, "metadata": {**BODY["metadata"], "name": name, "uid": name}, "status": status}


async def test_passes_that_find_nothing_to_do_leave_turns_to_others() -> None:
    turns = passes = 0

    def plan_nothing(resource: Any, *_: Any) -> Plan:
        nonlocal passes
        passes += 1
        return Plan((), resource["status"])

    async with running(plan_nothing) as harness:
        for number in range(100):
            body = harness.api.add(build_named(f"ended-{number}", phase="Succeeded", observedGeneration=1))
            harness.controller.handle_event("MODIFIED", body)
        while passes < 100:
            turns += 1
            await asyncio.sleep(0)
    # Two workers have a pass each in a turn.
    assert turns >= 50


async def test_what_has_ended_is_looked_at_after_all_that_has_not() -> None:
    harness = Harness(plan)
    for number in range(3):
        harness.api.add(build_named(f"ended-{number}", phase="Succeeded", observedGeneration=1))
    harness.api.add(build_named("live", phase="Training", observedGeneration=1))
    await harness.controller.load()
    queue = harness.controller.queue
    order = [(await queue.get()).name for _ in range(4)]
    assert order == ["live", "ended-0", "ended-1", "ended-2"]
    queue.close()


async def test_a_resync_looks_at_what_has_ended_only_where_it_has_changed() -> None:
    async with running(lambda *_: Plan((), {"phase": "Succeeded"})) as harness:
        bodies = [harness.api.add(build_named(f"ended-{number}", phase="Succeeded")) for number in range(3)]
        passes = harness.controller._metrics.reconciles.labels("FineTuneJob", "done")
        for body in bodies:
            harness.controller.handle_event(None, body)
        await until(lambda: passes._value.get() >= 3 and not len(harness.controller.queue))
        harness.controller.queue.close()
        harness.api.add({**bodies[1], "spec": {"valid": True, "suspend": True}})
        queued: list[str] = []
        harness.controller.queue.add = lambda key, urgent=False: queued.append(key.name)  # type: ignore[method-assign]
        await harness.controller.resync_kind("FineTuneJob")
        assert queued == ["ended-1"]
        queued.clear()
        await harness.controller.resync_kind("FineTuneJob", went_back=True)
        assert sorted(queued) == ["ended-0", "ended-1", "ended-2"]


def build_labeled(name: str, owner: str) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "labels": {OWNER_UID_LABEL: owner}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


async def test_children_of_resources_that_have_not_ended_are_listed_anew() -> None:
    harness = Harness(plan)
    index = harness.api.index
    index.follow("v1", "ConfigMap", lambda: True)
    for uid, status in (("live", {}), ("ended", {"phase": "Succeeded"})):
        body = {**BODY, "metadata": {**BODY["metadata"], "name": uid, "uid": uid}, "status": status}
        harness.controller.handle_event(None, harness.api.add(body))
        index.put("v1", "ConfigMap", harness.api.add(build_labeled(f"ghost of {uid}", uid)))
        del harness.api.objects["ConfigMap", "ns", f"ghost of {uid}"]
        harness.api.add(build_labeled(f"missed of {uid}", uid))

    def known(uid: str) -> list[str]:
        return [body["metadata"]["name"] for body in index.find("v1", "ConfigMap", uid) or ()]

    refreshing = asyncio.create_task(harness.controller.refresh_children(0.01))
    await until(lambda: known("live") == ["missed of live"])
    assert known("ended") == ["ghost of ended"]
    refreshing.cancel()
    await asyncio.gather(refreshing, return_exceptions=True)
    harness.controller.queue.close()


ODD_STATUSES: list[Any] = [{"checkpoints": ["odd"]}, {"adapters": 5}, "odd", {"conditions": ["odd"]}]


@pytest.mark.parametrize("status", ODD_STATUSES)
async def test_an_odd_resource_ends_no_worker_and_no_list(status: Any) -> None:
    async with running() as harness:
        odd = {**BODY, "metadata": {**BODY["metadata"], "name": "odd", "uid": "odd"}, "status": status}
        harness.api.add(odd)
        harness.add()
        await harness.controller.load()
        for version in ("ADDED", "MODIFIED"):
            harness.controller.handle_event(version, harness.api.add(odd))
        await harness.controller.resync_kind("FineTuneJob")
        await until(lambda: harness.status == {"phase": "Made"})


async def test_a_failure_that_no_status_can_hold_is_told_in_an_event() -> None:
    def broken(*_: Any) -> Plan:
        raise KeyError("status")

    async with running(broken) as harness:
        body = {**BODY, "status": {"conditions": [{"type": "Ready"}]}}
        harness.controller.handle_event("ADDED", harness.api.add(body))
        await until(harness.recorder._queue.qsize)
        await harness.recorder.flush(1)
        [event] = [body for key, body in harness.api.objects.items() if key[0] == "Event"]
        assert event["reason"] == "InternalError"


async def test_a_resource_that_was_deleted_during_its_write_is_no_ghost() -> None:
    async with running() as harness:
        written, deleted = asyncio.Event(), asyncio.Event()
        replace_status = harness.api.replace_status

        async def slow(body: Any, status: Any) -> Any:
            after = await replace_status(body, status)
            written.set()
            await deleted.wait()
            return after

        harness.api.replace_status = slow  # type: ignore[method-assign]
        harness.add()
        await written.wait()
        harness.controller.handle_event("DELETED", harness.api.objects["FineTuneJob", "ns", "job"])
        deleted.set()
        await until(lambda: not harness.controller.queue._working)
        assert harness.controller.bodies.of_kind("FineTuneJob") == ()


@pytest.mark.parametrize(("name", "acts_on"), [("", {"plain"}), ("a", {"of-a"})])
async def test_resources_of_another_controller_are_left_alone(name: str, acts_on: set[str]) -> None:
    async with running(name=name) as harness:
        for resource, labels in (
            ("plain", {}),
            ("of-a", {CONTROLLER_LABEL: "a"}),
            ("of-b", {CONTROLLER_LABEL: "b"}),
        ):
            metadata = {**BODY["metadata"], "name": resource, "uid": resource, "labels": labels}
            harness.controller.handle_event("ADDED", harness.api.add({**BODY, "metadata": metadata}))
        jobs = [key for key in harness.api.objects if key[0] == "FineTuneJob"]

        def with_status() -> set[str]:
            return {name for _, _, name in jobs if "status" in harness.api.objects["FineTuneJob", "ns", name]}

        await until(lambda: with_status() >= acts_on)
        await until(lambda: not harness.controller.queue._working and not len(harness.controller.queue))
        assert with_status() == acts_on


def resource(name: str, **status: Any) -> dict[str, Any]:
    body = {**BODY, "metadata": {**BODY["metadata"], "name": name, "uid": f"uid-{name}"}}
    return body | {"status": status} if status else body


def plan_child(resource: Any, observed: Any, now: datetime, environment: Environment) -> Plan:
    """A child of its own, and then a status that counts the children of all."""
    name = resource["metadata"]["name"]
    if any(child["metadata"]["name"] == name for child in observed):
        return Plan((), {"children": len(observed), "observedGeneration": 1})
    child = {**CHILD, "metadata": {"namespace": "ns", "name": name}}
    return Plan((Create(child),), {"children": len(observed), "observedGeneration": 1})


async def test_the_children_of_all_new_resources_come_before_the_status_of_any() -> None:
    async with running(plan_child) as harness:
        for number in range(20):
            harness.controller.handle_event("ADDED", harness.api.add(resource(f"job-{number}")))

        def statuses() -> list[Any]:
            jobs = [body for key, body in harness.api.objects.items() if key[0] == "FineTuneJob"]
            return [body["status"]["children"] for body in jobs if "status" in body]

        await until(lambda: len(statuses()) == 20)
        writes = [call for call in harness.api.calls if call[0] != "list"]
        assert writes == [("create", "ConfigMap")] * 20 + [("status", "FineTuneJob")] * 20
        assert statuses() == [20] * 20


async def test_the_status_of_a_new_resource_does_not_wait_where_an_action_is_refused() -> None:
    def plan_job(*_: Any) -> Plan:
        return Plan((Create(CHILD, condition="JobCreated"),), {"phase": "Training"})

    async with running(plan_job) as harness:
        harness.api.failures["create", "ConfigMap"] = [Refused("exceeded quota", 403, "Forbidden")]
        harness.add()
        await until(lambda: harness.status)
        assert harness.condition("JobCreated")[0] == "False"
        assert harness.api.calls.count(("create", "ConfigMap")) == 1


async def test_many_changes_of_children_lead_to_one_pass() -> None:
    def plan_nothing(*_: Any) -> Plan:
        return Plan()

    async with running(plan_nothing) as harness:
        harness.controller.handle_event(None, harness.api.add(resource("job", observedGeneration=1)))
        await until(lambda: harness.api.calls == [("list", "ConfigMap")])
        for _ in range(20):
            harness.controller.child_stepped("uid-job")
            await asyncio.sleep(0)
        queue = harness.controller.queue
        await until(lambda: not queue._soon and not queue._working and not len(queue))
        assert harness.api.calls == [("list", "ConfigMap")] * 2


async def test_the_echo_of_a_status_leads_to_no_pass_also_where_it_overtakes_the_answer() -> None:
    async with running() as harness:
        replace_status = harness.api.replace_status

        async def overtaken(body: Any, status: Any) -> Any:
            after = await replace_status(body, status)
            harness.controller.handle_event("MODIFIED", after)
            await asyncio.sleep(0)
            return after

        harness.api.replace_status = overtaken  # type: ignore[method-assign]
        harness.api.add(CHILD)
        harness.controller.handle_event("ADDED", harness.api.add(resource("job")))
        await until(lambda: ("status", "FineTuneJob") in harness.api.calls)
        await until(lambda: not harness.controller.queue._working and not len(harness.controller.queue))
        assert harness.api.calls.count(("list", "ConfigMap")) == 1


async def test_a_change_of_a_resource_during_its_pass_leads_to_another_pass() -> None:
    """A person's change that overtakes the answer to a write is no echo."""
    specs: list[Any] = []

    def plan_spec(resource: Any, observed: Any, *_: Any) -> Plan:
        specs.append(resource["spec"])
        return Plan((), {"phase": "Made"})

    async with running(plan_spec) as harness:
        replace_status = harness.api.replace_status

        async def overtaken(body: Any, status: Any) -> Any:
            after = await replace_status(body, status)
            changed = harness.api.add({**after, "spec": {"valid": True, "epochs": 2}})
            harness.controller.handle_event("MODIFIED", changed)
            return after

        harness.api.replace_status = overtaken  # type: ignore[method-assign]
        harness.add()
        await until(lambda: specs[-1:] == [{"valid": True, "epochs": 2}])


@pytest.mark.parametrize("seed", range(cases(10, 500)))
async def test_no_change_is_lost_whatever_the_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the end the status says what the last change of the spec and of the children was, and nothing goes on."""
    monkeypatch.setattr(controller_module, "DEBOUNCE_SECONDS", 0.003)
    choose, latest = random.Random(seed), {"child": 0, "spec": 0}

    def plan_latest(resource: Any, observed: Any, *_: Any) -> Plan:
        status = {
            "child": latest["child"],
            "spec": resource["spec"].get("number", 0),
            "observedGeneration": 1,
        }
        return Plan(() if observed else (Create(CHILD),), status)

    async with running(plan_latest) as harness:
        controller, replace_status = harness.controller, harness.api.replace_status

        async def interrupted(body: Any, status: Any) -> Any:
            after = await replace_status(body, status)
            if choose.random() < 0.5:
                controller.handle_event("MODIFIED", after)
            await asyncio.sleep(choose.choice((0, 0.001)))
            return after

        harness.api.replace_status = interrupted  # type: ignore[method-assign]
        harness.add()
        for number in range(1, 40):
            match choose.randrange(4):
                case 0:
                    latest["spec"] = number
                    known = harness.api.objects["FineTuneJob", "ns", "job"]
                    changed = {**known, "spec": {"valid": True, "number": number}}
                    controller.handle_event("MODIFIED", harness.api.add(changed))
                case 1:
                    latest["child"] = number
                    choose.choice((controller.child_stepped, controller.child_changed))("job-uid")
                case 2:
                    harness.api.failures["status", "FineTuneJob"] = [Conflict("modified", 409, "Conflict")]
            await asyncio.sleep(choose.choice((0, 0, 0.001, 0.004)))
        queue = controller.queue
        await until(lambda: harness.status == {**latest, "observedGeneration": 1})
        await until(lambda: not (queue._soon or queue._timers or queue._working or len(queue)))
        assert harness.status == {**latest, "observedGeneration": 1}
