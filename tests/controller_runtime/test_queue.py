"""The work queue: no key is worked on twice at once, and no add is lost."""

import asyncio

import pytest
from api_server.fake_api import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from long_form import cases

from tunesmith.controller_runtime.backoff import Backoff
from tunesmith.controller_runtime.queue import BACKOFF, PATIENCE_SECONDS, URGENT_IN_A_ROW, WorkQueue

KEYS = st.sampled_from("abc")


class QueueMachine(RuleBasedStateMachine):
    """A model beside the queue: what was asked for after its last start has to be started again."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.queue: WorkQueue[str] = WorkQueue(self.clock, Backoff(0.1, 300.0, jitter=lambda: 0.5))
        self.owed: set[str] = set()
        self.due: dict[str, float] = {}
        self.soon: dict[str, float] = {}
        self.working: set[str] = set()

    @rule(key=KEYS, urgent=st.booleans())
    def add(self, key: str, urgent: bool) -> None:
        self.queue.add(key, urgent)
        self.owed.add(key)

    @rule(key=KEYS)
    def add_idle(self, key: str) -> None:
        self.queue.add_idle(key)
        self.owed.add(key)

    @rule(key=KEYS, seconds=st.floats(0.1, 10))
    def add_after(self, key: str, seconds: float) -> None:
        self.queue.add_after(key, seconds)
        self.due[key] = min(self.due.get(key, float("inf")), self.clock.now + seconds)

    @rule(key=KEYS, seconds=st.floats(0.1, 1))
    def add_soon(self, key: str, seconds: float) -> None:
        self.queue.add_soon(key, seconds)
        if key not in self.owed or key in self.queue._idle:
            self.soon.setdefault(key, self.clock.now + seconds)

    @rule(key=KEYS)
    def back_off(self, key: str) -> None:
        delay = self.queue.back_off(key)
        self.due[key] = min(self.due.get(key, float("inf")), self.clock.now + delay)

    @rule(seconds=st.floats(0.1, 20))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for timers in (self.due, self.soon):
            for key, when in [*timers.items()]:
                if when <= self.clock.now:
                    self.owed.add(key)
                    del timers[key]

    @precondition(lambda self: len(self.queue) > 0)
    @rule()
    def get(self) -> None:
        key = asyncio.run(self.queue.get())
        assert key not in self.working
        assert key in self.owed
        self.working.add(key)
        self.owed.discard(key)
        self.soon.pop(key, None)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.discard(key)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.owed - self.working)


QueueMachine.TestCase.settings = settings(max_examples=cases(50, 3000))
TestQueue = QueueMachine.TestCase


async def test_waiting_workers_wake_up() -> None:
    queue: WorkQueue[str] = WorkQueue(asyncio.get_running_loop())
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in "abc":
        queue.add(key)
    assert sorted(await asyncio.gather(*workers)) == ["a", "b", "c"]


async def test_a_stopped_queue_gives_out_nothing_and_waits_for_what_is_worked_on() -> None:
    queue: WorkQueue[str] = WorkQueue(FakeClock())
    for key in "ab":
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    stopping = asyncio.create_task(queue.stop())
    waiting = asyncio.create_task(queue.get())
    for key in "ba":
        await asyncio.sleep(0)
        assert not stopping.done()
        queue.add(key)
        queue.done(key)
    await stopping
    assert not waiting.done()
    waiting.cancel()


async def test_one_pass_for_all_that_happens_within_a_moment() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    for _ in range(3):
        queue.add_soon("a", 0.15)
        clock.advance(0.04)
    assert not len(queue)
    clock.advance(0.03)
    assert (await queue.get(), len(queue)) == ("a", 0)
    # What happens from the begin of a pass on needs another one.
    queue.add_soon("a", 0.15)
    queue.done("a")
    clock.advance(0.15)
    assert await queue.get() == "a"
    queue.done("a")
    # A pass that begins before the time for another cause sees it.
    queue.add_soon("a", 0.15)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    clock.advance(1)
    assert not len(queue)


async def test_urgent_keys_cannot_keep_the_others_waiting_for_ever() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("status 1")
    queue.add("status 2")
    taken = []
    for number in range(600):
        queue.add(f"new {number}", urgent=True)
        taken.append(await queue.get())
        clock.advance(0.01)
    first, second = taken.index("status 1"), taken.index("status 2")
    assert first * 0.01 == pytest.approx(PATIENCE_SECONDS, abs=0.03)
    assert second == first + 1 + URGENT_IN_A_ROW


async def test_urgent_keys_go_first() -> None:
    queue: WorkQueue[str] = WorkQueue(FakeClock())
    queue.add("resync")
    queue.add("new", urgent=True)
    assert [await queue.get(), await queue.get()] == ["new", "resync"]


def test_back_off_doubles_up_to_a_bound_and_starts_over() -> None:
    queue: WorkQueue[str] = WorkQueue(
        FakeClock(), Backoff(BACKOFF.first, BACKOFF.longest, jitter=lambda: 1.0)
    )
    delays = [queue.back_off("a") for _ in range(40)]
    assert delays[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert delays[-1] == BACKOFF.longest == 300.0
    queue.succeeded("a")
    assert queue.back_off("a", at_least=3.0) == 3.0
    assert queue.back_off("a") == pytest.approx(0.2)
    assert [queue.back_off("b", at_least=5.0, at_most=30.0) for _ in range(40)][-1] == 30.0


async def test_keys_for_when_there_is_time_come_last_unless_they_are_asked_for() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    for key in "abcd":
        queue.add_idle(key)
    clock.advance(2 * PATIENCE_SECONDS)
    for key in "xc":
        queue.add(key)
    queue.add_idle("x")
    queue.add("y", urgent=True)
    queue.add_soon("d", 0.5)
    assert [await queue.get() for _ in range(4)] == ["y", "x", "c", "a"]
    clock.advance(0.5)
    assert [await queue.get() for _ in range(2)] == ["d", "b"]
    queue.add_idle("a")
    assert not len(queue), "it is worked on"
    queue.done("a")
    assert (await queue.get(), len(queue)) == ("a", 0)


async def test_a_key_for_when_there_is_time_wakes_a_worker() -> None:
    queue: WorkQueue[str] = WorkQueue(asyncio.get_running_loop())
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_idle("a")
    assert await worker == "a"
