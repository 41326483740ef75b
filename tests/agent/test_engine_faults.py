"""The real engine hangs, dies, is killed, or has more requests than it can answer."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from agents.agent_harness import Running, running_agent
from engines.engine_process import (
    ENGINE_PYTHON,
    ENGINE_SECONDS,
    SEQUENCES,
    EngineProcess,
    make_ordered,
)
from models.order import Conversation, Order, OrderedAdapter

from tunesmith_agent.metrics import VersionStats
from tunesmith_contract.agent import DesiredAlias, LoadState, Version

log = logging.getLogger(__name__)

LUNCH = [{"role": "user", "content": "Lunch"}]
MARK = "right"
#: Requests that may wait in the engine.
QUEUE = 4
#: The pod must be seen as not ready after so long, with the times that pods have.
NOTICE_SECONDS = 40.0

pytestmark = [
    pytest.mark.engine,
    pytest.mark.long,
    pytest.mark.skipif(not ENGINE_PYTHON, reason="TUNESMITH_ENGINE_PYTHON names no engine"),
    pytest.mark.timeout(4 * ENGINE_SECONDS),
]


@dataclass
class Place:
    """An engine, and one version that answers with its mark."""

    engine: EngineProcess
    storage: Path
    version: Version

    @property
    def socket(self) -> str:
        return self.engine.socket


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("engine")
    adapter = OrderedAdapter(
        name=MARK, model="model", conversations=[Conversation(messages=LUNCH, answer=MARK)]
    )
    versions = make_ordered(folder, Order(models=["model"], adapters=[adapter]))
    engine = EngineProcess(folder / "model")
    engine.start()
    yield Place(engine, folder / "mnt", versions[MARK])
    engine.end()


@asynccontextmanager
async def serving(place: Place, **settings: Any) -> AsyncIterator[Running]:
    """An agent that serves the version."""
    async with running_agent(place, place.storage, seconds=ENGINE_SECONDS, **settings) as running:
        running.want(DesiredAlias(name="alias", stable=place.version))
        await running.active(place.version)
        yield running


async def ask(session: aiohttp.ClientSession, **fields: Any) -> tuple[int, Mapping[str, str], str]:
    """Status, headers and text of an answer of the alias; status 0 if it broke off."""
    body = {"model": "alias", "messages": LUNCH, "temperature": 0, **fields}
    try:
        async with session.post("/v1/chat/completions", json=body) as answer:
            return answer.status, answer.headers, await answer.text()
    except aiohttp.ClientError:
        return 0, {}, ""


async def readiness(running: Running) -> tuple[int, str]:
    """Status and body of the readiness probe."""
    url = f"{running.monitoring_url}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def until_ready_is(running: Running, status: int, seconds: float) -> tuple[float, str]:
    """Seconds until the readiness probe has a status, and its body."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while True:
            seen, body = await readiness(running)
            if seen == status:
                return time.monotonic() - began, body
            await asyncio.sleep(0.1)


def stats_of(running: Running, version: Version) -> VersionStats:
    return running.agent.metrics.versions["alias", version.digest]


@pytest.mark.parametrize("with_client", [True, False])
async def test_process_that_stands_still(place: Place, with_client: bool) -> None:
    """All of the engine is stopped, its API too; nobody has to ask for the pod to be not ready."""
    async with serving(place) as running, aiohttp.ClientSession(running.url) as session:
        assert (await ask(session))[0] == 200
        asking = []
        with place.engine.stopped():
            if with_client:
                asking = [asyncio.create_task(ask(session))]
            seconds, reason = await until_ready_is(running, 503, NOTICE_SECONDS)
            log.info("noticed after %.1f s, with a client: %s", seconds, with_client)
            assert reason.startswith("The engine hangs:")
        seconds, _ = await until_ready_is(running, 200, ENGINE_SECONDS)
        log.info("ready again after %.1f s", seconds)
        # An engine that goes on may close a connection that it takes for idle, with a request that it has not read.
        ends = [(await each)[0] for each in asking]
        assert set(ends) <= {200, 502}
        assert MARK in (await ask(session))[2]
        evidence = stats_of(running, place.version).evidence
        await running.until(lambda: evidence.requests + evidence.engine_lost == 2 + len(ends))
        assert (evidence.errors, evidence.abandoned) == (0, 0)
        assert running.state(place.version) is LoadState.ACTIVE


