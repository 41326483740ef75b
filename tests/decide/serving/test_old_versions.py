"""Old versions of an alias: a bounded number is remembered, and none that is needed is forgotten."""

from typing import Any

import pytest
from simulation.serving_world import World, build_adapter, digest_of

from tunesmith_contract.agent import MAX_REJECTED_DIGESTS

AT_ONCE = {"steps": [{"weight": 100}], "analysis": {"checks": []}, "rollbackWindow": "1m"}


def adapter_at_once(word: str, name: str = "expenses") -> dict[str, Any]:
    """An adapter whose new versions get all requests as soon as pods have them."""
    return build_adapter(word, name, rollout=AT_ONCE)


def remembered(world: World, alias: str = "expenses") -> list[int]:
    """Numbers of the versions that have a ControllerRevision."""
    data = [body["data"] for body in world.of_kind("ControllerRevision")]
    return sorted(each["version"] for each in data if each["alias"] == alias)


def promote(world: World, *words: str) -> None:
    """Let these artifacts be stable, one after the other."""
    for word in words:
        world.set_adapter(adapter_at_once(word))
        world.pass_seconds(10)
        assert world.adapter()["stable"]["digest"] == digest_of(word)
    world.pass_seconds(120)


def reject(world: World, *words: str) -> None:
    """Let these artifacts be rejected, one after the other."""
    for word in words:
        world.slow.add(digest_of(word))
        world.set_adapter(adapter_at_once(word))
        world.pass_seconds(2)
        assert world.ask("abort", f"abort-{word}")["result"] == "Done"


def test_the_versions_that_were_promoted_last_are_remembered() -> None:
    world = World(adapter_at_once("v1"), adapter_at_once("other", "tickets"), revisionHistoryLimit=3)
    promote(world, *(f"v{number}" for number in range(1, 10)))
    assert remembered(world) == [6, 7, 8, 9]
    assert remembered(world, "tickets") == [1]
    assert world.ask("undo", "too-far", toVersion=5)["result"] == "Refused"
    assert world.ask("undo", "back", toVersion=6)["result"] == "Done"
    world.pass_seconds(30)
    assert world.adapter()["stable"]["version"] == 6


def test_a_version_that_came_back_counts_by_its_last_promotion() -> None:
    world = World(adapter_at_once("v1"), revisionHistoryLimit=2)
    promote(world, "v1", "v2", "v3", "v1", "v4", "v5")
    assert remembered(world) == [1, 4, 5]


def test_a_number_is_given_once_although_its_version_is_forgotten() -> None:
    world = World(adapter_at_once("v1"), revisionHistoryLimit=0)
    promote(world, "v1", "v2", "v3")
    assert remembered(world) == [3]
    promote(world, "v1")
    assert world.adapter()["stable"]["version"] == 4


def test_versions_in_use_are_remembered_whatever_the_limit() -> None:
    world = World(adapter_at_once("v1"), revisionHistoryLimit=0)
    promote(world, "v1")
    world.set_adapter(adapter_at_once("v2"))
    world.pass_seconds(10)
    assert remembered(world) == [1, 2], "the previous one is still loaded"
    world.slow.add(digest_of("v3"))
    world.set_adapter(adapter_at_once("v3"))
    world.pass_seconds(10)
    assert remembered(world) == [1, 2, 3]


def test_a_version_that_an_undo_loads_is_remembered() -> None:
    world = World(adapter_at_once("v1"), revisionHistoryLimit=2)
    promote(world, "v1", "v2", "v3")
    world.slow.add(digest_of("v1"))
    world.ask("undo", toVersion=1)
    world.spec |= {"revisionHistoryLimit": 0}
    world.pass_seconds(30)
    assert 1 in remembered(world)
    world.slow.clear()
    world.pass_seconds(30)
    assert world.adapter()["stable"]["version"] == 1


def test_the_latest_rejected_versions_are_remembered_and_stay_rejected() -> None:
    world = World(adapter_at_once("good"), revisionHistoryLimit=1)
    promote(world, "good")
    words = [f"bad{number}" for number in range(MAX_REJECTED_DIGESTS + 3)]
    reject(world, *words)
    numbers = remembered(world)
    assert len(numbers) <= MAX_REJECTED_DIGESTS + 2 and {1, 3 + MAX_REJECTED_DIGESTS} <= set(numbers)
    for word in words[3:]:
        world.set_adapter(adapter_at_once(word))
        world.settle()
        assert world.adapter()["reason"] == "DigestRejected"


def test_a_rejected_version_that_the_source_names_is_never_forgotten() -> None:
    world = World(adapter_at_once("v1"), revisionHistoryLimit=0)
    promote(world, "v1")
    reject(world, "bad")
    world.pass_seconds(600)
    assert world.adapter()["reason"] == "DigestRejected"
    assert remembered(world) == [1, 2]


@pytest.mark.parametrize("killed_after", range(1, 5))
def test_an_operator_that_was_killed_between_deletions_goes_on(killed_after: int) -> None:
    world = World(adapter_at_once("v1"), revisionHistoryLimit=10)
    promote(world, *(f"v{number}" for number in range(1, 6)))
    world.spec |= {"revisionHistoryLimit": 1}
    world.generation += 1
    world.reconcile(actions=killed_after)
    world.settle()
    assert remembered(world) == [4, 5]
