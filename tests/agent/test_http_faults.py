"""Clients that take too much, leave, or close one side; connections that end in the middle of an answer."""

import asyncio
import json
import socket
import threading
from contextlib import AsyncExitStack

import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.wire import ASK, MODELS, Wire, connect, once, post, until

from tunesmith_agent.http import server
from tunesmith_agent.http.address import TcpAddress
from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.limits import Limits
from tunesmith_agent.http.messages import Request
from tunesmith_agent.http.shares import Shares
from tunesmith_agent.http.upstream import UpstreamPool
from tunesmith_contract.agent import DesiredAlias, Version

BASE = post({**ASK, "model": "base"})
STREAM = post({**ASK, "stream": True})


@pytest.fixture
def quick_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DEADLINE_CHECK_SECONDS", 0.01)


# -- faults of the agent itself


async def test_a_request_that_the_agent_fails_on_harms_no_other(
    agent: Running, expenses: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second request is handled within the end of the first one's answer."""
    handle = agent.agent.telemetry._handler

    def fail_on_marked(connection: ServerConnection, request: Request) -> None:
        if b"x-marked" in request.headers:
            raise ValueError("on purpose")
        handle(connection, request)

    monkeypatch.setattr(agent.agent.telemetry, "_handler", fail_on_marked)
    async with connect(agent) as wire:
        wire.writer.write(post() + post(ASK, "X-Marked: 1") + post())
        assert [(await wire.answer()).status for _ in range(3)] == [200, 500, 200]
    assert len(set(agent.engine.connections)) == 1


# -- room


async def test_probes_are_answered_while_clients_take_all_connections(
    engine: FakeEngine, storage: Storage
) -> None:
    engine.hold = asyncio.Event()
    limits = Limits(connections=2, address_connections=2)
    async with running_agent(engine, storage.root, limits) as running, AsyncExitStack() as stack:
        running.want()
        for _ in range(2):
            wire = await stack.enter_async_context(connect(running))
            wire.writer.write(BASE)
        await until(lambda: len(engine.requests) == 2)
        assert (await once(running, MODELS)).status in (429, 503)
        for path in (b"healthz", b"readyz", b"metrics"):
            async with connect(running, port=running.monitoring_port) as probe:
                assert (await probe.ask(MODELS.replace(b"v1/models", path))).status == 200


async def test_clients_reach_neither_probes_nor_metrics(agent: Running) -> None:
    for path in (b"/healthz", b"/readyz", b"/metrics"):
        assert (await once(agent, MODELS.replace(b"/v1/models", path))).status == 404
    async with connect(agent, port=agent.monitoring_port) as wire:
        assert (await wire.ask(MODELS)).status == 404
        assert (await wire.ask(post(path="/metrics"))).status == 405


async def test_data_path_that_stands_still_is_not_alive(
    agent: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = MODELS.replace(b"v1/models", b"healthz")
    async with connect(agent, port=agent.monitoring_port) as probe:
        assert (await probe.ask(health)).status == 200
        monkeypatch.setattr(server, "STANDSTILL_SECONDS", -1.0)
        assert (await probe.ask(health)).body == b"The data path stands still.\n"


async def test_the_longest_idle_connection_makes_room(engine: FakeEngine, storage: Storage) -> None:
    limits = Limits(connections=3)
    async with running_agent(engine, storage.root, limits) as running, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connect(running)) for _ in range(3)]
        for wire in (wires[1], wires[2], wires[0]):
            assert (await wire.ask(MODELS)).status == 200
        fourth = await stack.enter_async_context(connect(running))
        assert (await fourth.ask(MODELS)).status == 200
        assert await wires[1].reader.read() == b""
        for wire in (wires[0], wires[2], fourth):
            assert (await wire.ask(MODELS)).status == 200
        assert running.agent.server.counts.idle_closed == 1


async def test_a_request_that_arrives_slowly_makes_room(engine: FakeEngine, storage: Storage) -> None:
    limits = Limits(connections=1, slow_seconds=0)
    async with running_agent(engine, storage.root, limits) as running, connect(running) as slow:
        slow.writer.write(MODELS[:-2])
        await until_arriving(running)
        async with connect(running) as other:
            assert (await other.ask(MODELS)).status == 200
        assert await slow.reader.read() == b""
        assert running.agent.server.counts.slow_closed == 1


