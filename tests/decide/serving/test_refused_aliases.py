"""An alias that was written before a rule refused its name holds up no other one, and keeps its stable version."""

import json
from datetime import timedelta

import pytest
from simulation.serving_world import World, build_adapter, digest_of

from tunesmith_contract.agent import DesiredAlias


def upgraded(name: str) -> World:
    """An earlier release has served this alias beside ``expenses``, and a version of it is at 5 %."""
    world = World(build_adapter("one"), build_adapter("red", "old"))
    world.settle()
    world.set_adapter(build_adapter("blue", "old"))
    world.settle()
    assert world.adapter("old")["candidate"]["weight"] == 5
    for key, body in [*world.objects.items()]:
        if "state.json" in body.get("data", {}):
            world.objects[key] = json.loads(json.dumps(body).replace('\\"old\\"', f'\\"{name}\\"'))
    world.spec = json.loads(json.dumps(world.spec).replace('"old"', f'"{name}"'))
    world.status = {}
    return world


def published(world: World, name: str) -> DesiredAlias:
    return next(alias for alias in world.desired.aliases if alias.name == name)


@pytest.mark.parametrize("name", ["base", "a..b"])
def test_it_stays_at_its_stable_version_and_is_named(name: str) -> None:
    world = upgraded(name)
    world.settle()
    kept = published(world, name)
    assert kept.stable is not None
    assert (kept.stable.digest, kept.candidate, kept.weight) == (digest_of("red"), None, 0)
    assert all(pod.desired == world.desired for pod in world.pods.values())
    stalled = world.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidAlias")
    assert f"Until {name} is renamed in spec.adapters" in stalled["message"]
    assert not [key for key in world.objects if name in key[1]], "no object can have this name"


def test_all_others_go_on_and_what_fails_is_rolled_back() -> None:
    world = upgraded("base")
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert world.adapter()["candidate"]["weight"] == 5
    world.pods["pod-0"].serve("expenses", digest_of("two"), 100, 100)
    world.now += timedelta(seconds=15)
    world.settle()
    assert world.adapter()["phase"] == "RolledBack"


def test_a_renamed_one_is_served_like_any_other_and_the_former_name_ends() -> None:
    world = upgraded("base")
    world.settle()
    world.spec = json.loads(json.dumps(world.spec).replace('"base"', '"renamed"'))
    world.generation += 1
    world.settle()
    assert {alias.name for alias in world.desired.aliases} == {"expenses", "renamed"}
    assert world.condition("Stalled")["status"] == "False"
