"""One leader at a time, whatever fails."""

import asyncio
from typing import Any

import pytest
from api_server.fake_api import FakeApi, FakeClock

from tunesmith.controller_runtime.errors import Retryable
from tunesmith.controller_runtime.lease import LeaderLease, LeaseLost, LeaseTimes

TIMES = LeaseTimes(duration=15, deadline=10, retry=0)
UNREACHABLE = Retryable("the API server can't be reached")


def candidate(api: Any, clock: FakeClock, identity: str) -> LeaderLease:
    return LeaderLease(api, "system", "tunesmith", identity, TIMES, clock)


async def leads(lease: LeaderLease) -> bool:
    """Whether the candidate gets the lease within a few tries."""
    acquiring = asyncio.create_task(lease.acquire())
    for _ in range(20):
        await asyncio.sleep(0)
    if acquiring.done():
        return True
    acquiring.cancel()
    await asyncio.gather(acquiring, return_exceptions=True)
    return False


def holder(api: FakeApi) -> Any:
    return api.objects["Lease", "system", "tunesmith"]["spec"]["holderIdentity"]


async def test_the_first_leads_until_its_lease_has_run_out() -> None:
    api, clock = FakeApi(), FakeClock()
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second")
    assert await leads(first)
    assert not await leads(second)
    clock.advance(14)
    assert not await leads(second)
    clock.advance(2)
    assert await leads(second)
    assert holder(api) == "second"
    assert api.objects["Lease", "system", "tunesmith"]["spec"]["leaseTransitions"] == 1
    with pytest.raises(LeaseLost):
        await first.hold()


async def test_a_lease_without_a_spec_is_free() -> None:
    api, clock = FakeApi(), FakeClock()
    metadata = {"namespace": "system", "name": "tunesmith"}
    api.add({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata})
    first = candidate(api, clock, "first")
    assert await leads(first)
    await first.release()


async def test_a_released_lease_is_free_at_once() -> None:
    api, clock = FakeApi(), FakeClock()
    first, second = candidate(api, clock, "first"), candidate(api, clock, "second")
    assert await leads(first)
    await first.release()
    assert await leads(second)
    await first.release()
    assert holder(api) == "second"


async def test_who_cannot_renew_in_time_gives_up_before_another_can_win() -> None:
    api, clock = FakeApi(), FakeClock()
    lease = candidate(api, clock, "first")
    assert await leads(lease)
    api.failures["get", "Lease"] = [UNREACHABLE] * 1000
    holding = asyncio.create_task(lease.hold())
    clock.advance(9)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not holding.done()
    clock.advance(1)
    with pytest.raises(LeaseLost):
        await holding


async def test_a_race_for_the_same_lease_has_one_winner() -> None:
    api, clock = FakeApi(), FakeClock()
    outcomes = await asyncio.gather(*(leads(candidate(api, clock, f"c{n}")) for n in range(5)))
    assert sum(outcomes) == 1
