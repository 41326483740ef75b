"""A work queue in the manner of client-go: de-duplicating, one worker per key, with back-off and delays."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from .backoff import Backoff

Key = TypeVar("Key", bound=Hashable)

BACKOFF = Backoff(first=0.1, longest=300.0)
#: A key that is not urgent and has waited for longer is taken after so many urgent ones at the latest.
PATIENCE_SECONDS = 5.0
URGENT_IN_A_ROW = 3


class Timer(Protocol):
    """A scheduled call that can be cancelled."""

    def when(self) -> float: ...
    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of an event loop that the queue needs."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer: ...


class WorkQueue(Generic[Key]):
    """Keys that wait for a worker.

    A key that is added while it waits is worked on once; one that is added while it is worked on, once more
    afterwards, and never by two workers at a time.

    Urgent keys go first. So that they can't keep the others waiting for ever, one that has waited for more than
    ``PATIENCE_SECONDS`` follows after ``URGENT_IN_A_ROW`` of them. Keys for when there is time come last.

    Args:
        clock: the event loop.
        backoff: delays after failures.
    """

    def __init__(self, clock: Clock, backoff: Backoff = BACKOFF) -> None:
        self._clock = clock
        self._backoff = backoff
        self._waiting: deque[tuple[float, Key]] = deque()
        self._urgent: deque[Key] = deque()
        self._urgent_in_a_row = 0
        self._idle: OrderedDict[Key, None] = OrderedDict()
        self._dirty: set[Key] = set()
        self._working: set[Key] = set()
        self._timers: dict[Key, Timer] = {}
        self._soon: dict[Key, Timer] = {}
        self._failures: dict[Key, int] = {}
        self._ready = asyncio.Event()
        self._is_stopped = False
        self._rests = asyncio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._waiting) + len(self._idle)

    def add(self, key: Key, urgent: bool = False) -> None:
        """Work on this key as soon as possible; an urgent one before those that are not, unless it waits already."""
        if key in self._idle:
            del self._idle[key]
        elif key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._push(key, urgent)

    def add_idle(self, key: Key) -> None:
        """Work on this key once no other one waits."""
        if key in self._working:
            self.add(key)
        elif key not in self._dirty:
            self._dirty.add(key)
            self._idle[key] = None
            self._ready.set()

    def add_soon(self, key: Key, seconds: float) -> None:
        """Work on this key after so many seconds, once for all that happens until then.

        Work that begins earlier, for whatever cause, counts: it sees what has happened before its begin.
        """
        if (key not in self._dirty or key in self._idle) and key not in self._soon:
            self._soon[key] = self._clock.call_later(seconds, self._due, self._soon, key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on this key after so many seconds at the latest; a timer that is due earlier stays."""
        if seconds <= 0:
            self.add(key)
            return
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= self._clock.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = self._clock.call_later(seconds, self._due, self._timers, key)

    def back_off(self, key: Key, at_least: float = 0.0, at_most: float | None = None) -> float:
        """Work on this key again after a delay that grows with each failure in a row; returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = max(at_least, self._backoff.seconds(failures))
        delay = delay if at_most is None else min(delay, at_most)
        self.add_after(key, delay)
        return delay

    def failures(self, key: Key) -> int:
        """Failures in a row."""
        return self._failures.get(key, 0)

    def succeeded(self, key: Key) -> None:
        """The next failure of this key is its first again."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drop the key's timers and its failures: the resource is gone."""
        self.succeeded(key)
        for timers in (self._timers, self._soon):
            _cancel(timers, key)

    async def get(self) -> Key:
        """The next key; the caller alone works on it until ``done``."""
        while self._is_stopped or not len(self):
            self._ready.clear()
            await self._ready.wait()
        key = self._take()
        self._dirty.discard(key)
        self._working.add(key)
        _cancel(self._soon, key)
        return key

    def done(self, key: Key) -> None:
        """The worker has finished with this key."""
        self._working.discard(key)
        if key in self._dirty:
            self._push(key)
        if not self._working:
            self._rests.set()

    async def stop(self) -> None:
        """Give no more keys to workers, and wait until those that they have are done."""
        self._is_stopped = True
        while self._working:
            self._rests.clear()
            await self._rests.wait()

    def close(self) -> None:
        """Cancel all timers."""
        for timers in (self._timers, self._soon):
            for key in [*timers]:
                _cancel(timers, key)

    def _push(self, key: Key, urgent: bool = False) -> None:
        if urgent:
            self._urgent.append(key)
        else:
            self._waiting.append((self._clock.time(), key))
        self._ready.set()

    def _take(self) -> Key:
        is_overdue = bool(self._waiting) and self._clock.time() - self._waiting[0][0] > PATIENCE_SECONDS
        if self._urgent and not (is_overdue and self._urgent_in_a_row >= URGENT_IN_A_ROW):
            self._urgent_in_a_row += 1
            return self._urgent.popleft()
        self._urgent_in_a_row = 0
        if self._waiting:
            return self._waiting.popleft()[1]
        return self._idle.popitem(last=False)[0]

    def _due(self, timers: dict[Key, Timer], key: Key) -> None:
        timers.pop(key, None)
        self.add(key)


def _cancel(timers: dict[Key, Timer], key: Key) -> None:
    timer = timers.pop(key, None)
    if timer is not None:
        timer.cancel()
