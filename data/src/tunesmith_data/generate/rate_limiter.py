"""How fast an endpoint is asked."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds that never go back, and how to wait some."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Pace:
    """Lets requests pass one after the other, evenly, so that no minute sees more of them than it may.

    Threads may share it.

    Args:
        requests_per_minute: None: as many as come.
        clock: tells the time.
    """

    def __init__(self, requests_per_minute: int | None, clock: Clock) -> None:
        self._interval = SECONDS_PER_MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._clock = clock
        self._next = clock.now()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for one's turn."""
        with self._lock:
            now = self._clock.now()
            turn = max(self._next, now)
            self._next = turn + self._interval
        if turn > now:
            self._clock.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Let nobody pass for so long: the endpoint has asked for it."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)
