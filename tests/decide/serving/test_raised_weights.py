"""Weights that rise reach all ready pods in one pass: no pod answers by a new weight while others lack it."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from long_form import cases
from simulation.serving_world import FakePod, World, build_adapter, digest_of

#: Time after which a raised weight goes to the agents that are connected.
DEADLINE = 10.0
NAMES = ("pod-0", "pod-1", "pod-2")
ROLLOUT = {
    "steps": [{"weight": 20, "pause": "2s"}, {"weight": 50, "pause": "2s"}, {"weight": 100}],
    "analysis": {"interval": "10s", "minimumRequests": 0},
}
Shares = dict[tuple[str, str], int]


def shares(pod: FakePod) -> Shares:
    """Percent of an alias's requests by version, as the pod answers them."""
    if pod.desired is None:
        return {}
    given: Shares = {}
    for alias in pod.desired.aliases:
        if alias.stable:
            given[alias.name, alias.stable.digest] = 100 - alias.weight
        if alias.candidate:
            given[alias.name, alias.candidate.digest] = alias.weight
    return given


def stable_versions(pod: FakePod) -> set[tuple[str, str]]:
    aliases = pod.desired.aliases if pod.desired else ()
    return {(alias.name, alias.stable.digest) for alias in aliases if alias.stable}


def share(pod: FakePod, word: str, alias: str = "expenses") -> int:
    return shares(pod).get((alias, digest_of(word)), 0)


def told(world: World, word: str, alias: str = "expenses") -> list[int]:
    """Share of a version on each pod."""
    return [share(pod, word, alias) for pod in world.pods.values()]


def canary() -> World:
    """Version 2 is at 20 % beside version 1, and its pause is over; so is that of another alias, which is slower."""
    slow = {**ROLLOUT, "steps": [{"weight": 20, "pause": "10m"}, {"weight": 100}]}
    world = World(
        build_adapter("one", rollout=ROLLOUT),
        build_adapter("red", "tickets", rollout=slow),
        replicas=3,
        pods=3,
    )
    world.settle()
    world.set_adapter(build_adapter("two", rollout=ROLLOUT))
    world.set_adapter(build_adapter("blue", "tickets", rollout=slow))
    world.settle()
    assert told(world, "two") == told(world, "blue", "tickets") == [20, 20, 20]
    world.now += timedelta(seconds=15)
    return world


@contextlib.contextmanager
def nobody_ahead(world: World) -> Iterator[None]:
    """Check that the block gives no ready pod a higher share of a new version than all had, or gives it to all.

    What the stable version gets back is no new share.
    """
    ready = [pod for pod in world.pods.values() if pod.ready]
    stable = {version for pod in ready for version in stable_versions(pod)}
    before = [shares(pod) for pod in ready]
    yield
    after = [shares(pod) for pod in ready]
    for version in {version for given in after for version in given} - stable:
        highest = max((given.get(version, 0) for given in before), default=0)
        raised = [given.get(version, 0) for given in after if given.get(version, 0) > highest]
        assert not raised or len(raised) == len(after), f"some pods are ahead of others: {after}"


def killed_in_step(actions: int) -> World:
    """The operator ended after so many actions of the pass that begins the next step; another one leads 15 s later."""
    world = canary()
    world.reconcile(actions=actions)
    world.now += timedelta(seconds=15)
    world.replace_operator()
    world.settle()
    return world


@pytest.mark.parametrize("actions", range(1, 5))
@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]])
def test_agents_that_connect_one_after_the_other_get_a_raised_weight_together(
    actions: int, order: tuple[str, ...]
) -> None:
    world = killed_in_step(actions)
    for name in order:
        with nobody_ahead(world):
            world.connect(name)
            world.settle()
        world.now += timedelta(seconds=0.7)
    assert told(world, "two") == [50, 50, 50]


@pytest.mark.parametrize("actions", range(4))
def test_a_promotion_reaches_all_pods_together(actions: int) -> None:
    world = canary()
    world.settle()
    world.now += timedelta(seconds=15)
    world.reconcile(actions=actions)
    world.replace_operator()
    for name in NAMES:
        with nobody_ahead(world):
            world.connect(name)
            world.settle()
    assert told(world, "two") == [100, 100, 100]


def test_a_raised_weight_waits_ten_seconds_for_an_agent() -> None:
    world = killed_in_step(1)
    world.connect("pod-0")
    world.connect("pod-1")
    world.pass_seconds(DEADLINE - 1)
    assert told(world, "two") == [20, 20, 20]
    assert world.plan.requeue_after is not None and world.plan.requeue_after <= 2
    world.pass_seconds(2)
    assert told(world, "two")[:2] == [50, 50]
    world.connect("pod-2")
    assert told(world, "two") == [50, 50, 50]


def test_a_state_that_is_mounted_and_not_sent_waits_ten_seconds_for_an_agent() -> None:
    world = killed_in_step(2)
    world.connect("pod-0")
    world.pass_seconds(DEADLINE - 1)
    assert told(world, "two") == [20, 20, 20]
    world.pass_seconds(2)
    assert told(world, "two") == [50, 20, 20]


