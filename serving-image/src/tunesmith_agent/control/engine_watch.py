"""Watch over the engine's core, which may hang while its API process answers ``/health`` and ``/v1/models``."""

import asyncio
import logging
from collections.abc import Callable

from tunesmith_agent.engine.client import EngineClient, EngineGone, EngineRefused, EngineUnavailable
from tunesmith_agent.engine.metrics import EngineMetrics
from tunesmith_agent.http.upstream import UpstreamPool

log = logging.getLogger(__name__)

CHECK_SECONDS = 0.5


class EngineWatch:
    """Judgment of whether the engine generates tokens, from progress on the data path.

    While requests are in progress and no byte of an answer has come for a while, or the engine does not list its
    adapters, it is asked for one token of the base model. It counts as stalled if that does not come in time, no
    other answer has moved meanwhile, and the engine's own counters of tokens stand still: a full engine lets the
    small request wait, but its counters grow. A stalled engine is asked again until a token comes.

    Args:
        silence_seconds: time without a byte from which on the engine is asked.
        token_seconds: time in which the token must come.
        is_up: True while the engine has started and accepts connections.
        is_suspect: True if the engine should be asked although no request waits.
        on_change: called when the engine is found stalled, and when it works again.

    Attributes:
        stalled: the engine generates nothing.
    """

    def __init__(
        self,
        pool: UpstreamPool,
        engine: EngineClient,
        metrics: EngineMetrics,
        silence_seconds: float,
        token_seconds: float,
        is_up: Callable[[], bool],
        is_suspect: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._engine = engine
        self._metrics = metrics
        self._silence_seconds = silence_seconds
        self._token_seconds = token_seconds
        self._is_up = is_up
        self._is_suspect = is_suspect
        self._on_change = on_change
        self._worked_at = float("-inf")
        self.stalled = False

    @property
    def reason(self) -> str:
        """Reason why the pod can't take requests; empty while the engine works."""
        if not self.stalled:
            return ""
        return (
            f"The engine hangs: a request for one token was not answered in {self._token_seconds:g} s, and none of "
            f"{self._pool.busy} others has moved for {self._pool.silence():.0f} s."
        )

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if not self._is_up():
                self._set(stalled=False)
            elif self.stalled or self._is_silent():
                works = await self._works()
                if works:
                    self._worked_at = asyncio.get_running_loop().time()
                self._set(stalled=not works)

    def _is_silent(self) -> bool:
        """True if nothing has been heard of the engine for a while, and something should have been."""
        since_token = asyncio.get_running_loop().time() - self._worked_at
        silent = self._is_suspect() or self._pool.silence() > self._silence_seconds
        return silent and since_token > self._silence_seconds

    async def _works(self) -> bool:
        moved_at, tokens = self._pool.moved_at, await self._metrics.tokens()
        try:
            async with asyncio.timeout(self._token_seconds):
                await self._engine.generate_token()
        except (EngineGone, EngineRefused):
            return True  # Not a hang: it has ended, which the control loop sees, or it answers.
        except (EngineUnavailable, TimeoutError):
            now = await self._metrics.tokens()
            return self._pool.moved_at != moved_at or (None not in (tokens, now) and now != tokens)
        return True

    def _set(self, *, stalled: bool) -> None:
        if stalled == self.stalled:
            return
        self.stalled = stalled
        if stalled:
            log.warning("engine hangs", extra={"detail": self.reason})
        else:
            log.info("engine works again")
        self._on_change()
