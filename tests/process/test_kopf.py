"""kopf's watches against an API server that fails: they go on, or the process ends; they never die in silence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from api_server.api_connections import connection_to, serving
from api_server.watch_answers import Answer, stream

from tunesmith.controller_runtime.backoff import Backoff
from tunesmith.manifests.names import GROUP
from tunesmith.process.watching import NoMemories, keep_watching, missing_watchers, watch_resources

VERBS = ["list", "watch", "patch"]
NAMESPACE = {
    "name": "namespaces",
    "kind": "Namespace",
    "singularName": "",
    "namespaced": False,
    "verbs": VERBS,
}
RESOURCE = {
    "name": "finetunejobs",
    "kind": "FineTuneJob",
    "singularName": "",
    "namespaced": True,
    "verbs": VERBS,
}
CRD = {
    "name": "customresourcedefinitions",
    "kind": "CustomResourceDefinition",
    "singularName": "",
    "namespaced": False,
}
DISCOVERY: dict[str, Any] = {
    "/api": {"versions": ["v1"]},
    "/api/v1": {"resources": [NAMESPACE]},
    "/apis": {
        "groups": [
            {"name": group, "versions": [{"version": version}], "preferredVersion": {"version": version}}
            for group, version in ((GROUP, "v1alpha1"), ("apiextensions.k8s.io", "v1"))
        ]
    },
    f"/apis/{GROUP}/v1alpha1": {"resources": [RESOURCE]},
    "/apis/apiextensions.k8s.io/v1": {"resources": [CRD | {"verbs": VERBS}]},
}


def build_job(name: str, version: int) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    return {"kind": "FineTuneJob", "apiVersion": f"{GROUP}/v1alpha1", "metadata": metadata}


def failing(code: int, seconds: str = "0") -> Answer:
    async def answer(_: web.Request) -> web.Response:
        status = {"kind": "Status", "code": code}
        return web.json_response(status, status=code, headers={"Retry-After": seconds})

    return answer


class ApiServer:
    """Discovery, one listed resource, and watches from a script; then silence."""

    def __init__(self, *watches: Answer) -> None:
        self.watches = [*watches]
        self.requests: list[tuple[str, str]] = []
        self.silent = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        if request.path in DISCOVERY:
            return web.json_response(DISCOVERY[request.path])
        if "watch" not in request.query:
            listed = {"metadata": {"resourceVersion": "5"}, "items": [build_job("listed", 1)]}
            return web.json_response(listed)
        if self.watches:
            return await self.watches.pop(0)(request)
        self.silent.set()
        return await stream_for_ever(request)


async def stream_for_ever(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await asyncio.Event().wait()
    return response


@asynccontextmanager
async def watched(
    api: ApiServer, again: asyncio.Event | None = None
) -> AsyncIterator[tuple[Any, asyncio.Queue[Any]]]:
    """kopf as it is; with ``again`` as the process runs it."""
    async with serving(api.answer) as url, connection_to(url) as connection:
        news: asyncio.Queue[Any] = asyncio.Queue()
        arguments = (
            ["FineTuneJob"],
            (),
            lambda kind, body: news.put_nowait((kind, body["metadata"]["name"])),
            lambda: None,
            connection,
        )
        backoff = Backoff(first=0.001, longest=0.01)
        task = asyncio.create_task(
            keep_watching(*arguments, again, backoff) if again else watch_resources(*arguments, backoff)
        )
        try:
            yield task, news
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "fault",
    [
        stream(("ERROR", {"kind": "Status", "code": 410})),
        stream(drop=True),
        failing(429),
        failing(500),
        failing(503),
        failing(429, "3600"),
        failing(503, "9" * 400),
    ],
    ids=["too old", "lost connection", "429", "500", "503", "an hour", "for ever"],
)
async def test_watches_survive(fault: Answer) -> None:
    api = ApiServer(fault, stream(("ADDED", build_job("new", 6))))
    async with watched(api) as (task, news), asyncio.timeout(5):
        assert await news.get() == (None, "listed")
        while await news.get() != ("ADDED", "new"):
            pass
        await api.silent.wait()
        assert not task.done()
        assert missing_watchers(["FineTuneJob"], (), asyncio.all_tasks()) == set()


async def test_objects_are_read_and_never_written() -> None:
    with_finalizer = build_job("new", 6)
    with_finalizer["metadata"] |= {"deletionTimestamp": "2030-01-01T00:00:00Z", "finalizers": ["other.dev/x"]}
    api = ApiServer(stream(("ADDED", build_job("new", 5)), ("MODIFIED", with_finalizer)))
    async with watched(api) as (_, news), asyncio.timeout(5):
        while await news.get() != ("MODIFIED", "new"):
            pass
        await api.silent.wait()
    assert {method for method, _ in api.requests} == {"GET"}
    resources = {path for _, path in api.requests} - DISCOVERY.keys()
    assert resources == {f"/apis/{GROUP}/v1alpha1/finetunejobs"}


async def test_what_kills_a_watch_is_told() -> None:
    api = ApiServer(stream(("ERROR", {"kind": "Status", "code": 500})))
    async with watched(api) as (task, _), asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="kopf ended"):
            await task
    assert missing_watchers(["FineTuneJob"], (), asyncio.all_tasks()) != set()


async def test_kopf_starts_anew_after_an_error_and_when_it_is_asked_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    again = asyncio.Event()
    fatal = stream(("ERROR", {"kind": "Status", "code": 500}))
    api = ApiServer(fatal, fatal, stream(("ADDED", build_job("new", 6))))
    async with watched(api, again) as (task, news), asyncio.timeout(10):
        while await news.get() != ("ADDED", "new"):
            pass
        await api.silent.wait()
        assert "kopf starts anew: kopf ended" in caplog.text
        api.watches = [stream(("ADDED", build_job("restored", 2)))]
        again.set()
        while await news.get() != ("ADDED", "restored"):
            pass
        assert not task.done()
        waiters = [each for each in asyncio.all_tasks() if each.get_name() == "stop-flag waiter"]
        assert len(waiters) == 1


async def test_kopf_keeps_nothing_of_the_objects() -> None:
    """Ten thousand resources that have ended would take tens of megabytes."""
    memories = NoMemories()
    for name in ("a", "b"):
        first = await memories.recall(build_job(name, 1), noticed_by_listing=True)
        assert first is not await memories.recall(build_job(name, 2))
    assert [*memories.iter_all_memories()] == []
