"""Rollouts that nobody notices: clients ask on while versions come and go, and pods, operator and API server fail."""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from long_form import cases
from rollouts.clients import FAILS, HANGS, End
from rollouts.figures import describe
from rollouts.record_history import DEVIATIONS, flips, needless_flips, shares, wrong_answers
from rollouts.rollout_world import RolloutWorld, rollout_world

from tunesmith_cluster.fake import ControlPlane

log = logging.getLogger(__name__)

ANSWERS, FALSE, ABORTED = "answers", "false", "aborted"
Fault = Callable[[], Awaitable[object]]

LONG_REQUESTS = 100_000


def choose_short(world: RolloutWorld) -> list[tuple[str, list[Fault]]]:
    """Two promotions and a way back, with each fault once."""
    return [
        (ANSWERS, [world.delete_pod, world.kill_agent]),
        (ABORTED, [world.pause_api_server]),
        (ANSWERS, [world.kill_operator]),
    ]


def choose_long(world: RolloutWorld) -> list[tuple[str, list[Fault]]]:
    """Twenty promotions and five ways back, with up to two faults in each."""
    kinds = [ANSWERS] * 20 + [ABORTED] * 2 + [FAILS, HANGS, FALSE]
    world.load.random.shuffle(kinds)
    faults: Sequence[Fault] = (
        world.kill_agent, world.kill_agent, world.delete_pod, world.delete_pod, world.lose_pod, world.kill_operator,
        world.pause_api_server, lambda: world.pause_api_server(15),
    )  # fmt: skip
    return [(kind, world.load.random.choices(faults, k=number % 3)) for number, kind in enumerate(kinds)]


async def fail_meanwhile(world: RolloutWorld, faults: Sequence[Fault]) -> None:
    for fault in faults:
        await asyncio.sleep(world.load.random.uniform(0.3, 3))
        await fault()


async def release(world: RolloutWorld, kind: str, faults: Sequence[Fault]) -> None:
    """One version; it ends as its kind says, whatever fails meanwhile."""
    async with asyncio.TaskGroup() as group:
        group.create_task(fail_meanwhile(world, faults))
        released = await world.release(ANSWERS if kind == ABORTED else kind, abort=kind == ABORTED)
    seconds, count = released.ended - released.named, len(world.load.replies)
    log.info("%s took %.1f s; %d requests until now", released.mark, seconds, count)
    assert (released.mark in world.rejected) == (kind != ANSWERS)
    await world.until_ready()


def describe_flips(world: RolloutWorld) -> dict[str, list[str]]:
    """Each conversation that changed its version needlessly, with all its changes between these versions."""
    needless = needless_flips(world.load.replies, world.rejected)
    changed: dict[str, list[str]] = {}
    for conversation, old, new in flips(world.load.replies):
        if (conversation, old, new) in needless:
            changed.setdefault(f"conversation {conversation}", []).append(f"{old} to {new}")
    return changed


@pytest.mark.many_cases
@pytest.mark.timeout(cases(600, 3600))
async def test_nobody_notices(server: ControlPlane, tmp_path: Path) -> None:
    seed = cases(1, random.SystemRandom().randrange(2**32))
    log.info("seed %d", seed)
    async with rollout_world(server, tmp_path, seed=seed, rate=cases(100, 300)) as world:
        for kind, faults in (cases(0, 1) and choose_long(world)) or choose_short(world):
            await release(world, kind, faults)
        await world.load.until(cases(0, LONG_REQUESTS))
    log.info("%s", json.dumps(describe(world), indent=1))
    replies, history = world.load.replies, world.history
    assert not [reply for reply in replies if reply.end is End.FAILED]
    assert not wrong_answers(replies, history)
    assert not describe_flips(world)
    assert any(flips(replies))
    measured = list(shares(replies, history, world.pods.all))
    assert len(measured) >= 2
    assert not [share for share in measured if abs(share.deviations) >= DEVIATIONS]
    kills = sum(len(pod.killed) for pod in world.pods.all)
    assert sum(reply.end is End.CUT for reply in replies) <= 2 * world.load.clients * kills
