"""Rollouts that nobody notices: clients ask on while versions come and go, and pods, operator and API server fail."""

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from long_form import cases
from rollouts.clients import FAILS, HANGS, End
from rollouts.record_history import DEVIATIONS, needless_flips, shares, wrong_answers
from rollouts.rollout_world import Release, RolloutWorld, rollout_world

from tunesmith_cluster.fake import ControlPlane

ANSWERS, FALSE, ABORTED = "answers", "false", "aborted"
#: What is released one after the other, and what fails meanwhile, by the number of the release.
SHORT = (ANSWERS, ABORTED, ANSWERS)
LONG = (
    *[ANSWERS, ANSWERS, ANSWERS, ANSWERS, ABORTED] * 2,
    ANSWERS,
    ANSWERS,
    FAILS,
    *[ANSWERS] * 5,
    FALSE,
    ANSWERS,
    HANGS,
)
LONG = (*LONG, *[ANSWERS] * 4)


def choose_faults(world: RolloutWorld, number: int) -> list[Any]:
    """What fails during the release of this number, in their order."""
    faults = [world.kill_agent, world.delete_pod, world.pause_api_server, world.kill_operator]
    return faults[number % 4 :: 4] if cases(0, 1) else [faults[1:3], faults[:1], faults[3:]][number]


async def fail_meanwhile(world: RolloutWorld, number: int) -> None:
    for fault in choose_faults(world, number):
        await asyncio.sleep(world.load.random.uniform(0.5, 4))
        await fault()


async def roll(world: RolloutWorld, kinds: Sequence[str]) -> list[Release]:
    releases = []
    for number, kind in enumerate(kinds):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_meanwhile(world, number))
            abort = kind == ABORTED
            release = await world.release(ANSWERS if abort else kind, abort=abort)
        print(f"{release.mark} took {release.ended - release.named:.1f} s", file=sys.stderr)
        await world.until_ready()
        releases.append(release)
    return releases


@pytest.mark.many_cases
async def test_nobody_notices(server: ControlPlane, tmp_path: Path) -> None:
    seed = cases(1, random.SystemRandom().randrange(2**32))
    kinds = (cases(0, 1) and LONG) or SHORT
    async with rollout_world(server, tmp_path, seed=seed) as world:
        await roll(world, kinds)
        async with asyncio.timeout(600):
            while len(world.load.replies) < cases(3_000, 100_000):
                await asyncio.sleep(0.1)
    report = describe(world)
    print(json.dumps(report, indent=1), file=sys.stderr)
    replies, history = world.load.replies, world.history
    assert not [reply for reply in replies if reply.end is End.FAILED], report
    assert not wrong_answers(replies, history)
    assert not needless_flips(replies, world.rejected)
    assert all(abs(share.deviations) < DEVIATIONS for share in shares(replies, history))


def describe(world: RolloutWorld) -> dict[str, Any]:
    """Figures of a run."""
    replies, history = world.load.replies, world.history
    return {
        "requests": world.load.count(),
        "refused": world.load.refused,
        "operatorStarts": world.operator.starts,
        "killed": sum(len(pod.killed) for pod in world.pods.all),
        "inFlightWhenKilled": sum(count for pod in world.pods.all for _, count in pod.killed),
        "pods": len(world.pods.all),
        "releases": len(world.releases),
        "rolledBack": sorted(world.rejected),
        "failed": [str(reply) for reply in replies if reply.end is End.FAILED][:20],
        "wrong": [str(reply) for reply in wrong_answers(replies, history)][:20],
        "flips": [f"{flip}: {times}" for flip, times in needless_flips(replies, world.rejected).items()][:20],
        "shares": [f"{share} {share.deviations:.1f}" for share in shares(replies, history)],
    }
