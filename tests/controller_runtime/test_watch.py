"""Client and watch against a server that fails in every way an API server does."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from api_server.api_connections import connection_to, serving
from api_server.fake_api import until
from api_server.watch_answers import Answer, stream

from tunesmith.controller_runtime.backoff import Backoff
from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.connection import LONGEST_RETRY_AFTER_SECONDS
from tunesmith.controller_runtime.errors import Conflict, Refused, Retryable
from tunesmith.controller_runtime.index import WATCHED_KINDS, ChildIndex
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.controller_runtime.watch import Watch
from tunesmith.manifests.objects import Body


def build_pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}}


class FaultyServer:
    """Answers lists and watches of pods from scripts; when a script is over, a watch stays open in silence.

    ``version`` is the one that it tells whoever asks for the present version.
    """

    def __init__(self) -> None:
        self.version = 1000
        self.lists: list[Answer] = []
        self.watches: list[Answer] = []
        self.requests: list[dict[str, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("limit") == "1":
            return await listing(self.version)(request)
        self.requests.append(dict(request.query))
        script = self.watches if "watch" in request.query else self.lists
        return await script.pop(0)(request) if script else await silence(request)


async def silence(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await asyncio.sleep(3600)
    return response


def listing(version: int, *pods: dict[str, Any], more: str = "") -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(
            {"metadata": {"resourceVersion": str(version), "continue": more}, "items": pods}
        )

    return answer


def refuse(code: int, reason: str, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        status = {"kind": "Status", "reason": reason, "message": f"refused: {reason}"}
        return web.json_response(status, status=code, headers=headers)

    return answer


@asynccontextmanager
async def connected(handler: Answer) -> AsyncIterator[Client]:
    async with (
        serving(handler) as url,
        Client(connection_to(url), Metrics(), ChildIndex(lambda uid: None)) as client,
    ):
        yield client


class Listed:
    """Receiver of a list: tells the names of all pages at its end."""

    def __init__(self, received: asyncio.Queue[tuple[str, Any]], word: str) -> None:
        self._received = received
        self._word = word
        self._names: list[str] = []

    def add(self, bodies: Iterable[Body], version: int) -> None:
        self._names += [body["metadata"]["name"] for body in bodies]

    def end(self) -> None:
        self._received.put_nowait((self._word, self._names))


class Watched:
    """Receiver of a watch's lists and events, and of the delays between its requests."""

    watch: Watch

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.delays: list[float] = []
        self.told = 0

    def went_back(self) -> None:
        self.told += 1
        # Whoever is told tells all watches: this one knows already.
        self.watch.list_anew()

    def begin_list(self, went_back: bool) -> Listed:
        return Listed(self.received, "LISTED BACK" if went_back else "LISTED")

    def seen(self, event_type: str, body: Body) -> None:
        self.received.put_nowait((event_type, body["metadata"]["name"]))

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        await asyncio.sleep(0)

    async def take(self, count: int) -> list[tuple[str, Any]]:
        async with asyncio.timeout(10):
            return [await self.received.get() for _ in range(count)]


@asynccontextmanager
async def watching(server: FaultyServer) -> AsyncIterator[Watched]:
    watched = Watched()
    async with connected(server.answer) as client:
        backoff = Backoff(first=1.0, longest=64.0, jitter=lambda: 1.0)
        watch = Watch(
            client, "v1", "Pod", None, "label", watched.begin_list, watched.seen, backoff, watched.sleep
        )
        watched.watch, watch.on_went_back = watch, watched.went_back
        task = asyncio.create_task(watch.run())
        yield watched
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_goes_on_from_the_last_version_after_a_lost_connection() -> None:
    server = FaultyServer()
    server.lists = [listing(5, build_pod("a", 3))]
    server.watches = [
        stream(("ADDED", build_pod("b", 6)), ("BOOKMARK", build_pod("", 9)), drop=True),
        stream(("DELETED", build_pod("b", 10))),
    ]
    async with watching(server) as watched:
        assert await watched.take(3) == [("LISTED", ["a"]), ("ADDED", "b"), ("DELETED", "b")]
    versions = [query["resourceVersion"] for query in server.requests if "watch" in query]
    assert versions[:2] == ["5", "9"]
    assert all(query["labelSelector"] == "label" for query in server.requests)


