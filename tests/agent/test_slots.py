"""The engine's slots as a state machine: never too many, no unload under a request, and every wish comes true."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunesmith_agent.control.slots import EngineSlots, Place, Use

NAMES = st.sampled_from("abcdef")
SLOTS = 3


@dataclass
class Version:
    """One version in the model: its requests, and whether somebody needs it in its slot."""

    in_flight: int = 0
    last: float = 0.0
    held: int = 0
    gone: bool = False


class SlotsMachine(RuleBasedStateMachine):
    """The agent as it drives the slots, with an engine that fails at times."""

    def __init__(self) -> None:
        super().__init__()
        self.versions = {name: Version() for name in "abcdef"}
        self.slots: EngineSlots[str] = EngineSlots(SLOTS, self.use)
        self.engine: set[str] = set()
        self.loading: list[str] = []
        self.unloading: list[str] = []
        self.clock = 0.0

    def use(self, name: str) -> Use:
        return Use(self.versions[name].in_flight, self.versions[name].last)

    def accepts(self, name: str) -> bool:
        """Requests are sent only to what is loaded and stays."""
        return self.slots.place(name) is Place.LOADED

    def advance(self) -> None:
        """What the agent does after each event."""
        while self.slots.take_returner() is not None:
            pass
        while (name := self.slots.take_load()) is not None:
            assert name not in self.engine
            self.loading.append(name)
        while self.slots.take_leaver() is not None:
            pass
        while (name := self.slots.take_unload()) is not None:
            assert not self.versions[name].in_flight, "an unload under a request"
            assert not self.versions[name].held, "an unload of a version that is held"
            self.unloading.append(name)

    @rule(name=NAMES, urgent=st.booleans())
    def want(self, name: str, urgent: bool) -> None:
        self.versions[name].gone = False
        self.slots.want(name, urgent=urgent)
        self.advance()

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        if not self.versions[name].held:
            self.versions[name].gone = True
            self.slots.leave(name)
            self.advance()

    @precondition(lambda self: self.loading)
    @rule(fails=st.booleans(), data=st.data())
    def end_load(self, fails: bool, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.loading))
        self.loading.remove(name)
        if fails:
            self.slots.free(name)
        else:
            self.engine.add(name)
            self.slots.loaded(name)
        self.advance()

    @precondition(lambda self: self.unloading)
    @rule(fails=st.booleans(), data=st.data())
    def end_unload(self, fails: bool, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.unloading))
        self.unloading.remove(name)
        if fails:
            self.slots.stay(name)
        else:
            self.engine.discard(name)
            self.slots.free(name)
        self.advance()

    @rule(name=NAMES)
    def begin_request(self, name: str) -> None:
        if self.accepts(name):
            self.clock += 1
            self.versions[name].in_flight += 1
            self.versions[name].last = self.clock

    @rule(name=NAMES)
    def end_request(self, name: str) -> None:
        if self.versions[name].in_flight:
            self.versions[name].in_flight -= 1
            self.advance()

    @rule(name=NAMES)
    def hold(self, name: str) -> None:
        if self.accepts(name):
            self.versions[name].held += 1
            self.slots.hold(name)

    @rule(name=NAMES)
    def let_go(self, name: str) -> None:
        if self.versions[name].held:
            self.versions[name].held -= 1
            self.slots.let_go(name)
            self.advance()

    @rule()
    def restart_engine(self) -> None:
        for name in self.slots.places():
            self.slots.free(name)
        self.engine.clear()
        self.loading.clear()
        self.unloading.clear()
        for version in self.versions.values():
            version.in_flight = 0
        self.advance()

    @invariant()
    def never_above_the_slots(self) -> None:
        assert len(self.engine) <= SLOTS
        assert len(self.slots.places()) <= SLOTS

    @invariant()
    def what_gets_requests_is_in_the_engine(self) -> None:
        for name, version in self.versions.items():
            if version.in_flight or version.held or self.accepts(name):
                assert name in self.engine or not self.slots.place(name)

    @rule()
    def every_wish_comes_true_when_requests_end_and_the_engine_works(self) -> None:
        wanted = [name for name in "abcdef" if not self.versions[name].gone]
        for name, version in self.versions.items():
            for _ in range(version.held):
                self.slots.let_go(name)
            version.held = 0
        served: set[str] = set()
        for name in wanted:
            if self.accepts(name):
                served.add(name)
            self.slots.want(name, urgent=True)
        self.advance()
        for _ in range(40):
            for version in self.versions.values():
                version.in_flight = 0
            self.advance()
            for name in tuple(self.loading):
                # The requests that wait are sent in the moment in which the load ends.
                self.clock += 1
                self.versions[name].in_flight, self.versions[name].last = 1, self.clock
                served.add(name)
                self.loading.remove(name)
                self.engine.add(name)
                self.slots.loaded(name)
                self.advance()
            for name in tuple(self.unloading):
                self.unloading.remove(name)
                self.engine.discard(name)
                self.slots.free(name)
                self.advance()
        assert served >= set(wanted)
        assert not self.loading
        assert not self.unloading


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_version_that_was_used_longest_ago_makes_room() -> None:
    uses = {"a": Use(0, 3.0), "b": Use(0, 1.0), "c": Use(0, 2.0), "d": Use(0, 0.0)}
    slots: EngineSlots[str] = EngineSlots(3, uses.__getitem__)
    for name in "abc":
        assert slots.adopt(name)
    assert not slots.adopt("d")
    slots.want("d")
    assert slots.take_load() is None
    assert slots.take_leaver() == "b"
    assert slots.take_leaver() is None
    assert slots.take_unload() == "b"
    slots.free("b")
    assert slots.take_load() == "d"


def test_a_busy_version_makes_room_only_for_requests_that_wait() -> None:
    uses = {"a": Use(1, 1.0), "b": Use(2, 2.0), "c": Use(0, 0.0)}
    slots: EngineSlots[str] = EngineSlots(2, uses.__getitem__)
    assert slots.adopt("a")
    assert slots.adopt("b")
    slots.want("c")
    assert slots.take_leaver() is None
    slots.want("c", urgent=True)
    assert slots.take_leaver() == "a"
    assert slots.take_unload() is None
    uses["a"] = Use(0, 1.0)
    assert slots.take_unload() == "a"


def test_versions_that_requests_wait_for_are_loaded_first() -> None:
    slots: EngineSlots[str] = EngineSlots(1, lambda name: Use(0, 0.0))
    slots.want("a")
    slots.want("b")
    slots.want("c", urgent=True)
    assert slots.take_load() == "c"
    assert slots.take_load() is None
