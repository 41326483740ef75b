"""A work queue in the manner of client-go: de-duplicating, one worker per key, with back-off and delays."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

Key = TypeVar("Key", bound=Hashable)

BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 300.0


class Timer(Protocol):
    """A call that is due at a time and may be cancelled."""

    def when(self) -> float: ...
    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of an event loop that the queue needs."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer: ...


class WorkQueue(Generic[Key]):
    """Keys that want to be worked on.

    A key that is added while it waits is worked on once; one that is added while it is worked on, once more
    afterwards, and never by two workers at a time.

    Args:
        clock: the event loop.
        jitter: a number in [0, 1) for each back-off.
    """

    def __init__(self, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._jitter = jitter
        self._waiting: deque[Key] = deque()
        self._urgent: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._working: set[Key] = set()
        self._timers: dict[Key, Timer] = {}
        self._failures: dict[Key, int] = {}
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._waiting)

    def add(self, key: Key, urgent: bool = False) -> None:
        """Work on this key as soon as may be; an urgent one goes before those that are not, unless it waits already."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._push(key, urgent)

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on this key after so many seconds at the latest: an earlier time that was asked for stays."""
        if seconds <= 0:
            self.add(key)
            return
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= self._clock.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = self._clock.call_later(seconds, self._due, key)

    def back_off(self, key: Key, at_least: float = 0.0) -> float:
        """Work on this key again after a time that doubles with each failure in a row; returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** min(failures, 32))
        delay = max(at_least, longest * (0.5 + 0.5 * self._jitter()))
        self.add_after(key, delay)
        return delay

    def failures(self, key: Key) -> int:
        """Failures in a row."""
        return self._failures.get(key, 0)

    def succeeded(self, key: Key) -> None:
        """The next failure of this key is its first again."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """The key is of no more interest: drop its timer and its failures."""
        self.succeeded(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def get(self) -> Key:
        """The next key; the caller alone works on it until ``done``."""
        while not len(self):
            self._ready.clear()
            await self._ready.wait()
        key = (self._urgent or self._waiting).popleft()
        self._dirty.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """The worker has finished with this key."""
        self._working.discard(key)
        if key in self._dirty:
            self._push(key)

    def close(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _push(self, key: Key, urgent: bool = False) -> None:
        (self._urgent if urgent else self._waiting).append(key)
        self._ready.set()

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
