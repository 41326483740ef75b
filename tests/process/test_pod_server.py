"""Requests of pods: only for their own resource, only valid ones, only at the leader."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from api_server.fake_api import FakeApi, until

from tunesmith.cluster.controller import Controller
from tunesmith.controller_runtime.errors import Retryable
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.controller_runtime.tokens import Forbidden, PodIdentity, Unauthenticated
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import API_VERSION
from tunesmith.process import pods
from tunesmith.process.pods import MAX_PROGRESS_BYTES, PodServer, build_pod_app
from tunesmith_contract.agent import AGENT_PATH, AgentReport, CountedTokens, DesiredState, UsageOfOthers
from tunesmith_contract.progress import PROGRESS_PATH

PROGRESS = PROGRESS_PATH.format(namespace="ns", plural="finetunejobs", name="job")
AGENT = AGENT_PATH.format(namespace="ns", name="serve")
TOKEN = {"Authorization": "Bearer good"}
UPDATE = {"trainerStatus": {"lastUpdatedTime": "2030-01-01T00:00:00Z", "progressPercentage": 42}}


class Reviewer:
    """Knows one token, of the pod of every resource but those of the name ``foreign``."""

    async def identify(self, token: str) -> PodIdentity:
        if token == "down":
            raise Retryable("away")
        if token != "good":
            raise Unauthenticated("unknown token")
        return PodIdentity("ns", "pod-0", "pod-uid")

    async def labels(self, identity: PodIdentity, owner_uid: str) -> dict[str, str]:
        if owner_uid == "foreign":
            raise Forbidden("not yours")
        return {"stage": "train"}


def build_body(kind: str, name: str) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1"}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": {}}


@asynccontextmanager
async def serving(leading: bool = True) -> AsyncIterator[tuple[Any, Controller]]:
    api: Any = FakeApi()
    environment = Environment("t", "s", "u", "c")
    controller = Controller(api, [], EventRecorder(api, Metrics(), "pod"), Metrics(), environment)
    for kind, name in (("FineTuneJob", "job"), ("FineTuneJob", "foreign"), ("AdapterDeployment", "serve")):
        controller.bodies.put(build_body(kind, name))
    reviewer: Any = Reviewer()
    server = PodServer(reviewer, Metrics(), controller if leading else None)
    async with TestClient(TestServer(build_pod_app(server))) as client:
        yield client, controller
    controller.queue.close()


async def test_progress_is_kept_and_wakes_its_resource() -> None:
    async with serving() as (client, controller):
        response = await client.post(PROGRESS, headers=TOKEN, json=UPDATE)
        assert response.status == 204
        progress = controller.live.progress.latest("job")
        assert progress is not None
        assert (progress.status.progress_percentage, progress.labels) == (42, {"stage": "train"})
        assert (await controller.queue.get()).name == "job"


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "sentence"),
    [
        (PROGRESS, {}, UPDATE, 401, "bearer token"),
        (PROGRESS, {"Authorization": "Bearer bad"}, UPDATE, 401, "unknown token"),
        (PROGRESS, {"Authorization": "Bearer down"}, UPDATE, 503, "checked now"),
        (
            PROGRESS.replace("job", "other").replace("finetuneothers", "finetunejobs"),
            TOKEN,
            UPDATE,
            403,
            "name",
        ),
        (PROGRESS.replace("/ns/", "/ns2/"), TOKEN, UPDATE, 403, "namespace"),
        (PROGRESS.removesuffix("job") + "foreign", TOKEN, UPDATE, 403, "not yours"),
        (PROGRESS.replace("finetunejobs", "pods"), TOKEN, UPDATE, 404, "no kind pods"),
        (PROGRESS, TOKEN, {"trainerStatus": {}}, 400, "lastUpdatedTime"),
        (PROGRESS, TOKEN, {"x": "x" * MAX_PROGRESS_BYTES}, 413, ""),
    ],
)
async def test_everything_else_is_refused_with_a_sentence(
    path: str, headers: dict[str, str], body: Any, status: int, sentence: str
) -> None:
    async with serving() as (client, controller):
        response = await client.post(path, headers=headers, json=body)
        assert response.status == status
        assert sentence in await response.text()
        assert controller.live.progress.latest("job") is None


async def test_a_replica_that_does_not_lead_says_so() -> None:
    async with serving(leading=False) as (client, _):
        for call in (client.post(PROGRESS, headers=TOKEN, json=UPDATE), client.get(AGENT, headers=TOKEN)):
            response = await call
            assert (response.status, await response.text()) == (503, "another replica leads")


@pytest.mark.parametrize(("method", "path"), [("POST", PROGRESS), ("GET", AGENT)])
async def test_tokens_that_are_reviewed_at_a_time_are_bounded_whatever_the_headers(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    monkeypatch.setattr(pods, "MAX_REQUESTS", 1)
    monkeypatch.setattr(pods, "MAX_ARRIVING_AGENTS", 1)
    reviewed, answer = asyncio.Event(), asyncio.Event()

    async def review(self: Reviewer, token: str) -> PodIdentity:
        reviewed.set()
        await answer.wait()
        raise Unauthenticated("unknown token")

    monkeypatch.setattr(Reviewer, "identify", review)
    headers = {"Authorization": "Bearer bad", "Upgrade": "websocket", "Connection": "Upgrade"}
    async with serving() as (client, _):
        first = asyncio.create_task(client.request(method, path, headers=headers))
        await reviewed.wait()
        second = await client.request(method, path, headers=headers)
        assert (second.status, second.headers["Retry-After"]) == (503, "2")
        answer.set()
        assert (await first).status == 401


def build_report(**changes: Any) -> str:
    report = AgentReport(
        pod_name="pod-0", pod_uid="pod-uid", boot_id="b", engine_ready=True, applied_generation=0
    )
    return report.model_copy(update=changes).to_json()


async def test_agents_report_and_are_told_what_to_serve() -> None:
    async with serving() as (client, controller):
        hub = controller.live.agents
        hub.push("serve", DesiredState(generation=1))
        async with client.ws_connect(AGENT, headers=TOKEN) as agent:
            await agent.send_str(build_report())
            assert json.loads(await agent.receive_str(timeout=5))["generation"] == 1
            counted = CountedTokens(client="ada", period="2030-01", tokens=5)
            usage = UsageOfOthers(counted_by_others=(counted,))
            hub.tell("serve", {"pod-uid": usage})
            assert UsageOfOthers.model_validate_json(await agent.receive_str(timeout=5)) == usage
            hub.push("serve", DesiredState(generation=2))
            assert json.loads(await agent.receive_str(timeout=5))["generation"] == 2
            await agent.send_str(build_report(applied_generation=2))
            await until(lambda: hub.states("serve")[0].report.applied_generation == 2)
            [state] = hub.states("serve")
            assert (state.report.applied_generation, state.connected) == (2, True)
            assert state.received.tzinfo is UTC
            assert state.received <= datetime.now(UTC)
        await until(lambda: not hub.states("serve")[0].connected)


@pytest.mark.parametrize(
    ("message", "code"),
    [("{}", 1007), ("nonsense", 1007), (build_report(pod_uid="another"), 1008), (b"binary", 1003)],
)
async def test_an_invalid_report_closes_the_connection_with_a_reason(message: Any, code: int) -> None:
    async with serving() as (client, controller), client.ws_connect(AGENT, headers=TOKEN) as agent:
        await (agent.send_bytes(message) if isinstance(message, bytes) else agent.send_str(message))
        closing = await agent.receive(timeout=5)
        assert (closing.type, closing.data) == (WSMsgType.CLOSE, code)
        assert closing.extra
        assert controller.live.agents.states("serve") == ()
