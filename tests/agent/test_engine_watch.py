"""An engine that is slow, full or hangs, and the traffic that controls it."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import aiohttp
import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.wire import ASK, MODELS, connect, once, post, until

from tunesmith_agent.control import engine_watch
from tunesmith_agent.engine import client
from tunesmith_agent.engine import metrics as engine_metrics
from tunesmith_agent.http.address import TcpAddress, UnixAddress
from tunesmith_contract.agent import Version

BASE = post({**ASK, "model": "base"})


async def monitored(running: Running, path: bytes) -> tuple[int, bytes]:
    """Status and body of an answer on the port for monitoring."""
    async with connect(running, port=running.monitoring_port) as wire:
        answer = await wire.ask(MODELS.replace(b"/v1/models", path))
        return answer.status, answer.body


@pytest.fixture
async def watched(
    engine: FakeEngine, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    """An agent that looks at its engine fifty times as often, and waits for it as much shorter."""
    monkeypatch.setattr(engine_watch, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(engine_metrics, "KEPT_SECONDS", 0.0)
    async with running_agent(
        engine, storage.root, engine_silence_seconds=0.06, engine_token_seconds=0.2
    ) as running:
        running.want()
        yield running


async def until_ready_is(running: Running, status: int) -> bytes:
    """Body of the first answer of /readyz with a status."""
    async with asyncio.timeout(10):
        while True:
            seen, body = await monitored(running, b"/readyz")
            if seen == status:
                return body


async def test_engine_core_that_hangs(watched: Running) -> None:
    engine = watched.engine
    assert (await once(watched, BASE)).status == 200
    engine.core = asyncio.Event()
    async with connect(watched) as wire, connect(watched) as other:
        wire.writer.write(BASE)
        reason = await until_ready_is(watched, 503)
        assert reason.startswith(b"The engine hangs: a request for one token was not answered in 0.2 s")
        assert b"none of 1 others has moved" in reason
        assert watched.agent.metrics.engine_up
        assert not watched.agent.reconciler.report("boot").engine_ready
        refused = await other.ask(BASE)
        assert (refused.status, refused.headers["connection"]) == (503, "close")
        assert b"tunesmith_agent_engine_hangs 1.0" in (await monitored(watched, b"/metrics"))[1]
        engine.core.set()
        assert (await wire.answer()).status == 200
    assert await until_ready_is(watched, 200) == b"ready\n"
    assert (await once(watched, BASE)).status == 200


async def test_clients_that_give_up_do_not_make_a_hanging_engine_ready(watched: Running) -> None:
    watched.engine.core = asyncio.Event()
    async with connect(watched) as wire:
        wire.writer.write(BASE)
        await until_ready_is(watched, 503)
    await until(lambda: not watched.agent.pool.busy)
    for _ in range(5):
        assert (await monitored(watched, b"/readyz"))[0] == 503
    watched.engine.core.set()
    await until_ready_is(watched, 200)


async def test_full_engine_does_not_hang(watched: Running) -> None:
    """No answer moves and the token does not come, but the engine's counters grow."""
    engine = watched.engine
    engine.core, engine.tokens_per_read = asyncio.Event(), 7
    async with connect(watched) as wire:
        wire.writer.write(BASE)
        reads = engine.metric_reads
        async with asyncio.timeout(10):
            while engine.metric_reads < reads + 6:
                assert (await monitored(watched, b"/readyz"))[0] == 200
                assert not watched.agent.engine_watch.stalled
        engine.core.set()
        assert (await wire.answer()).status == 200


async def test_engine_with_a_long_answer_is_asked_once_a_silence(watched: Running) -> None:
    """Not as often as it answers."""
    engine, loop = watched.engine, asyncio.get_running_loop()
    engine.hold = asyncio.Event()
    asked: list[float] = []
    original = watched.agent.engine.generate_token

    async def generate_token() -> None:
        asked.append(loop.time())
        await original()

    watched.agent.engine_watch._engine.generate_token = generate_token  # type: ignore[method-assign]
    async with connect(watched) as wire:
        wire.writer.write(BASE)
        await until(lambda: len(asked) == 4)
        engine.hold.set()
        assert (await wire.answer()).status == 200
    assert all(later - earlier > 0.06 for earlier, later in pairwise(asked))


async def test_idle_engine_is_not_asked(watched: Running) -> None:
    reads = watched.engine.metric_reads
    watched.engine.core = asyncio.Event()
    checks = 0

    def note_check() -> bool:
        nonlocal checks
        checks += 1
        return True

    watched.agent.engine_watch._is_up = note_check
    await until(lambda: checks > 5)
    assert (await monitored(watched, b"/readyz"))[0] == 200
    assert watched.engine.metric_reads == reads


async def test_api_process_that_hangs_is_found_without_a_client(
    watched: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "QUICK_SECONDS", 0.1)
    monkeypatch.setattr(engine_metrics, "READ_SECONDS", 0.1)
    engine = watched.engine
    engine.listing_gate = engine.core = engine.metrics_gate = asyncio.Event()
    await until_ready_is(watched, 503)
    engine.core.set()
    await until_ready_is(watched, 200)


async def test_slow_control_calls_keep_the_routes(
    agent: Running, expenses: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "QUICK_SECONDS", 0.02)
    agent.engine.listing_gate = asyncio.Event()
    reconciler = agent.agent.reconciler
    for _ in range(5):
        await reconciler.step()
        assert reconciler.listing_failed
    assert (await once(agent, post())).status == 200
    assert len(agent.engine.loads) == 1
    agent.engine.listing_gate.set()


async def test_engine_without_a_free_file_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a refused connection, or a socket that is not there, says that the engine is away."""
    async with client.EngineClient(UnixAddress("/no/such/socket"), "base") as engine:
        with pytest.raises(client.EngineGone):
            await engine.adapters()

    async with client.EngineClient(TcpAddress("127.0.0.1", 1), "base") as engine:
        with pytest.raises(client.EngineGone):
            await engine.adapters()

    async def fail(*arguments: object, **keywords: object) -> None:
        raise OSError(24, "Too many open files")

    async with client.EngineClient(TcpAddress("127.0.0.1", 1), "base") as engine:
        monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", fail)
        with pytest.raises(client.EngineUnavailable) as raised:
            await engine.adapters()
        assert not isinstance(raised.value, client.EngineGone)


async def test_many_scrapes_are_one_read_of_the_engine(agent: Running) -> None:
    """And none of them uses a connection of the control traffic."""
    agent.engine.metrics_gate = asyncio.Event()
    reads = agent.engine.metric_reads
    async with aiohttp.ClientSession(agent.monitoring_url) as session:
        scrapes = [asyncio.create_task(scrape(session)) for _ in range(30)]
        await until(lambda: agent.engine.metric_reads > reads)
        agent.engine.metrics_gate.set()
        assert all(b"vllm:num_requests_running" in text for text in await asyncio.gather(*scrapes))
        await scrape(session)
    assert agent.engine.metric_reads == reads + 1


async def test_engine_metrics_are_bounded(agent: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_metrics, "MAX_BYTES", 20)
    async with aiohttp.ClientSession(agent.monitoring_url) as session:
        text = await scrape(session)
    assert b"tunesmith_agent_engine_up" in text
    assert b"vllm:num_requests_running" not in text


async def scrape(session: aiohttp.ClientSession) -> bytes:
    """Text of the agent's metrics."""
    async with session.get("/metrics") as answer:
        assert answer.status == 200
        return await answer.read()
