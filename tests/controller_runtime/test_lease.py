"""One leader at a time, whatever fails."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from api_server.fake_api import FakeApi, FakeClock, until

from tunesmith.controller_runtime.errors import Retryable
from tunesmith.controller_runtime.lease import LeaderLease, LeaseLost, LeaseTimes
from tunesmith.manifests.objects import Body

TIMES = LeaseTimes(duration=15, deadline=10, retry=0)
UNREACHABLE = Retryable("the API server can't be reached")


def candidate(api: Any, clock: FakeClock, identity: str, times: LeaseTimes = TIMES) -> LeaderLease:
    return LeaderLease(api, "system", "tunesmith", identity, times, clock)


class StalledApi(FakeApi):
    """Some of its next reads are never answered."""

    stalled = 0

    async def get(self, api_version: str, kind: str, namespace: str | None, name: str) -> Body | None:
        if self.stalled:
            self.stalled -= 1
            await asyncio.sleep(3600)
        return await super().get(api_version, kind, namespace, name)


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


async def test_one_request_without_an_answer_does_not_cost_the_lead() -> None:
    api, times = StalledApi(), LeaseTimes(duration=1.5, deadline=1.0, retry=0.0)
    lease = LeaderLease(cast(Any, api), "system", "tunesmith", "first", times)
    assert await leads(lease)
    api.stalled = 1
    holding = asyncio.create_task(lease.hold())
    await asyncio.sleep(1.2)
    assert not holding.done()
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


@pytest.mark.parametrize("kept", [True, False], ids=["older", "younger than the backup"])
async def test_a_lease_as_it_was_earlier_tells_that_the_api_server_went_back(kept: bool) -> None:
    api, clock = FakeApi(), FakeClock()
    lease = candidate(api, clock, "first")
    told: list[None] = []
    lease.on_went_back = lambda: told.append(None)
    assert await leads(lease)
    backup = copy.deepcopy(api.objects["Lease", "system", "tunesmith"])
    holding = asyncio.create_task(lease.hold())
    await until(lambda: api.calls.count(("replace", "Lease")) > 3)
    assert not told
    # Versions of other objects have caught up, so that the present version tells nothing.
    api.version += 1000
    if kept:
        api.objects["Lease", "system", "tunesmith"] = backup
    else:
        del api.objects["Lease", "system", "tunesmith"]
    await until(lambda: bool(told))
    renewed = api.calls.count(("replace", "Lease"))
    await until(lambda: api.calls.count(("replace", "Lease")) > renewed + 3)
    assert len(told) == 1
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


@asynccontextmanager
async def confirming(api: FakeApi) -> AsyncIterator[tuple[LeaderLease, list[int]]]:
    """A lease that is held, and renewed only where it is doubted; with the numbers of the doubts that it confirms."""
    lease = candidate(api, FakeClock(), "first", LeaseTimes(duration=15, deadline=10, retry=3600))
    confirmed: list[int] = []
    assert await leads(lease)
    lease.on_confirmed = confirmed.append
    holding = asyncio.create_task(lease.hold())
    try:
        yield lease, confirmed
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def test_a_doubt_is_confirmed_by_the_next_renewal_which_begins_at_once() -> None:
    async with confirming(FakeApi()) as (lease, confirmed):
        lease.doubt(1)
        await until(lambda: confirmed == [1])
        lease.doubt(2)
        lease.doubt(3)
        await until(lambda: confirmed == [1, 3])


async def test_a_doubt_lasts_while_the_lease_cannot_be_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.controller_runtime.lease.URGENT_SECONDS", 0.001)
    api = FakeApi()
    async with confirming(api) as (lease, confirmed):
        tries = api.calls.count(("get", "Lease"))
        api.failures["get", "Lease"] = [UNREACHABLE] * 2
        lease.doubt(1)
        await until(lambda: bool(confirmed))
        assert api.calls.count(("get", "Lease")) == tries + 3
