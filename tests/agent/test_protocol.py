"""HTTP protocol of the agent: framing, limits, order, back-pressure, disconnects."""

import asyncio
import json

import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.wire import ASK, MODELS, connect, once, post

from tunesmith_agent.http import server
from tunesmith_agent.http.limits import Limits
from tunesmith_contract.agent import Version, served_name


async def test_keep_alive_serves_many_and_reuses_the_engine_connection(
    agent: Running, expenses: Version
) -> None:
    async with connect(agent) as wire:
        for _ in range(3):
            assert (await wire.ask(post())).status == 200
    assert len(agent.engine.connections) == 3
    assert len(set(agent.engine.connections)) == 1


async def test_pipelined_requests_are_answered_in_order(agent: Running, expenses: Version) -> None:
    async with connect(agent) as wire:
        wire.writer.write(post() + MODELS + post({**ASK, "model": "base"}))
        bodies = [(await wire.answer()).body for _ in range(3)]
    assert b"expenses@" in bodies[0]
    assert b'"list"' in bodies[1]
    assert b'"base"' in bodies[2]


async def test_pipelined_in_pieces_while_an_answer_is_under_way(agent: Running, expenses: Version) -> None:
    agent.engine.hold = asyncio.Event()
    async with connect(agent) as wire:
        wire.writer.write(post())
        await agent.engine.arrived.wait()
        for byte in MODELS:
            wire.writer.write(bytes([byte]))
        agent.engine.hold.set()
        assert b"expenses@" in (await wire.answer()).body
        assert b'"list"' in (await wire.answer()).body


async def test_too_many_pipelined_requests(engine: FakeEngine, storage: Storage) -> None:
    async with running_agent(engine, storage.root, Limits(pipelined=2)) as running, connect(running) as wire:
        wire.writer.write(MODELS * 4)
        statuses = [(await wire.answer()).status for _ in range(4)]
        assert statuses == [200, 200, 200, 400]
        assert await wire.reader.read() == b""


async def test_chunked_upload(agent: Running, expenses: Version) -> None:
    data = json.dumps(ASK).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"
    assert (await once(agent, post(chunks, "Transfer-Encoding: chunked"))).status == 200
    assert agent.engine.headers[0]["content-length"]


async def test_http_10_without_chunks(agent: Running, expenses: Version) -> None:
    agent.engine.pieces.put_nowait(b"data: one\n\n")
    agent.engine.pieces.put_nowait(None)
    async with connect(agent) as wire:
        wire.writer.write(post({**ASK, "stream": True}).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        status, headers = await wire.head()
        assert status == 200
        assert "transfer-encoding" not in headers
        assert await wire.reader.read() == b"data: one\n\n"


async def test_offer_of_another_protocol_is_ignored(agent: Running, expenses: Version) -> None:
    async with connect(agent) as wire:
        upgrade = post(ASK, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
        assert (await wire.ask(upgrade)).status == 200
        assert (await wire.ask(post())).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (post(ASK, "Transfer-Encoding: chunked", "Content-Length: 3"), 400),
        (post(b"zz\r\n", "Transfer-Encoding: chunked"), 400),
        (post(b"{", "X-Y: z"), 400),
        (post(b"[]"), 400),
        (post({"messages": []}), 400),
        (post({"model": 3}), 400),
        (post(b'{"model": NaN}'), 400),
        (post(b"[" * 5000), 400),
        (post({**ASK, "prompt_logprobs": 0}), 400),
        (
            post({"model": "expenses", "prompt": "x", "echo": True, "logprobs": 1}, path="/v1/completions"),
            400,
        ),
        (post().replace(b"application/json", b"text/plain"), 415),
        (post(ASK, "Content-Encoding: gzip"), 415),
        (MODELS.replace(b"models", b"chat/completions"), 405),
        (post(path="/v1/models"), 405),
        (post(path="/v1/load_lora_adapter"), 404),
        (post(path="/v1/chat/completions/../../invocations"), 404),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", 501),
        (b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * 40_000), 431),
        (b"GET / HTTP/1.1\r\nX: %s\r\n\r\n" % (b"a" * 40_000), 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413),
    ],
)
async def test_what_is_refused(agent: Running, request_bytes: bytes, status: int) -> None:
    answer = await once(agent, request_bytes)
    assert answer.status == status
    assert answer.message


