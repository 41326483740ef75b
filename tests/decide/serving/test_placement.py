"""Home pods of aliases: few moves, bounded load, and no alias without a home."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.decide.serving.placement.placement import (
    LOAD_FACTOR,
    MOVES,
    HomePod,
    PlacedAlias,
    Placement,
    count_homes,
    place,
)

Homes = Mapping[str, Collection[str]]


def pods_of(count: int, slots: int = 8) -> list[HomePod]:
    return [HomePod(f"pod-{index}", slots) for index in range(count)]


def aliases_of(count: int, pods: Sequence[HomePod]) -> list[PlacedAlias]:
    """Aliases that every pod has proven."""
    names = frozenset(pod.name for pod in pods)
    return [PlacedAlias(f"alias-{index}", 0, names) for index in range(count)]


def settle(aliases: Sequence[PlacedAlias], pods: Sequence[HomePod], before: Homes) -> tuple[Placement, int]:
    """The placement after as many passes as it needs, and the number of passes."""
    for number in range(1, 200):
        placement = place(aliases, pods, before)
        if placement.is_settled:
            return placement, number
        before = placement.homes
    raise AssertionError("the placement never settles")


def loads(homes: Homes) -> dict[str, int]:
    found: dict[str, int] = {}
    for names in homes.values():
        for name in names:
            found[name] = found.get(name, 0) + 1
    return found


def count_moves(before: Homes, after: Homes) -> int:
    """New homes of aliases."""
    return sum(len(set(after[name]) - set(before.get(name, ()))) for name in after)


def over_bound(homes: Homes, wanted: Mapping[str, int], pods: Sequence[HomePod]) -> dict[str, int]:
    """Pods that hold more homes than they may, if each alias is to have so many."""
    total, slots = sum(wanted.values()), sum(pod.slots for pod in pods)
    held = loads(homes)
    return {
        pod.name: held.get(pod.name, 0)
        for pod in pods
        if held.get(pod.name, 0) >= LOAD_FACTOR * total * pod.slots / slots + 1
    }


fleets = st.lists(st.integers(2, 24), min_size=1, max_size=9).map(
    lambda slots: [HomePod(f"pod-{index}", number) for index, number in enumerate(slots)]
)


@given(fleets, st.integers(1, 64), st.integers(1, 1000))
def test_every_alias_has_a_home_and_no_pod_has_too_many(
    pods: list[HomePod], count: int, steepness: int
) -> None:
    aliases = [
        replace(alias, requests=index * index * steepness)
        for index, alias in enumerate(aliases_of(count, pods))
    ]
    placement, _ = settle(aliases, pods, {})
    if not placement.homes:
        assert all(pod.slots >= 2 * count for pod in pods)
        return
    assert set(placement.homes) == {alias.name for alias in aliases}
    assert all(placement.homes.values())
    assert not over_bound(placement.homes, count_homes(aliases, pods, placement.homes), pods)
    assert place(list(reversed(aliases)), list(reversed(pods)), placement.homes) == placement


@given(fleets, fleets, st.integers(1, 64), st.data())
def test_nothing_moves_off_a_home_before_another_pod_has_proven_the_alias(
    pods: list[HomePod], others: list[HomePod], count: int, data: st.DataObject
) -> None:
    before = settle(aliases_of(count, pods), pods, {})[0].homes
    names = [pod.name for pod in others]
    proven = data.draw(st.lists(st.frozensets(st.sampled_from(names)), min_size=count, max_size=count))
    aliases = [PlacedAlias(f"alias-{index}", 0, each) for index, each in enumerate(proven)]
    after, _ = settle(aliases, others, before)
    for alias in aliases:
        if not after.homes:
            continue
        assert after.homes[alias.name]
        assert set(after.homes[alias.name]) <= set(names)
        # An alias that some pod has proven is never left with pods alone that have not.
        assert not alias.proven_on or alias.proven_on & set(after.homes[alias.name])


def test_where_all_adapters_fit_every_pod_is_home_of_all() -> None:
    pods = pods_of(3)
    assert place(aliases_of(4, pods), pods, {}) == Placement({})
    assert place(aliases_of(5, pods), pods, {}).homes
    assert place(aliases_of(5, pods), [], {"alias-1": ("pod-1",)}) == Placement({})


def test_each_alias_has_two_homes_if_the_slots_suffice_and_one_otherwise() -> None:
    pods = pods_of(3, 8)
    assert set(count_homes(aliases_of(6, pods), pods, {}).values()) == {2}
    assert set(count_homes(aliases_of(12, pods), pods, {}).values()) == {1}
    assert set(count_homes(aliases_of(40, pods), pods, {}).values()) == {1}


def test_busy_aliases_get_more_homes() -> None:
    pods = pods_of(8, 8)
    busy, *others = aliases_of(12, pods)
    counts = count_homes([replace(busy, requests=50_000), *others], pods, {})
    assert counts[busy.name] == 8
    assert {counts[alias.name] for alias in others} == {2}
    few = count_homes([replace(busy, requests=10), *others], pods, {})
    assert set(few.values()) == {2}


def test_a_little_more_traffic_changes_no_number_of_homes() -> None:
    pods = pods_of(8, 8)
    busy, *others = aliases_of(12, pods)
    before = settle([replace(busy, requests=50_000), *others], pods, {})[0].homes
    for requests in (45_000, 48_000, 52_000, 60_000):
        assert place([replace(busy, requests=requests), *others], pods, before).homes == before


@settings(max_examples=40)
@given(st.integers(2, 12), st.integers(10, 64), st.integers(0, 11))
def test_a_pod_that_goes_moves_only_its_own_aliases(number: int, count: int, gone: int) -> None:
    pods = pods_of(number)
    before = settle(aliases_of(count, pods), pods, {})[0].homes
    left = [pod for index, pod in enumerate(pods) if index != gone % number]
    aliases = aliases_of(count, left)
    after = place(aliases, left, before)
    if not before or not after.homes:
        return
    lost = count_moves(
        {name: set(names) & {pod.name for pod in left} for name, names in before.items()}, before
    )
    assert count_moves(before, after.homes) <= lost + MOVES
    assert all(after.homes.values())


@settings(max_examples=40)
@given(st.integers(2, 12), st.integers(20, 64))
def test_a_pod_that_comes_takes_no_more_than_its_share(number: int, count: int) -> None:
    pods = pods_of(number)
    before = settle(aliases_of(count, pods), pods, {})[0].homes
    more = pods_of(number + 1)
    aliases = aliases_of(count, more)
    after = place(aliases, more, before)
    grown = count_homes(aliases, more, before)
    added = sum(max(0, grown[name] - len(before[name])) for name in before)
    assert count_moves(before, after.homes) <= MOVES + added
    settled, passes = settle(aliases, more, before)
    total = sum(len(names) for names in settled.homes.values())
    share = total / (number + 1)
    assert loads(settled.homes).get(f"pod-{number}", 0) <= max(share, added)
    assert passes <= 2 + total / MOVES


def test_a_new_pod_without_the_versions_is_home_of_nothing_yet() -> None:
    pods = pods_of(3)
    aliases = aliases_of(24, pods)
    before = settle(aliases, pods, {})[0].homes
    more = pods_of(4)
    assert place(aliases, more, before) == Placement(before)
    proven = [replace(alias, proven_on=alias.proven_on | {"pod-3"}) for alias in aliases]
    assert "pod-3" in loads(settle(proven, more, before)[0].homes)


def test_pods_that_come_and_go_move_little_more_than_rendezvous_hashing_must() -> None:
    """Ten changes of a fleet of eight: homes that move, beside those that any placement would have to move."""
    pods = pods_of(8)
    homes: Homes = settle(aliases_of(60, pods), pods, {})[0].homes
    moved, needed = 0, 0.0
    for step in range(10):
        comes = step % 2
        names = [pod.name for pod in pods]
        changed = [*pods, HomePod(f"later-{step}", 8)] if comes else pods[1:]
        after = settle(aliases_of(60, changed), changed, homes)[0].homes
        gone = set(names) - {pod.name for pod in changed}
        lost = sum(bool(set(each) & gone) for each in homes.values())
        needed += 60 / len(changed) if comes else lost
        moved += count_moves(homes, after)
        assert all(after.values())
        assert not over_bound(after, count_homes(aliases_of(60, changed), changed, after), changed)
        pods, homes = changed, after
    assert needed * 0.5 <= moved <= needed * 1.3
