"""Length of the engine's queue, which the engine itself does not bound."""

import asyncio
import math

from tunesmith_agent.engine.metrics import EngineMetrics
from tunesmith_agent.http.upstream import UpstreamPool

LOOK_SECONDS = 0.5
#: Share of the latest interval in the rate of answers.
_WEIGHT = 0.3
_LONGEST_RETRY = 60


class EngineQueue:
    """Requests that wait in the engine, by its own count and what was sent since.

    The engine is asked only while so many requests are in progress that its queue may be full.

    Args:
        limit: number of waiting requests from which on the queue is full.
    """

    def __init__(self, pool: UpstreamPool, metrics: EngineMetrics, limit: int) -> None:
        self._pool = pool
        self._metrics = metrics
        self._limit = limit
        self._waiting = self._busy = 0
        self._rate = 0.0

    def retry_seconds(self) -> int:
        """Seconds after which a refused request is likely to find room; 0 while there is room."""
        if not self._waiting:
            return 0
        # A full engine goes on with the next request when it has answered one: the number that runs stays.
        excess = self._waiting + self._pool.busy - self._busy - self._limit
        if excess < 0:
            return 0
        # No quotient of a rate that has faded to almost nothing, which would be infinite.
        if self._rate * _LONGEST_RETRY <= excess + 1:
            return _LONGEST_RETRY
        return math.ceil((excess + 1) / self._rate)

    async def run(self) -> None:
        """Look at the queue until cancelled."""
        loop = asyncio.get_running_loop()
        looked_at, ended = loop.time(), self._pool.ended
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = loop.time()
            self.note_rate(self._pool.ended - ended, now - looked_at)
            looked_at, ended = now, self._pool.ended
            await self.look()

    def note_rate(self, ended: int, seconds: float) -> None:
        """Count answers that ended within some seconds."""
        self._rate += _WEIGHT * (ended / seconds - self._rate)

    async def look(self) -> None:
        """Ask the engine how many requests wait, if there may be too many."""
        busy = self._pool.busy
        waiting = await self._metrics.waiting() if busy >= self._limit else 0
        self._waiting, self._busy = waiting, busy