async def test_endless_header_is_cut_off(agent: Running) -> None:
    async with connect(agent) as wire:
        wire.writer.write(b"GET / HTTP/1.1\r\nX: ")
        reading = asyncio.create_task(wire.answer())
        while not reading.done():
            wire.writer.write(b"a" * 8192)
            await wire.writer.drain()
        assert reading.result().status == 431


async def test_too_large_a_body_is_refused_before_it_is_sent(agent: Running) -> None:
    async with connect(agent) as wire:
        wire.writer.write(post(b"", "Transfer-Encoding: chunked"))
        reading = asyncio.create_task(wire.answer())
        while not reading.done():
            wire.writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            await wire.writer.drain()
        assert reading.result().status == 413


async def test_largest_body_passes(agent: Running, expenses: Version) -> None:
    body = {**ASK, "messages": [{"role": "user", "content": "x" * (4 * 1024 * 1024 - 200)}]}
    async with connect(agent) as wire:
        wire.writer.write(post(body, "Expect: 100-continue"))
        assert (await wire.head())[0] == 100
        assert (await wire.answer()).status == 200


async def test_client_that_leaves_stops_the_engine(agent: Running, expenses: Version) -> None:
    async with connect(agent) as wire:
        wire.writer.write(post({**ASK, "stream": True}))
        agent.engine.pieces.put_nowait(b"data: one\n\n")
        await wire.head()
        wire.writer.transport.abort()
        async with asyncio.timeout(10):
            while not agent.engine.left.is_set():
                agent.engine.pieces.put_nowait(b"data: more\n\n")
                await asyncio.sleep(0)
    stats = agent.agent.metrics.stats("expenses", expenses.digest)
    assert (stats.disconnects, stats.in_flight, stats.errors) == (1, 0, 0)


async def test_client_that_leaves_before_the_head(agent: Running, expenses: Version) -> None:
    agent.engine.hold = asyncio.Event()
    async with connect(agent) as wire:
        wire.writer.write(post())
        await agent.engine.arrived.wait()
    async with asyncio.timeout(10):
        await agent.engine.left.wait()


async def test_slow_client_holds_the_engine_back(agent: Running, expenses: Version) -> None:
    """The agent takes no more from the engine than the sockets hold, however long the answer is."""
    piece, pieces = b"x" * 65536, 400
    for _ in range(pieces):
        agent.engine.pieces.put_nowait(piece)
    agent.engine.pieces.put_nowait(None)
    async with connect(agent, small_buffers=True) as wire:
        wire.writer.write(post({**ASK, "stream": True}))
        await wire.head()
        unchanged, waiting = 0, pieces
        while unchanged < 1000:
            await asyncio.sleep(0)
            unchanged = unchanged + 1 if agent.engine.pieces.qsize() == waiting else 0
            waiting = agent.engine.pieces.qsize()
        assert waiting > pieces // 4
        total = 0
        while chunk := await wire.chunk():
            total += len(chunk)
        assert total == pieces * len(piece)


async def test_broken_stream_does_not_look_complete(agent: Running, expenses: Version) -> None:
    async with connect(agent) as wire:
        wire.writer.write(post({**ASK, "stream": True}))
        agent.engine.pieces.put_nowait(b"data: one\n\n")
        await wire.head()
        assert await wire.chunk() == b"data: one\n\n"
        agent.engine.pieces.put_nowait(b"break")
        assert await wire.reader.read() == b""
    stats = agent.agent.metrics.stats("expenses", expenses.digest)
    assert (stats.requests, stats.errors) == (1, 1)


async def test_engine_connection_that_breaks_under_a_request_is_not_tried_again(
    engine: FakeEngine, storage: Storage
) -> None:
    """What was sent may have been answered: sent again, it would be done twice."""
    async with running_agent(engine, storage.root) as running, connect(running) as wire:
        assert (await wire.ask(post({**ASK, "model": "base"}))).status == 200
        engine.drop = 1
        assert (await wire.ask(post({**ASK, "model": "base"}))).status == 502
        stats = running.agent.metrics.stats("base", "")
        assert (stats.requests, stats.errors, stats.in_flight) == (2, 1, 0)
    assert len(engine.connections) == 2


