"""An operator that is killed at random writes, behind an API server that fails in every way: nothing is lost."""

import json
import logging
import random
from pathlib import Path

import pytest
from api_faults.faults import FaultPlan
from api_faults.faulty_world import FaultyWorld, faulty_world
from long_form import cases

from tunesmith_cluster.fake import ControlPlane

log = logging.getLogger(__name__)

#: Kills of one world; the long form has ten worlds.
KILLS = cases(8, 50)
WORLDS = cases(1, 10)
#: How long one operator lives with faults and without kills.
FAULTY_SECONDS = cases(5, 60)
AT_WORK = 6


def tell(world: FaultyWorld) -> None:
    """What happened, for the log."""
    figures = {
        "seed": world.seed,
        "kills": {moment.value: count for moment, count in world.kills.items()},
        "exits": world.exits,
        "faults": {fault.value: count for fault, count in world.plan.drawn.items()},
        "runs": len(world.made),
        "jobs": len(world.history.created_jobs),
        "versions": world.rollouts.outcomes,
        "writes": world.history.writes,
    }
    log.info("%s", json.dumps(figures, indent=1))


def calm_plan() -> FaultPlan:
    return FaultPlan(random.SystemRandom().randrange(2**32), active=False)


@pytest.mark.many_cases
@pytest.mark.timeout(cases(300, 1200))
@pytest.mark.parametrize("number", range(WORLDS))
def test_nothing_is_stuck_lost_or_made_twice(server: ControlPlane, tmp_path: Path, number: int) -> None:
    seed = cases(1, random.SystemRandom().randrange(2**32))
    log.info("seed %d", seed)
    with faulty_world(server, tmp_path, FaultPlan(seed), releases=cases(1, 20)) as world:
        world.live_and_die(KILLS, AT_WORK)
        world.endure(FAULTY_SECONDS, AT_WORK)
        world.calm_down()
        tell(world)
        assert not world.find_losses()
        world.wipe_and_compare()


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 3])
def test_an_api_server_that_is_away_for_minutes_costs_one_restart(
    server: ControlPlane, tmp_path: Path, times: int
) -> None:
    """The lease is lost, so the process ends; the next one waits for the API server, however long that takes."""
    with faulty_world(server, tmp_path, calm_plan(), releases=3) as world:
        for _ in range(times):
            # It leads and works before the API server goes.
            world.endure(20, AT_WORK)
            exits = world.exits
            with world.proxy.away():
                world.endure(150 / times, at_work=0)
            assert world.exits - exits <= 1
        world.calm_down()
        assert not world.find_losses()
        world.wipe_and_compare()


@pytest.mark.long
def test_a_standby_takes_over_from_leaders_that_are_killed(server: ControlPlane, tmp_path: Path) -> None:
    """Two replicas at a time; the lease of a killed leader runs out by itself."""
    plan = FaultPlan(random.SystemRandom().randrange(2**32))
    log.info("seed %d", plan.seed)
    with faulty_world(server, tmp_path, plan, releases=10) as world:
        world.take_turns(10, AT_WORK)
        world.calm_down()
        tell(world)
        assert not world.find_losses()
        world.wipe_and_compare()
