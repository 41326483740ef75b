"""Answers about the whole cluster: many resources at once ask once."""

import asyncio
from typing import Any

import pytest
from api_server.fake_api import FakeApi, FakeClock

from tunesmith.cluster.cluster_reads import SECONDS, ClusterReads, SharedAnswer
from tunesmith.controller_runtime.errors import Refused, Retryable


async def test_many_at_once_list_the_nodes_once() -> None:
    api: Any = FakeApi()
    api.add({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu"}})
    reads = ClusterReads()
    answers = await asyncio.gather(*(reads.nodes(api) for _ in range(50)))
    assert api.calls == [("list", "Node")]
    assert {node["metadata"]["name"] for nodes in answers for node in nodes} == {"gpu"}


async def test_who_may_not_list_nodes_has_none() -> None:
    api: Any = FakeApi()
    api.failures["list", "Node"] = [Refused("forbidden", 403, "Forbidden")]
    assert await ClusterReads().nodes(api) == ()


async def test_an_answer_is_asked_for_anew_once_it_is_old_or_was_an_error() -> None:
    clock, asked = FakeClock(), 0
    shared: SharedAnswer[int] = SharedAnswer(clock)

    async def ask() -> int:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Retryable("away")
        return asked

    assert await shared.get(ask) == await shared.get(ask) == 1
    clock.advance(SECONDS)
    with pytest.raises(Retryable):
        await shared.get(ask)
    assert await shared.get(ask) == 3


async def test_who_gives_up_takes_the_answer_away_from_nobody() -> None:
    shared, go_on = SharedAnswer[str](), asyncio.Event()

    async def ask() -> str:
        await go_on.wait()
        return "answer"

    first, second = (asyncio.create_task(shared.get(ask)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    go_on.set()
    assert await second == "answer"
