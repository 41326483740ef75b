"""One pass per change; every failure is told to people and tried again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from fake_api import FakeApi, until

from tunesmith.cluster import controller as controller_module
from tunesmith.cluster.controller import Controller
from tunesmith.cluster.reconciler import Reconciler
from tunesmith.controller_runtime.errors import ApiError, Conflict, Refused, Retryable
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.decide.plan import Create, Event, Plan
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import API_VERSION

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ENVIRONMENT = Environment("trainer", "serving", "https://operator", "pem")
CHILD = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": "child"}}
BODY = {
    "apiVersion": API_VERSION,
    "kind": "FineTuneJob",
    "metadata": {"namespace": "ns", "name": "job", "uid": "job-uid", "generation": 1},
    "spec": {"valid": True},
}


def parse(body: Any) -> Any:
    if not body["spec"]["valid"]:
        raise ValueError("write spec.valid: true")
    return body


async def observe(client: Any, resource: Any, live: Any, environment: Environment) -> Any:
    return await client.list("v1", "ConfigMap", "ns")


def plan(resource: Any, observed: Any, now: datetime, environment: Environment) -> Plan:
    return Plan((Create(CHILD),), {"phase": "Made"}, (Event("Made", "made the child"),))


class Harness:
    """A controller on an API server in memory."""

    def __init__(self, plan: Callable[..., Plan]) -> None:
        self.api: Any = FakeApi()
        self.recorder = EventRecorder(self.api, Metrics(), "pod")
        reconciler = Reconciler("FineTuneJob", parse, observe, plan)
        self.controller = Controller(
            self.api, [reconciler], self.recorder, Metrics(), ENVIRONMENT, lambda: NOW
        )

    def add(self, **spec: Any) -> None:
        self.controller.seen("ADDED", self.api.add({**BODY, "spec": {"valid": True, **spec}}))

    @property
    def status(self) -> dict[str, Any]:
        body = self.api.objects.get(("FineTuneJob", "ns", "job"), {})
        status: dict[str, Any] = body.get("status", {})
        return status

    def condition(self, kind: str) -> tuple[str, str, str]:
        [found] = [item for item in self.status.get("conditions", ()) if item["type"] == kind] or [{}]
        return found.get("status", ""), found.get("reason", ""), found.get("message", "")


@asynccontextmanager
async def running(plan: Callable[..., Plan] = plan) -> AsyncIterator[Harness]:
    harness = Harness(plan)
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
    for name in ("SETTLE_SECONDS", "REFUSED_SECONDS"):
        monkeypatch.setattr(controller_module, name, 0.01)
    monkeypatch.setattr(controller_module, "PATIENCE", 2)


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


async def test_a_refusal_is_told_in_its_own_words_and_tried_again() -> None:
    async with running() as harness:
        refused = Refused("pods is forbidden: exceeded quota: small", 403, "Forbidden")
        harness.api.failures["create", "ConfigMap"] = [refused]
        harness.add()
        await until(lambda: harness.condition("Ready")[1] == "Refused")
        assert harness.condition("Ready") == ("False", "Refused", "pods is forbidden: exceeded quota: small")
        assert harness.condition("Reconciling")[0] == "True"
        await until(lambda: harness.status == {"phase": "Made"})


async def test_what_makes_no_sense_stalls_until_it_is_changed() -> None:
    async with running() as harness:
        harness.add(valid=False)
        await until(lambda: harness.condition("Stalled")[0] == "True")
        assert harness.condition("Stalled") == ("True", "Invalid", "write spec.valid: true")
        assert ("ConfigMap", "ns", "child") not in harness.api.objects
        harness.add()
        await until(lambda: harness.status == {"phase": "Made"})


async def test_a_conflict_is_read_again() -> None:
    async with running() as harness:
        harness.api.failures["status", "FineTuneJob"] = [Conflict("modified", 409, "Conflict")]
        harness.add()
        await until(lambda: harness.status == {"phase": "Made"})
        assert ("get", "FineTuneJob") in harness.api.calls


@pytest.mark.parametrize(
    ("errors", "reason"),
    [([Retryable("webhook is away", 500)] * 3, "ApiUnavailable"), ([ApiError("odd")] * 3, "ApiUnavailable")],
)
async def test_what_fails_again_and_again_is_told(errors: list[ApiError], reason: str) -> None:
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