async def test_engine_away_is_nobodys_error(agent: Running, expenses: Version) -> None:
    await agent.engine.stop()
    answer = await once(agent, post())
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert agent.agent.metrics.stats("expenses", expenses.digest).errors == 0
    await agent.until(lambda: not agent.agent.metrics.engine_up)


async def test_version_that_the_engine_forgot(agent: Running, expenses: Version) -> None:
    agent.engine.load_gate = asyncio.Event()
    del agent.engine.adapters[served_name("expenses", expenses.digest)]
    assert (await once(agent, post())).status == 503
    assert agent.agent.metrics.stats("expenses", expenses.digest).errors == 0
    agent.engine.load_gate.set()
    await agent.until(lambda: len(agent.engine.loads) == 2)
    await agent.active(expenses)
    assert (await once(agent, post())).status == 200


async def test_silent_engine(engine: FakeEngine, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DEADLINE_CHECK_SECONDS", 0.01)
    engine.hold = asyncio.Event()
    async with running_agent(engine, storage.root, Limits(engine_seconds=0.05)) as running:
        answer = await once(running, post({**ASK, "model": "base"}))
        assert answer.status == 504
        await engine.left.wait()


@pytest.mark.parametrize(("sent", "status"), [(b"", None), (b"POST / HTTP/1.1\r\n", 408), (post()[:-1], 408)])
async def test_slow_requests_end(
    engine: FakeEngine, storage: Storage, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: int | None
) -> None:
    monkeypatch.setattr(server, "DEADLINE_CHECK_SECONDS", 0.01)
    limits = Limits(read_seconds=0.05, idle_seconds=0.05, linger_seconds=0.05)
    async with running_agent(engine, storage.root, limits) as running, connect(running) as wire:
        wire.writer.write(sent)
        if status is not None:
            assert (await wire.answer()).status == status
        assert await wire.reader.read() == b""


async def test_too_many_clients(engine: FakeEngine, storage: Storage) -> None:
    async with (
        running_agent(engine, storage.root, Limits(connections=1)) as running,
        connect(running) as first,
    ):
        engine.hold = asyncio.Event()
        first.writer.write(post({**ASK, "model": "base"}))
        await engine.arrived.wait()
        async with connect(running) as second:
            assert (await second.answer()).status == 503


async def test_only_named_headers_reach_the_engine(agent: Running, expenses: Version) -> None:
    await once(agent, post(ASK, "Authorization: Bearer secret", "Traceparent: 00-1", "X-Request-Id: 7"))
    seen = agent.engine.headers[0]
    assert set(seen) == {"host", "content-type", "content-length", "traceparent", "x-request-id"}


async def test_drain_lets_requests_finish(agent: Running, expenses: Version) -> None:
    agent.engine.hold = asyncio.Event()
    async with connect(agent) as wire, connect(agent) as idle:
        await idle.ask(MODELS)
        wire.writer.write(post())
        await agent.engine.arrived.wait()
        agent.stop.set()
        assert await idle.reader.read() == b""
        agent.engine.hold.set()
        answer = await wire.answer()
        assert answer.headers["connection"] == "close"
        assert await agent.done is True


async def test_bodies_in_memory_are_bounded_over_all_clients(engine: FakeEngine, storage: Storage) -> None:
    limits = Limits(buffered_bytes=1600)
    async with (
        running_agent(engine, storage.root, limits) as running,
        connect(running) as first,
        connect(running) as second,
    ):
        engine.hold = asyncio.Event()
        first.writer.write(post({"model": "base", "prompt": "x" * 600}, path="/v1/completions"))
        await engine.arrived.wait()
        assert (
            await second.ask(post({"model": "base", "prompt": "y" * 600}, path="/v1/completions"))
        ).status == 503
        engine.hold.set()
        assert (await first.answer()).status == 200
        assert running.agent.server.shares.held == 0
        assert (
            await first.ask(post({"model": "base", "prompt": "z" * 600}, path="/v1/completions"))
        ).status == 200
