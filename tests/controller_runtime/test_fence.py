"""Nobody acts while the API server's data may be older than what is known."""

import asyncio

import pytest

from tunesmith.controller_runtime.errors import Retryable
from tunesmith.controller_runtime.fence import Fence


async def is_open(fence: Fence) -> bool:
    waiting = asyncio.create_task(fence.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return not waiting.cancelled()


async def test_a_doubt_closes_it_until_the_lease_was_read_since() -> None:
    fence, told = Fence(), list[int]()
    fence.on_doubt = told.append
    assert await is_open(fence)
    fence.doubt()
    fence.doubt()
    assert told == [1, 2]
    fence.confirm(1)
    assert not await is_open(fence)
    fence.confirm(2)
    assert await is_open(fence)


async def test_data_that_went_back_keep_it_closed_until_all_was_listed() -> None:
    fence = Fence()
    fence.doubt()
    fence.go_back()
    fence.confirm(1)
    assert not await is_open(fence)
    fence.catch_up()
    assert await is_open(fence)


async def test_a_plan_of_before_the_setback_is_not_carried_out_after_it() -> None:
    fence = Fence()
    setbacks = fence.setbacks
    fence.doubt()
    fence.confirm(1)
    await fence.wait_since(setbacks)
    fence.go_back()
    fence.catch_up()
    with pytest.raises(Retryable, match="went back"):
        await fence.wait_since(setbacks)
