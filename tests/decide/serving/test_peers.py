"""Pods that answer for each other: who is told of whom, and when that changes."""

from datetime import timedelta

from agents.first_release import FirstDesiredState
from simulation.serving_world import FakePod, World, build_adapter, digest_of

from tunesmith.decide.serving.placement.peers import next_peers
from tunesmith.decide.serving.pods.pod_sets import read_pod_sets
from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith_contract.agent import FEATURES, PEERS, PREVIOUS, REJECTED, DesiredState, Peer


def many_aliases(count: int = 12, pods: int = 3, slots: int = 8) -> World:
    """More aliases than fit into one pod."""
    world = World(*(build_adapter(f"one-{index}", name=f"a{index:02}") for index in range(count)), pods=pods)
    for pod in world.pods.values():
        pod.slots = slots
    world.pass_seconds(60)
    return world


def homes(world: World) -> dict[str, set[str]]:
    """Homes by alias."""
    found: dict[str, set[str]] = {}
    for peer in world.desired.peers:
        for alias in peer.homes:
            found.setdefault(alias, set()).add(peer.name)
    return found


def test_pods_are_told_of_each_other_without_homes_where_all_adapters_fit() -> None:
    world = many_aliases(4, pods=2)
    assert world.desired.peers == (
        Peer(name="pod-0", host=world.pods["pod-0"].address, port=8000),
        Peer(name="pod-1", host=world.pods["pod-1"].address, port=8000),
    )
    assert world.pods["pod-0"].desired == world.desired
    single = many_aliases(12, pods=1)
    assert single.desired.peers == ()


def test_aliases_have_homes_where_not_all_fit() -> None:
    world = many_aliases()
    assert set(homes(world)) == {f"a{index:02}" for index in range(12)}
    assert world.desired.peers[0].homes == tuple(sorted(world.desired.peers[0].homes))
    generation = world.desired.generation
    world.pass_seconds(120)
    assert world.desired.generation == generation, "nothing changes while nothing happens"


def test_homes_of_very_many_pods_leave_room_in_the_config_map() -> None:
    world = World(build_adapter("one"), pods=1000, engine={"gpus": 0, "residentAdapters": 64})
    fleet = read_pod_sets([], None, world.observe().pods, world.observe().agents).fleet
    records = [AliasRecord(name=f"alias-{number:02}-{'x' * 50}") for number in range(64)]
    placed = next_peers(world.resource, records, fleet, ())
    assert len(placed.peers) == 1000
    assert len(DesiredState(generation=1, peers=placed.peers).to_json()) < 200_000


def test_a_pod_that_goes_is_named_no_more_and_its_aliases_get_another_home() -> None:
    world = many_aliases()
    before = homes(world)
    world.remove_pod("pod-1")
    world.settle()
    after = homes(world)
    assert [peer.name for peer in world.desired.peers] == ["pod-0", "pod-2"]
    assert set(after) == set(before)
    kept = {alias: pods - {"pod-1"} for alias, pods in before.items()}
    assert all(pods <= after[alias] for alias, pods in kept.items())


def test_a_pod_that_is_not_ready_is_no_peer() -> None:
    world = many_aliases()
    world.pods["pod-2"].ready = False
    world.settle()
    assert [peer.name for peer in world.desired.peers] == ["pod-0", "pod-1"]


def test_a_new_pod_is_home_of_nothing_before_it_has_proven_it() -> None:
    world = many_aliases()
    before = homes(world)
    new = world.pods["new"] = FakePod("new", "uid-new", slots=8, connected=False)
    world.settle()
    assert "new" not in {peer.name for peer in world.desired.peers}
    new.connected = True
    for index in range(12):
        new.refuting[digest_of(f"one-{index}")] = "on purpose"
    world.pass_seconds(30)
    assert "new" in {peer.name for peer in world.desired.peers}
    assert homes(world) == before
    new.refuting.clear()
    world.pass_seconds(60)
    assert any("new" in pods for pods in homes(world).values())


def test_an_operator_that_has_heard_no_agent_yet_moves_nothing() -> None:
    world = many_aliases()
    state = world.desired
    for pod in world.pods.values():
        pod.connected = False
    world.status = {}
    world.settle()
    assert world.desired == state
    # The first agent that is heard does not become the home of all.
    world.pods["pod-0"].connected = True
    world.pass_seconds(30)
    assert world.desired.peers == state.peers


def test_both_versions_of_a_rollout_are_on_the_same_homes() -> None:
    world = many_aliases()
    before = homes(world)
    world.set_adapter(build_adapter("two", name="a03"))
    world.settle()
    world.pass_seconds(5)
    alias = next(alias for alias in world.desired.aliases if alias.name == "a03")
    assert alias.candidate is not None and alias.weight
    assert homes(world) == before


def test_older_agents_get_what_they_understand_and_status_says_what_that_withholds() -> None:
    world = many_aliases()
    world.pods["pod-2"].features = (PREVIOUS, REJECTED)
    world.pass_seconds(30)
    state = world.pods["pod-2"].desired
    assert state is not None and state.peers == ()
    assert [peer.name for peer in world.desired.peers] == ["pod-0", "pod-1"]
    condition = world.condition("AgentsCurrent")
    assert condition["status"] == "False"
    assert "forward requests to the pods that hold an adapter" in condition["message"]
    assert "keep the previous version" not in condition["message"]
    FirstDesiredState.model_validate_json(world.desired.for_features(()).to_json())
    assert world.desired.for_features(FEATURES) == world.desired
    assert world.desired.for_features((PEERS,)).peers == world.desired.peers


def test_a_rollback_and_a_change_of_peers_go_together() -> None:
    """The urgent push names the pods as they are now."""
    world = many_aliases(2, pods=3)
    world.set_adapter(build_adapter("bad", name="a00"))
    world.settle()
    world.pass_seconds(5)
    world.remove_pod("pod-1")
    for pod in world.pods.values():
        pod.serve("a00", digest_of("bad"), 60, 60)
    world.now += timedelta(minutes=1)
    world.settle()
    assert [peer.name for peer in world.desired.peers] == ["pod-0", "pod-2"]
    assert all(pod.desired == world.desired for pod in world.pods.values())
    assert world.adapter("a00")["phase"] == "RolledBack"


def test_peers_are_pods_of_the_set_that_answers() -> None:
    """A second set gets homes of its own with the switch, and no request is forwarded to it before."""
    world = World(*(build_adapter(f"one-{index}", name=f"a{index:02}") for index in range(30)), pods=0)
    world.runs_pods = True
    world.settle()
    world.settle()
    first = {pod.name for pod in world.pods.values()}
    assert {peer.name for peer in world.desired.peers} == first
    assert len(homes(world)) == 30
    image = "registry/mine:2"
    world.forgetful.add(image)
    world.change_engine(image=image)
    world.settle()
    second = {pod.name for pod in world.pods.values()} - first
    assert second
    assert {peer.name for peer in world.desired.peers} == first
    world.forgetful.clear()
    world.settle()
    assert {peer.name for peer in world.desired.peers} == second
    assert len(homes(world)) == 30