async def until_arriving(running: Running) -> None:
    """Wait until a part of a request has come."""
    connections = running.agent.server.connections
    await until(lambda: any(connection.arriving_since() for connection in connections))


async def test_one_address_leaves_room_for_others(engine: FakeEngine, storage: Storage) -> None:
    engine.hold = asyncio.Event()
    limits = Limits(connections=3, address_connections=2)
    async with running_agent(engine, storage.root, limits) as running, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connect(running)) for _ in range(2)]
        for wire in wires:
            wire.writer.write(BASE)
        await until(lambda: len(engine.requests) == 2)
        refused = await stack.enter_async_context(connect(running))
        answer = await refused.answer()
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert running.agent.metrics.refusals == {(429, "too_many_connections"): 1}
        other = await stack.enter_async_context(connect(running, address="127.0.0.2"))
        assert (await other.ask(MODELS)).status == 200
        engine.hold.set()
        assert [(await wire.answer()).status for wire in wires] == [200, 200]
        # An address at its limit gives up its own idle connection.
        again = await stack.enter_async_context(connect(running))
        assert (await again.ask(MODELS)).status == 200


async def test_refused_connections_are_bounded_too(engine: FakeEngine, storage: Storage) -> None:
    engine.hold = asyncio.Event()
    limits = Limits(connections=1, refused_connections=2)
    async with running_agent(engine, storage.root, limits) as running, AsyncExitStack() as stack:
        busy = await stack.enter_async_context(connect(running))
        busy.writer.write(BASE)
        await engine.arrived.wait()
        wires = [await stack.enter_async_context(connect(running)) for _ in range(4)]
        answers = [await wire.reader.read() for wire in wires]
        assert [answer[9:12] for answer in answers] == [b"503", b"503", b"", b""]
        assert running.agent.server.counts.dropped == 2


def test_shares_of_memory() -> None:
    """Half goes to whoever comes first, the other half in equal shares; never more than the limit."""
    shares = Shares(Limits(buffered_bytes=800))
    greedy, modest, third = (shares.enter(name) for name in ("192.0.2.1", "192.0.2.2", "192.0.2.3"))
    assert shares.hold(greedy, 400)
    assert not shares.hold(greedy, 1)
    assert shares.hold(modest, 200)
    assert not shares.hold(modest, 1)
    assert shares.hold(third, 100)
    assert not shares.hold(third, 100)
    assert shares.hold(greedy, -401)
    assert shares.hold(third, -100)
    assert shares.held == 301
    for share, size in ((modest, 201), (third, 100)):
        shares.hold(share, -size)
    for share in (greedy, modest, third):
        shares.leave(share)
    assert shares.held == 0


async def test_large_bodies_of_one_client_leave_memory_for_others(
    engine: FakeEngine, storage: Storage
) -> None:
    limits = Limits(buffered_bytes=8000)
    large = post({"model": "base", "prompt": "x" * 3500}, path="/v1/completions")
    async with running_agent(engine, storage.root, limits) as running, AsyncExitStack() as stack:
        partial = await stack.enter_async_context(connect(running))
        partial.writer.write(large[:-1])
        await until_arriving(running)
        second = await stack.enter_async_context(connect(running))
        answer = await second.ask(large)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        other = await stack.enter_async_context(connect(running, address="127.0.0.2"))
        assert (
            await other.ask(post({"model": "base", "prompt": "x" * 1500}, path="/v1/completions"))
        ).status == 200
        partial.writer.write(large[-1:])
        assert (await partial.answer()).status == 200


async def test_pipelined_heads_count_as_memory(engine: FakeEngine, storage: Storage) -> None:
    engine.hold = asyncio.Event()
    long_head = MODELS.replace(b"\r\n\r\n", b"\r\nX: " + b"a" * 5000 + b"\r\n\r\n")
    limits = Limits(buffered_bytes=40_000, backlog_bytes=4000)
    async with running_agent(engine, storage.root, limits) as running, connect(running) as wire:
        wire.writer.write(BASE)
        await engine.arrived.wait()
        wire.writer.write(long_head * 20)
        await until(lambda: running.agent.server.shares.held > 40_000)
        engine.hold.set()
        statuses = [(await wire.answer()).status]
        while statuses[-1] == 200:
            statuses.append((await wire.answer()).status)
        assert statuses[-1] == 503
        assert running.agent.server.shares.held == 0


