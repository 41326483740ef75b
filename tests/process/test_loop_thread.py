"""A loop in a thread of its own keeps time whatever the main loop does."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from api_server.fake_api import FakeApi

from tunesmith.controller_runtime.lease import LeaderLease, LeaseTimes
from tunesmith.process.loop_thread import LoopThread


async def test_a_lease_is_renewed_while_the_main_loop_is_busy() -> None:
    renewed = threading.Semaphore(0)
    async with LoopThread("lease") as thread:
        times = LeaseTimes(duration=1.5, deadline=1.0, retry=0.01)
        lease = LeaderLease(cast(Any, FakeApi()), "system", "tunesmith", "first", times)
        await thread.run(lease.acquire())
        lease.on_confirmed = lambda number: renewed.release()
        holding = asyncio.create_task(thread.run(lease.hold()))
        await asyncio.sleep(0)
        # Nothing else runs in the main loop meanwhile.
        assert all(renewed.acquire(timeout=10) for _ in range(3))
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def test_errors_and_cancellations_pass_between_the_loops() -> None:
    began, cancelled = threading.Event(), threading.Event()

    async def fail() -> None:
        raise ValueError("odd")

    async def last() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with LoopThread("test") as thread:
        with pytest.raises(ValueError, match="odd"):
            await thread.run(fail())
        waiting = asyncio.create_task(thread.run(last()))
        await asyncio.to_thread(began.wait)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await asyncio.to_thread(cancelled.wait, 10)
    assert "test" not in {each.name for each in threading.enumerate()}


async def test_a_resource_is_opened_and_closed_there() -> None:
    threads: list[str] = []

    @asynccontextmanager
    async def resource() -> AsyncIterator[str]:
        threads.append(threading.current_thread().name)
        yield "entered"
        threads.append(threading.current_thread().name)

    async with LoopThread("test") as thread, thread.opened(resource()) as entered:
        assert entered == "entered"
    assert threads == ["test", "test"]
