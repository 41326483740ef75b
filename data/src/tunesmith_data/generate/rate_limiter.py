"""Rate limiter for requests to an endpoint."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Monotonic clock and sleep function."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class RateLimiter:
    """Evenly spaced requests, up to a number per minute.

    Threads may share it.

    Args:
        requests_per_minute: None: as many as come.
        clock: time and sleep.
    """

    def __init__(self, requests_per_minute: int | None, clock: Clock) -> None:
        self._interval = SECONDS_PER_MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._clock = clock
        self._next = clock.now()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until the next request may be sent."""
        with self._lock:
            now = self._clock.now()
            reserve = max(self._next, now)
            self._next = reserve + self._interval
        if reserve > now:
            self._clock.sleep(reserve - now)

    def pause(self, seconds: float) -> None:
        """Block all requests for so long, as the endpoint asks."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)