# -- framing


async def test_trailers_never_become_headers(agent: Running, expenses: Version) -> None:
    data = json.dumps(ASK).encode()
    body = b"%x\r\n%b\r\n0\r\nX-Request-Id: forged\r\nTraceparent: forged\r\n\r\n" % (len(data), data)
    request = post(body, "Transfer-Encoding: chunked", "X-Request-Id: real")
    assert (await once(agent, request)).status == 200
    assert agent.engine.headers[0]["x-request-id"] == "real"
    assert "traceparent" not in agent.engine.headers[0]


@pytest.mark.parametrize("start", [b"0\r\nX: ", b"1;", b"0;"], ids=["trailer", "extension", "last extension"])
async def test_endless_framing_is_cut_off(agent: Running, start: bytes) -> None:
    async with connect(agent) as wire:
        wire.writer.write(post(start, "Transfer-Encoding: chunked"))
        reading = asyncio.create_task(wire.answer())
        while not reading.done():
            wire.writer.write(b"a" * 8192)
            await wire.writer.drain()
        assert reading.result().status == 431


async def test_head_has_no_body_and_keeps_the_connection(agent: Running) -> None:
    async with connect(agent) as wire:
        for path, status in ((b"/v1/models", 200), (b"/v1/completions", 405), (b"/nothing", 404)):
            wire.writer.write(MODELS.replace(b"GET /v1/models", b"HEAD " + path))
            assert (await wire.head())[0] == status
        assert (await wire.ask(MODELS)).body.startswith(b'{"object":"list"')


# -- ends


async def answer_after_interim(wire: Wire) -> bytes:
    """Body of the first final answer."""
    while True:
        status, headers = await wire.head()
        if status != 100:
            assert status == 200
            return await wire.reader.readexactly(int(headers["content-length"]))


@pytest.mark.usefixtures("quick_deadlines")
async def test_half_closed_client_gets_all_its_answers(agent: Running, expenses: Version) -> None:
    agent.engine.hold = asyncio.Event()
    async with connect(agent) as wire:
        wire.writer.write(post() + MODELS + BASE)
        wire.writer.write_eof()
        await agent.engine.arrived.wait()
        status, _ = await wire.head()
        assert status == 100
        agent.engine.hold.set()
        bodies = [await answer_after_interim(wire) for _ in range(3)]
        assert [b"expenses@" in body for body in bodies] == [True, True, False]
        assert await wire.reader.read() == b""


@pytest.mark.parametrize(("sent", "status"), [(b"", b""), (MODELS[:-2], b"400"), (BASE[:-1], b"400")])
async def test_half_close_before_the_end_of_a_request(agent: Running, sent: bytes, status: bytes) -> None:
    async with connect(agent) as wire:
        wire.writer.write(sent)
        wire.writer.write_eof()
        assert (await wire.reader.read())[9:12] == status


@pytest.mark.usefixtures("quick_deadlines")
@pytest.mark.parametrize("pipelined", [0, 2_000_000], ids=["reading", "reading is paused"])
async def test_client_that_closes_before_the_head(agent: Running, expenses: Version, pipelined: int) -> None:
    agent.engine.hold = asyncio.Event()
    async with connect(agent) as wire:
        wire.writer.write(post())
        await agent.engine.arrived.wait()
        wire.writer.write(b"a" * pipelined)
        await wire.writer.drain()
        wire.writer.close()
        async with asyncio.timeout(10):
            await agent.engine.left.wait()
    stats = agent.agent.metrics.stats("expenses", expenses.digest)
    assert (stats.disconnects, stats.in_flight, stats.errors) == (1, 0, 0)


@pytest.mark.usefixtures("quick_deadlines")
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize(
    "event", [b"", b"data: one\n\n"], ids=["before the first event", "between two events"]
)
async def test_client_that_closes_within_a_stream_that_stands_still(
    engine: FakeEngine, storage: Storage, version: bytes, event: bytes
) -> None:
    async with running_agent(engine, storage.root, Limits(abandoned_seconds=0)) as agent:
        served = storage.commit()
        agent.want(DesiredAlias(name="expenses", stable=served))
        await agent.active(served)
        async with connect(agent) as wire:
            wire.writer.write(STREAM.replace(b"HTTP/1.1", version, 1))
            if event:
                engine.pieces.put_nowait(event)
            await wire.head()
            wire.writer.close()
            async with asyncio.timeout(10):
                await engine.left.wait()
        stats = agent.agent.metrics.stats("expenses", served.digest)
        assert (stats.disconnects, stats.abandoned, stats.in_flight) == (1, 1, 0)


