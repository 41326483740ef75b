"""Changes that nobody notices: clients ask on while versions, engines and base models change, and all parts fail.

More aliases than fit into a pod are served, so pods forward requests to each other.
"""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
from long_form import cases
from rollouts.clients import FAILS, HANGS, End
from rollouts.figures import describe
from rollouts.record_history import DEVIATIONS, flips, needless_flips, shares, wrong_answers
from rollouts.rollout_world import RolloutWorld, Shape, rollout_world

from tunesmith_cluster.fake import ControlPlane

log = logging.getLogger(__name__)

ANSWERS, FALSE, ABORTED = "answers", "false", "aborted"
Fault = Callable[[], Awaitable[object]]

LONG_REQUESTS = 100_000
LONG = Shape()
SHORT = Shape(
    aliases=("expenses", "tickets", "travel"),
    replicas=2,
    conversations=150,
    clients=6,
    rate=40,
    look_seconds=0.2,
    scale_down_seconds=1,
)


class Change(Enum):
    """What changes beside a version, or in place of one."""

    NOTHING = "nothing"
    ENGINE = "engine"
    ENGINE_AND_BACK = "engine and back"
    BASE_MODEL = "base model"


@dataclass(frozen=True, slots=True)
class Scene:
    """One release or change, and what fails meanwhile.

    Attributes:
        kind: how the release ends; empty for a change of the base model, which ends rollouts.
    """

    kind: str
    faults: Sequence[Fault] = ()
    change: Change = Change.NOTHING


def choose_short(world: RolloutWorld) -> list[Scene]:
    """A promotion while the engine changes, a way back, and another base model; each part fails once."""
    return [
        Scene(ANSWERS, [], Change.ENGINE),
        Scene(ABORTED, [world.pause_api_server]),
        Scene("", [world.kill_operator, world.kill_agent], Change.BASE_MODEL),
    ]


def choose_long(world: RolloutWorld) -> list[Scene]:
    """Twenty promotions and five ways back, five changes of other kinds, with up to two faults in each."""
    kinds = [ANSWERS] * 20 + [ABORTED] * 2 + [FAILS, HANGS, FALSE]
    changes = [Change.ENGINE] * 3 + [Change.ENGINE_AND_BACK] + [Change.NOTHING] * 21
    scenes = [*zip(kinds, changes, strict=True), *[("", Change.BASE_MODEL)] * 2]
    world.load.random.shuffle(scenes)
    faults: Sequence[Fault] = (
        world.kill_agent, world.kill_agent, world.delete_pod, world.delete_pod, world.lose_pod, world.kill_operator,
        world.pause_api_server, lambda: world.pause_api_server(15),
    )  # fmt: skip
    return [
        Scene(kind, world.load.random.choices(faults, k=number % 3), change)
        for number, (kind, change) in enumerate(scenes)
    ]


async def fail_meanwhile(world: RolloutWorld, faults: Sequence[Fault]) -> None:
    for fault in faults:
        await asyncio.sleep(world.load.random.uniform(0.3, 3))
        await fault()


async def change(world: RolloutWorld, what: Change) -> None:
    if what is Change.BASE_MODEL:
        await world.change_base_model()
    elif what is not Change.NOTHING:
        await world.change_engine(back=what is Change.ENGINE_AND_BACK)


async def release(world: RolloutWorld, kind: str) -> None:
    """One version; it ends as its kind says."""
    released = await world.release(ANSWERS if kind == ABORTED else kind, abort=kind == ABORTED)
    log.info("%s took %.1f s", released.name, released.ended - released.named)
    assert (released.mark in world.rejected) == (kind != ANSWERS)


async def play(world: RolloutWorld, scene: Scene) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fail_meanwhile(world, scene.faults))
        group.create_task(change(world, scene.change))
        if scene.kind:
            group.create_task(release(world, scene.kind))
    await world.until_ready()
    log.info(
        "%s, change of %s: %d requests until now", scene.kind, scene.change.value, len(world.load.replies)
    )


def describe_flips(world: RolloutWorld) -> dict[str, list[str]]:
    """Each conversation that changed its version needlessly, with all its changes between these versions."""
    replies, changes = world.load.replies, world.model_changes
    needless = needless_flips(replies, world.rejected, changes)
    changed: dict[str, list[str]] = {}
    for conversation, old, new in flips(replies, changes):
        if (conversation, old, new) in needless:
            changed.setdefault(f"conversation {conversation}", []).append(f"{old} to {new}")
    return changed


@pytest.mark.many_cases
@pytest.mark.timeout(cases(600, 5400))
async def test_nobody_notices(server: ControlPlane, tmp_path: Path) -> None:
    seed = cases(1, random.SystemRandom().randrange(2**32))
    log.info("seed %d", seed)
    is_long = bool(cases(0, 1))
    async with rollout_world(server, tmp_path, seed=seed, shape=LONG if is_long else SHORT) as world:
        forwarding = asyncio.create_task(world.until_forwarded())
        for scene in choose_long(world) if is_long else choose_short(world):
            await play(world, scene)
        await world.load.until(LONG_REQUESTS if is_long else 0)
        await forwarding
    log.info("%s", json.dumps(describe(world), indent=1))
    replies, history = world.load.replies, world.history
    assert not [reply for reply in replies if reply.end is End.FAILED]
    assert not wrong_answers(replies, history, world.pods.all, world.marks, world.model_changes)
    assert not describe_flips(world)
    assert any(flips(replies))
    measured = list(shares(replies, history, world.pods.all, world.marks))
    assert measured
    assert not [share for share in measured if abs(share.deviations) >= DEVIATIONS]
    kills = sum(len(pod.killed) for pod in world.pods.all)
    assert sum(reply.end is End.CUT for reply in replies) <= 2 * world.load.clients * kills
