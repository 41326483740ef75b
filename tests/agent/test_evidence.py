"""Evidence of the agent: the end of each request, and the sums over clients."""

import asyncio
from collections import Counter

import aiohttp
import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.wire import ASK, connect, post
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_agent import evidence
from tunesmith_agent.control import reconciler
from tunesmith_agent.evidence import KeySums, VersionEvidence
from tunesmith_agent.http.limits import Limits
from tunesmith_contract.agent import STICKINESS_HEADER, DesiredAlias, Version, VersionCounters, served_name

REQUESTS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60)


@pytest.fixture(autouse=True)
def quick_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "DECIDE_SECONDS", 0.0)


def counters(running: Running, version: Version) -> VersionCounters:
    """Counters of a version in the report."""
    report = running.agent.reconciler.report("boot")
    return next(item for item in report.counters if item.digest == version.digest)


async def ask(running: Running, model: str, key: str = "") -> int:
    """Status of one request."""
    headers = {STICKINESS_HEADER: key} if key else {}
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    async with (
        aiohttp.ClientSession(running.url) as session,
        session.post("/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        return answer.status


async def leave_unanswered(running: Running) -> None:
    """Send a request and leave before anything of its answer."""
    running.engine.hold = asyncio.Event()
    running.engine.arrived.clear()
    asking = asyncio.create_task(ask(running, "expenses"))
    await running.engine.arrived.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await running.engine.left.wait()


@given(REQUESTS)
def test_sums_are_those_over_the_clients(requests: list[tuple[int, bool]]) -> None:
    sums = KeySums()
    for key, failed in requests:
        sums.add(key, failed)
    asked = Counter(key for key, _ in requests)
    failures = Counter(key for key, failed in requests if failed)
    assert sums.keys == len(asked)
    assert sums.requests_squared == sum(count**2 for count in asked.values())
    assert sums.failures_squared == sum(count**2 for count in failures.values())
    assert sums.requests_failures == sum(count * failures[key] for key, count in asked.items())


@given(REQUESTS, REQUESTS)
def test_a_step_counts_each_client_anew(
    first: list[tuple[int, bool]], second: list[tuple[int, bool]]
) -> None:
    whole, one, two = KeySums(), KeySums(), KeySums()
    for part, requests in ((one, first), (two, second)):
        for key, failed in requests:
            whole.add(key, failed)
            part.add(key, failed)
        whole.restart()
    assert whole.requests_squared == one.requests_squared + two.requests_squared
    assert whole.requests_failures == one.requests_failures + two.requests_failures


def test_the_number_of_clients_in_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_KEYS", 3)
    sums = KeySums()
    for key in (1, 2, 3, 1, 4, 1, 2):
        sums.add(key, failed=False)
    # Client 2 was quiet longest when client 4 came, and counts as new; client 1 does not.
    assert (sums.keys, sums.requests_squared) == (5, 3**2 + 1 + 1 + 1 + 1)


def test_failures_wait_for_the_engine() -> None:
    counted = VersionEvidence()
    for time in (1.0, 2.0, 3.0):
        counted.count_failure(7, time)
    assert counted.decide(before=2.0)
    counted.lose_engine()
    told = counted.to_counters("a", "sha256:" + "a" * 64)
    assert (told.requests, told.errors, told.engine_lost, told.failures_squared) == (2, 2, 1, 4)
    assert not counted.decide(before=9.0)


async def test_an_error_of_the_version_is_one(agent: Running, expenses: Version) -> None:
    agent.engine.fail_with[served_name("expenses", expenses.digest)] = 500
    assert await ask(agent, "expenses") == 500
    await agent.until(lambda: counters(agent, expenses).errors == 1)
    assert counters(agent, expenses).requests == 1


async def test_requests_of_an_engine_that_dies_tell_against_nobody(
    monkeypatch: pytest.MonkeyPatch, agent: Running, storage: Storage
) -> None:
    """Twelve requests of each version fail while the engine dies: the candidate is not worse for it."""
    monkeypatch.setattr(reconciler, "DECIDE_SECONDS", 60.0)
    stable, candidate = storage.commit(), storage.commit(-0.5)
    agent.want(DesiredAlias(name="a", stable=stable, candidate=candidate, weight=50))
    await agent.active(stable, candidate)
    for version in (stable, candidate):
        agent.engine.fail_with[served_name("a", version.digest)] = 500
    for number in range(24):
        await ask(agent, f"a@{(stable, candidate)[number % 2].digest[7:19]}")
    await agent.engine.stop()
    await agent.until(lambda: not agent.agent.metrics.engine_up)
    for version in (stable, candidate):
        told = counters(agent, version)
        assert (told.requests, told.errors, told.engine_lost) == (0, 0, 12)
    agent.engine.fail_with.clear()
    await agent.engine.start()
    await agent.active(stable, candidate)
    assert all(not loaded.breaker_open for loaded in agent.agent.reconciler.report("b").versions)


async def test_a_core_that_dies_tells_against_nobody(
    monkeypatch: pytest.MonkeyPatch, agent: Running, expenses: Version
) -> None:
    """The engine's API outlives its core for seconds, ends the streams with an error, and lists its models."""
    monkeypatch.setattr(reconciler, "DECIDE_SECONDS", 0.5)
    agent.engine.pieces.put_nowait(b"data: one\n\n")
    async with connect(agent) as wire:
        wire.writer.write(post({**ASK, "stream": True}))
        assert (await wire.head())[0] == 200
        assert await wire.chunk() == b"data: one\n\n"
        agent.engine.core_died = True
        for piece in (b'data: {"error": {"message": "died", "code": 500}}\n\n', b"data: [DONE]\n\n", None):
            agent.engine.pieces.put_nowait(piece)
        await agent.until(lambda: counters(agent, expenses).engine_lost == 1)
    assert counters(agent, expenses).errors == 0
    assert not agent.agent.metrics.engine_up
    assert await ask(agent, "expenses") == 503
    await agent.engine.restart()
    await agent.active(expenses)
    assert await ask(agent, "expenses") == 200


async def test_requests_of_an_engine_that_is_back_before_it_was_missed_tell_against_nobody(
    monkeypatch: pytest.MonkeyPatch, agent: Running, storage: Storage
) -> None:
    monkeypatch.setattr(reconciler, "DECIDE_SECONDS", 60.0)
    stable, candidate = storage.commit(), storage.commit(-0.5)
    agent.want(DesiredAlias(name="a", stable=stable, candidate=candidate, weight=100))
    await agent.active(stable, candidate)
    agent.engine.fail_with[served_name("a", candidate.digest)] = 500
    assert [await ask(agent, "a", f"client {number}") for number in range(5)] == [500] * 5
    assert any(loaded.breaker_open for loaded in agent.agent.reconciler.report("b").versions)
    agent.engine.fail_with.clear()
    agent.engine.adapters.clear()
    await agent.until(lambda: counters(agent, candidate).engine_lost == 5)
    assert counters(agent, candidate).errors == 0
    assert all(not loaded.breaker_open for loaded in agent.agent.reconciler.report("b").versions)


async def test_failures_while_the_engine_hangs_tell_against_nobody(agent: Running, expenses: Version) -> None:
    agent.engine.fail_with[served_name("expenses", expenses.digest)] = 500
    agent.agent.metrics.engine_hangs = True
    assert await ask(agent, "expenses") == 500
    await agent.until(lambda: counters(agent, expenses).engine_lost == 1)
    assert counters(agent, expenses).requests == 0


async def test_failures_at_the_end_of_a_hang_tell_against_nobody(agent: Running, expenses: Version) -> None:
    """vLLM that goes on closes connections with requests that it has not read."""
    watch = agent.agent.engine_watch
    evidence = agent.agent.metrics.versions["expenses", expenses.digest].evidence
    watch._set(stalled=True)
    evidence.count_failure(None, asyncio.get_running_loop().time())
    watch._set(stalled=False)
    told = counters(agent, expenses)
    assert (told.errors, told.engine_lost) == (0, 1)


async def test_an_engine_that_is_not_there_is_lost(
    agent: Running, expenses: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.cut_off(monkeypatch)
    assert await ask(agent, "expenses") == 503
    assert counters(agent, expenses).engine_lost == 1


async def test_a_version_that_the_engine_forgot_was_refused(agent: Running, expenses: Version) -> None:
    # The agent learns it by this request, not by a list that it happens to ask for.
    agent.engine.listing_gate = asyncio.Event()
    del agent.engine.adapters[served_name("expenses", expenses.digest)]
    assert await ask(agent, "expenses") == 503
    assert (counters(agent, expenses).refused, counters(agent, expenses).requests) == (1, 0)
    agent.engine.listing_gate.set()
    await agent.active(expenses)


@pytest.mark.parametrize(("seconds", "abandoned"), [(0.0, 1), (3600.0, 0)])
async def test_a_client_that_leaves_after_a_long_wait_tells_against_the_version(
    engine: FakeEngine, storage: Storage, seconds: float, abandoned: int
) -> None:
    async with running_agent(engine, storage.root, Limits(abandoned_seconds=seconds)) as running:
        version = storage.commit()
        running.want(DesiredAlias(name="expenses", stable=version))
        await running.active(version)
        await leave_unanswered(running)
        await running.until(lambda: counters(running, version).abandoned == abandoned)
        told = counters(running, version)
        assert (told.requests, told.abandoned, told.errors) == (abandoned, abandoned, 0)
        assert told.failures_squared == abandoned


async def test_requests_of_one_client_are_summed(agent: Running, storage: Storage) -> None:
    stable, candidate = storage.commit(), storage.commit(-0.5)
    alias = DesiredAlias(name="a", stable=stable, candidate=candidate, weight=100)
    agent.want(alias)
    await agent.active(stable, candidate)
    for key in ("x", "y", "x", "x"):
        assert await ask(agent, "a", key) == 200
    told = counters(agent, candidate)
    assert (told.keys, told.requests_squared) == (2, 3**2 + 1)
    agent.want(alias.model_copy(update={"weight": 99}))
    await ask(agent, "a", "x")
    told = counters(agent, candidate)
    assert (told.keys, told.requests_squared) in {(3, 11), (2, 10)}, "the next step counts anew"


async def test_an_open_breaker_is_reported(agent: Running, storage: Storage) -> None:
    stable, candidate = storage.commit(), storage.commit(-0.5)
    agent.want(DesiredAlias(name="a", stable=stable, candidate=candidate, weight=100))
    await agent.active(stable, candidate)
    agent.engine.fail_with[served_name("a", candidate.digest)] = 500
    for number in range(5):
        await ask(agent, "a", f"client {number}")
    report = agent.agent.reconciler.report("boot")
    told = {loaded.digest: (loaded.breaker_open, loaded.breaker_clients) for loaded in report.versions}
    assert told == {stable.digest: (False, 0), candidate.digest: (True, 5)}