@pytest.mark.usefixtures("quick_deadlines")
async def test_half_closed_client_gets_comments_between_the_events_of_a_stream_alone(
    agent: Running, expenses: Version
) -> None:
    pieces = agent.engine.pieces
    # A client that wants the usage gets parts of events as they come.
    request = post({**ASK, "stream": True, "stream_options": {"include_usage": True}})
    async with connect(agent) as wire:
        wire.writer.write(request)
        wire.writer.write_eof()
        pieces.put_nowait(b"data: o")
        while (await wire.head())[0] == 100:
            pass
        body = b""
        while not body.endswith(b"data: o"):
            body += await wire.chunk()
        # The rest of the event comes after the client was checked.
        checked_at = agent.agent.server._checked_at
        await until(lambda: agent.agent.server._checked_at > checked_at)
        pieces.put_nowait(b"ne\n\n")
        while not body.endswith(b"\n\n:\n\n"):
            body += await wire.chunk()
        pieces.put_nowait(None)
        while chunk := await wire.chunk():
            body += chunk
    assert body.replace(b":\n\n", b"").startswith(b'data: one\n\ndata: {"object"')


async def test_broken_stream_to_http_10_is_a_reset(agent: Running, expenses: Version) -> None:
    async with connect(agent) as wire:
        wire.writer.write(STREAM.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        agent.engine.pieces.put_nowait(b"data: one\n\n")
        status, headers = await wire.head()
        assert (status, headers["connection"]) == (200, "close")
        assert await wire.reader.readexactly(11) == b"data: one\n\n"
        agent.engine.pieces.put_nowait(b"break")
        with pytest.raises(ConnectionResetError):
            await wire.reader.read()


async def test_http_10_answer_ends_without_a_reset(agent: Running, expenses: Version) -> None:
    agent.engine.pieces.put_nowait(b"data: one\n\n")
    agent.engine.pieces.put_nowait(None)
    async with connect(agent) as wire:
        wire.writer.write(STREAM.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        await wire.head()
        assert await wire.reader.read() == b"data: one\n\n"


class ClosingEngine:
    """Accepts one connection in a thread, answers one request on it, and closes it when it is told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._close, self._closed = threading.Event(), threading.Event()
        threading.Thread(target=self._serve).start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        self._listener.close()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        self._close.wait(10)
        connection.close()
        self._closed.set()

    def close(self) -> None:
        """Close; returns when the kernel has done it, without a turn of the event loop."""
        self._close.set()
        assert self._closed.wait(10)


class Receiver:
    """Takes one answer."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def on_continue(self) -> None:
        raise AssertionError("the request was sent as a whole")

    def on_head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        assert status == 200

    def on_data(self, data: bytes) -> None:
        raise AssertionError("the answer is empty")

    def on_pause(self) -> None:
        """No effect."""

    def on_end(self) -> None:
        self.ended.set()

    def on_lost(self) -> None:
        raise AssertionError("the answer is complete")


async def test_kept_connection_that_the_engine_closed_is_not_used() -> None:
    """Even if the event loop was too busy to see the end: nothing is sent on it, so nothing is sent twice."""
    engine = ClosingEngine()
    pool = UpstreamPool(TcpAddress("127.0.0.1", engine.port), Limits())
    connection, receiver = await pool.connect(), Receiver()
    connection.send(receiver, b"POST / HTTP/1.1\r\n\r\n")
    await receiver.ended.wait()
    assert pool.take() is connection
    pool.give_back(connection, keep_alive=True)
    engine.close()
    assert pool.take() is None
    pool.close()


async def test_engine_that_ends_within_a_head_is_no_empty_answer(
    engine: FakeEngine, storage: Storage
) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-a: ")
        writer.close()

    broken = await asyncio.start_server(break_off, "127.0.0.1", 0)
    async with broken, running_agent(engine, storage.root) as running:
        running.agent.pool._address = TcpAddress("127.0.0.1", broken.sockets[0].getsockname()[1])
        assert (await once(running, BASE)).status == 502
