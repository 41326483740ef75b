"""Fixtures of the agent's tests: uvloop, quick polls, no leaked tasks, a fake engine, an agent in front."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from servers.storage_servers import s3 as s3
from tenacity import wait_random

from tunesmith_agent.control import desired_state, operator_link, reconciler
from tunesmith_contract.agent import DesiredAlias, Version


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The loop that the agent runs on in a pod."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
async def no_leaked_tasks() -> AsyncIterator[None]:
    """A task that outlives its test fails it."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops look often: tests wait for conditions, never for time."""
    monkeypatch.setattr(reconciler, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(reconciler, "MIN_STEP_SECONDS", 0.001)
    monkeypatch.setattr(desired_state, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(operator_link, "RECONNECT_WAIT", wait_random(0.01, 0.05))


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    fake = FakeEngine()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "mnt")


@pytest.fixture
async def agent(engine: FakeEngine, storage: Storage) -> AsyncIterator[Running]:
    async with running_agent(engine, storage.root) as running:
        yield running


@pytest.fixture
async def expenses(agent: Running, storage: Storage) -> Version:
    """The alias ``expenses`` with one active version."""
    version = storage.commit()
    agent.want(DesiredAlias(name="expenses", stable=version))
    await agent.active(version)
    return version