@pytest.mark.parametrize(
    "gone",
    [
        stream(("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})),
        refuse(410, "Expired"),
    ],
    ids=["in the stream", "as the answer"],
)
async def test_a_version_that_is_too_old_leads_to_a_new_list(gone: Answer) -> None:
    server = FaultyServer()
    server.lists = [listing(5, build_pod("a", 3)), listing(50)]
    server.watches = [gone, stream(("ADDED", build_pod("c", 51)))]
    async with watching(server) as watched:
        assert await watched.take(3) == [("LISTED", ["a"]), ("LISTED", []), ("ADDED", "c")]


async def test_versions_that_went_back_lead_to_a_new_list() -> None:
    """etcd was restored from a backup: the server would say nothing until its versions have caught up."""
    server = FaultyServer()
    server.version = 20
    server.lists = [listing(50, build_pod("a", 40)), refuse(500, "InternalError"), listing(21)]
    server.watches = [stream(), stream(("ADDED", build_pod("b", 22)))]
    async with watching(server) as watched:
        assert await watched.take(3) == [("LISTED", ["a"]), ("LISTED BACK", []), ("ADDED", "b")]
        assert watched.told == 1
    assert [query["resourceVersion"] for query in server.requests if "watch" in query][:2] == ["50", "21"]


async def test_told_that_the_server_went_back_it_lists_anew_whatever_the_versions_are() -> None:
    server = FaultyServer()
    server.lists = [listing(50, build_pod("a", 40)), listing(2000)]
    server.watches = [silence, stream(("ADDED", build_pod("b", 2001)))]
    async with watching(server) as watched:
        assert await watched.take(1) == [("LISTED", ["a"])]
        await until(lambda: any("watch" in query for query in server.requests))
        watched.watch.list_anew()
        # Until then nothing that is known counts.
        assert not watched.watch.synced.is_set()
        assert await watched.take(2) == [("LISTED BACK", []), ("ADDED", "b")]


@pytest.mark.parametrize(
    "end",
    [
        stream(("ADDED", build_pod("b", 6)), drop=True),
        stream(("ADDED", build_pod("b", 6))),
        stream(("ADDED", build_pod("b", 6)), ("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})),
    ],
    ids=["cut", "ended", "too old"],
)
async def test_the_end_of_a_watch_is_told_before_anything_is_listed_anew(end: Answer) -> None:
    server = FaultyServer()
    server.lists = [listing(5), listing(7)]
    server.watches = [end, stream(("ADDED", build_pod("c", 8)))]
    async with watching(server) as watched:
        watched.watch.on_end = lambda: watched.received.put_nowait(("END", ""))
        seen = await watched.take(4)
        assert seen[:3] == [("LISTED", []), ("ADDED", "b"), ("END", "")]


def answering(answer: Any) -> Answer:
    async def json(_: web.Request) -> web.Response:
        return web.json_response(answer)

    return json


async def garbage(_: web.Request) -> web.Response:
    return web.Response(text="<html>\nnot what was asked for\n")


@pytest.mark.parametrize(
    "fault",
    [
        refuse(403, "Forbidden"),
        refuse(500, "InternalError"),
        refuse(429, "TooManyRequests", **{"Retry-After": "0"}),
        garbage,
        answering({}),
        answering([]),
        answering({"metadata": {"resourceVersion": "odd"}, "items": None}),
        answering({"type": "ADDED", "object": {"metadata": None}}),
        answering({"type": "ERROR", "object": {"code": "odd"}}),
    ],
)
async def test_no_other_failure_ends_it(fault: Answer) -> None:
    server = FaultyServer()
    broken = stream(("ERROR", {"kind": "Status", "code": 500, "reason": "InternalError"}))
    server.lists = [fault, listing(5)]
    server.watches = [fault, broken, stream(("ADDED", build_pod("d", 6)))]
    async with watching(server) as watched:
        assert await watched.take(2) == [("LISTED", []), ("ADDED", "d")]


async def test_watches_that_end_at_once_are_retried_with_growing_delays() -> None:
    server = FaultyServer()
    server.lists = [listing(5)]
    server.watches = [stream()] * 4 + [stream(("ADDED", build_pod("a", 6))), stream(), stream()]
    async with watching(server) as watched:
        assert await watched.take(2) == [("LISTED", []), ("ADDED", "a")]
        # The last watch is taken before its delay is noted.
        await until(lambda: len(watched.delays) == 6)
    assert watched.delays == [1.0, 2.0, 4.0, 8.0, 1.0, 2.0]


async def test_lists_are_read_page_by_page() -> None:
    server = FaultyServer()
    server.lists = [listing(7, build_pod("a", 1), more="next"), listing(7, build_pod("b", 2))]
    async with connected(server.answer) as client:
        pods = await client.list("v1", "Pod", None)
    assert [(pod["kind"], pod["metadata"]["name"]) for pod in pods] == [("Pod", "a"), ("Pod", "b")]
    assert [query.get("continue") for query in server.requests] == [None, "next"]


async def test_what_exists_counts_as_created_and_other_refusals_do_not() -> None:
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "ns", "name": "a"}}
    async with connected(refuse(409, "AlreadyExists")) as client:
        assert await client.create(manifest) is None
    async with connected(refuse(409, "Conflict")) as client:
        with pytest.raises(Conflict):
            await client.replace(manifest)
    async with connected(refuse(403, "Forbidden")) as client:
        with pytest.raises(Refused, match="refused: Forbidden"):
            await client.create(manifest)
    async with connected(refuse(404, "NotFound")) as client:
        assert await client.get("v1", "Pod", "ns", "a") is None
        await client.delete("v1", "Pod", "ns", "a", "uid")


async def not_found_page(_: web.Request) -> web.Response:
    return web.Response(text="404 page not found", status=404)


@pytest.mark.parametrize("answer", [not_found_page, refuse(404, ""), refuse(410, "Expired")])
async def test_only_the_api_server_s_own_word_means_that_an_object_is_not_there(answer: Answer) -> None:
    """A load balancer may answer in its place: what is taken for deleted would be forgotten."""
    async with connected(answer) as client:
        with pytest.raises(Retryable):
            await client.get("v1", "Pod", "ns", "a")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("3600", LONGEST_RETRY_AFTER_SECONDS),
        ("9" * 400, LONGEST_RETRY_AFTER_SECONDS),
        ("-5", None),
        ("²", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
async def test_the_wait_that_a_server_asks_for_is_bounded(header: str, seconds: float | None) -> None:
    async with connected(refuse(429, "TooManyRequests", **{"Retry-After": header})) as client:
        with pytest.raises(Retryable) as refusal:
            await client.get("v1", "Pod", "ns", "a")
    assert refusal.value.retry_after == seconds


async def test_a_server_that_is_away_is_tried_again() -> None:
    connection = connection_to("http://127.0.0.1:1")
    async with Client(connection, Metrics(), ChildIndex(lambda uid: None)) as client:
        with pytest.raises(Retryable, match="can't be reached"):
            await client.get("v1", "Pod", "ns", "a")


async def test_forty_namespaces_leave_connections_to_calls() -> None:
    """Neither the first lists of so many watches nor the watches themselves may keep the lease waiting."""
    listed, renewed = asyncio.Semaphore(0), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "/leases/" in request.path:
            return web.json_response({})
        if "watch" in request.query:
            return await silence(request)
        listed.release()
        await renewed.wait()
        return await listing(5)(request)

    watched = Watched()
    async with connected(answer) as client, asyncio.timeout(20):
        watches = [
            Watch(client, version, kind, f"ns-{number}", "label", watched.begin_list, watched.seen)
            for version, kind in WATCHED_KINDS
            for number in range(40)
        ]
        tasks = [asyncio.create_task(watch.run()) for watch in watches]
        await listed.acquire()
        assert await client.get("coordination.k8s.io/v1", "Lease", "ns", "lease") == {}
        renewed.set()
        for watch in watches:
            await watch.synced.wait()
        assert await client.get("coordination.k8s.io/v1", "Lease", "ns", "lease") == {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