def test_an_agent_that_is_away_when_a_step_begins_is_waited_for() -> None:
    world = canary()
    # It is younger than the step, so the step begins without it.
    world.pods["young"] = FakePod("young", "uid-young", created=world.now)
    world.pods["young"].take(world.desired)
    world.pods["young"].connected = False
    with nobody_ahead(world):
        world.settle()
    assert world.adapter()["candidate"]["weight"] == 50
    with nobody_ahead(world):
        world.connect("young")
        world.settle()
    assert told(world, "two") == [50, 50, 50, 50]


def test_pods_that_are_not_ready_are_not_waited_for() -> None:
    world = killed_in_step(1)
    world.pods["pod-2"].ready = False
    world.connect("pod-0")
    world.connect("pod-1")
    world.settle()
    assert told(world, "two") == [50, 50, 20]


def test_a_rollback_waits_for_nobody() -> None:
    world = killed_in_step(1)
    world.connect("pod-0")
    world.settle()
    world.ask("abort")
    assert told(world, "two") == [0, 20, 20]
    assert world.adapter()["phase"] == "RolledBack"


def test_a_rollback_of_one_alias_does_not_take_the_raised_weight_of_another_with_it() -> None:
    world = killed_in_step(1)
    world.connect("pod-0")
    world.settle()
    world.ask("abort", adapter="tickets")
    assert told(world, "two") == [20, 20, 20]
    assert told(world, "blue", "tickets") == [0, 20, 20]


def test_an_operator_that_finds_nothing_new_tells_each_agent_at_once() -> None:
    world = canary()
    world.settle()
    assert told(world, "two") == [50, 50, 50]
    world.replace_operator()
    world.settle()
    world.connect("pod-0")
    world.settle()
    assert world.pods["pod-0"].told


class RaisedWeights(RuleBasedStateMachine):
    """A rollout while operators are killed between any two actions, and agents connect and are cut off at any time."""

    @initialize()
    def begin(self) -> None:
        self.world = World(build_adapter("one", rollout=ROLLOUT), replicas=3, pods=3)
        self.world.settle()
        self.versions = 1

    @property
    def is_overdue(self) -> bool:
        """Raised weights may have waited for long enough."""
        led = (self.world.now - self.world.led_since).total_seconds()
        record = self.world.record()
        since = record.candidate.step_seconds if record.candidate else record.watch.seconds
        written = record.written or self.world.now
        age = (self.world.now - written).total_seconds()
        return min(led, since + age, record.watch.seconds + age) >= DEADLINE

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        with contextlib.nullcontext() if self.is_overdue else nobody_ahead(self.world):
            yield

    @rule(actions=st.none() | st.integers(0, 5))
    def reconcile(self, actions: int | None) -> None:
        with self.watched():
            self.world.reconcile(actions)

    @rule(actions=st.integers(0, 5))
    def be_replaced(self, actions: int) -> None:
        with self.watched():
            self.world.reconcile(actions)
            self.world.replace_operator()

    @rule(name=st.sampled_from(NAMES))
    def connect(self, name: str) -> None:
        if not self.world.pods[name].connected:
            with self.watched():
                self.world.connect(name)
                self.world.reconcile()

    @rule(name=st.sampled_from(NAMES))
    def cut_off(self, name: str) -> None:
        self.world.pods[name].connected = False

    @rule(seconds=st.sampled_from([1, 3, 15]))
    def pass_time(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule(
        seconds=st.sampled_from([0, 15, 15]),
        actions=st.integers(0, 5),
        order=st.permutations(NAMES),
        late=st.integers(1, 3),
    )
    def end_in_a_step(self, seconds: int, actions: int, order: list[str], late: int) -> None:
        """A step in which the operator ends; some agents soon find the next one."""
        for name in NAMES:
            self.connect(name)
        self.world.now += timedelta(seconds=seconds)
        self.be_replaced(actions)
        for name in order[:late]:
            self.reconcile(None)
            self.connect(name)

    @rule()
    def release(self) -> None:
        self.versions += 1
        self.world.set_adapter(build_adapter(f"version-{self.versions}", rollout=ROLLOUT))

    @rule()
    def get_done(self) -> None:
        """With all agents connected everything is sent, and the pods agree."""
        with self.watched():
            for name in NAMES:
                if not self.world.pods[name].connected:
                    self.world.connect(name)
            self.world.settle(12)
        assert len({str(shares(pod)) for pod in self.world.pods.values()}) == 1
        assert self.world.pods["pod-0"].desired == self.world.desired
        assert self.world.desired.aliases == (self.world.record().to_desired(),)

    @invariant()
    def what_is_sent_is_mounted(self) -> None:
        for pod in self.world.pods.values():
            assert pod.generation <= self.world.desired.generation or not pod.heard


RaisedWeights.TestCase.settings = settings(max_examples=cases(20, 1000), stateful_step_count=15)
TestRaisedWeights = RaisedWeights.TestCase
