"""Pauses between tries: growing, bounded, and different in each pod."""

import random
import re
from contextlib import AsyncExitStack

import pytest
from agents.agent_harness import Storage, running_agent
from agents.fake_engine import FakeEngine
from tenacity import AsyncRetrying, RetryCallState

from tunesmith_agent.control.reconciler import LOAD_RETRY_WAIT
from tunesmith_contract.agent import DesiredAlias, Version

PODS = 5


async def test_pods_do_not_retry_a_failed_load_in_step(engine: FakeEngine, storage: Storage) -> None:
    random.seed(20)
    missing = Version(version=1, digest="sha256:" + "a" * 64, uri="pvc://artifacts/missing")
    pauses = set()
    async with AsyncExitStack() as stack:
        for _ in range(PODS):
            pod = await stack.enter_async_context(running_agent(engine, storage.root))
            pod.want(DesiredAlias(name="a", stable=missing))
            assert await pod.failed(missing) == "ArtifactNotFound"
            (version,) = pod.agent.reconciler.report("boot").versions
            pause = re.search(r"Next try in (\S+) s\.", version.message)
            assert pause is not None
            pauses.add(float(pause[1]))
    assert len(pauses) > 1
    assert max(pauses) <= 0.5


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (5000, 30)])
def test_pauses_grow_up_to_half_a_minute(attempt: int, longest: float) -> None:
    random.seed(20)
    state = RetryCallState(AsyncRetrying(), fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    pauses = [LOAD_RETRY_WAIT(state) for _ in range(200)]
    assert 0.9 * longest < max(pauses) <= longest
    assert min(pauses) < 0.1 * longest