async def test_full_queue(place: Place) -> None:
    """Requests beyond those that may wait are refused with the time after which to try again."""
    async with serving(place, queue_requests=QUEUE) as running:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(running.url, connector=connector) as session:
            long = {"max_tokens": 200, "ignore_eos": True}
            asking = [asyncio.create_task(ask(session, **long)) for _ in range(SEQUENCES + 3 * QUEUE)]
            async with asyncio.timeout(ENGINE_SECONDS):
                while not running.agent.engine_queue.retry_seconds():
                    assert not all(each.done() for each in asking)
                    await asyncio.sleep(0.01)
            refused = [await ask(session, **long) for _ in range(3)]
            answers = await asyncio.gather(*asking)
            assert [status for status, _, _ in refused] == [429] * 3
            assert all(int(headers["retry-after"]) > 0 for _, headers, _ in refused)
            assert {status for status, _, _ in answers} == {200}
            await asyncio.sleep(1)
            assert (await ask(session))[0] == 200


@pytest.mark.parametrize("streamed", [True, False])
async def test_core_that_dies(place: Place, streamed: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The API of an engine whose core has died lists its models for seconds: its errors are nobody's."""
    caplog.set_level(logging.INFO)
    async with serving(place) as running, aiohttp.ClientSession(running.url) as session:
        await check_end(place, running, session, place.engine.kill_core, streamed=streamed)
        await asyncio.to_thread(place.engine.wait)
        await check_return(place, running, session, caplog)


async def test_engine_that_is_killed(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(place) as running, aiohttp.ClientSession(running.url) as session:
        await check_end(place, running, session, place.engine.kill, streamed=True)
        await check_return(place, running, session, caplog)


async def check_end(
    place: Place,
    running: Running,
    session: aiohttp.ClientSession,
    kill: Callable[[], None],
    *,
    streamed: bool,
) -> None:
    """End the engine while it answers, and ask on until the pod is not ready."""
    assert (await ask(session))[0] == 200
    fields = {"max_tokens": 200, "ignore_eos": True, "stream": streamed}
    asking = [asyncio.create_task(ask(session, **fields)) for _ in range(4)]
    async with asyncio.timeout(ENGINE_SECONDS):
        while True:
            if await place.engine.running() == len(asking):
                break
    kill()
    began = time.monotonic()
    statuses = []
    while (await readiness(running))[0] == 200:
        statuses.append((await ask(session, stream=streamed))[0])
        await asyncio.sleep(0.1)
    log.info("not ready after %.1f s; meanwhile %s", time.monotonic() - began, statuses)
    log.info("requests in progress ended with %s", [(await each)[0] for each in asking])


async def check_return(
    place: Place, running: Running, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Start the engine again: the version is loaded and proven again, and nothing counts against it."""
    await running.until(lambda: not running.agent.metrics.engine_up)
    place.engine.start()
    seconds, _ = await until_ready_is(running, 200, ENGINE_SECONDS)
    log.info("ready again after %.1f s", seconds)
    await running.active(place.version)
    assert MARK in (await ask(session))[2]
    evidence = stats_of(running, place.version).evidence
    assert (evidence.errors, evidence.abandoned) == (0, 0)
    assert evidence.engine_lost >= 4
    reasons = {
        record.__dict__["reason"] for record in caplog.records if record.message == "version is Failed"
    }
    assert reasons <= {"EngineUnavailable"}
    assert not any("breaker opened" in record.message for record in caplog.records)
