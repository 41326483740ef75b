"""Liveness and readiness, judged by the watches: a server that answers proves only that the server answers."""

import asyncio
import logging
import time
from collections.abc import Callable

from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.controller_runtime.watch import SILENCE_LIMIT_SECONDS, Watch

from .watching import missing_watchers

logger = logging.getLogger(__name__)

#: kopf starts its watchers when it has read what kinds there are, and is itself started anew after an error.
GRACE_SECONDS = 60.0
CHECK_SECONDS = 5.0


class Health:
    """Health of this replica; before it leads it has no watches, and is healthy."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._kinds: tuple[str, ...] = ()
        self._namespaces: tuple[str, ...] = ()
        self._watches: tuple[Watch, ...] = ()
        #: When all of kopf's watchers were last there; at first, when they were started.
        self._complete: float | None = None
        self.serving = False

    def leading(
        self, kinds: tuple[str, ...], namespaces: tuple[str, ...], watches: tuple[Watch, ...]
    ) -> None:
        """Judge these watches from now on: the replica leads."""
        self._kinds, self._namespaces, self._watches = kinds, namespaces, watches
        self._complete = self._clock()

    def liveness(self) -> list[str]:
        """Problems that only a new process cures."""
        if self._complete is None:
            return []
        return self._missing(self._complete) + self._silent()

    def readiness(self) -> list[str]:
        """Reasons not to connect yet; a replica that waits to lead is ready."""
        return [] if self.serving else ["not serving yet"]

    async def check_forever(self) -> None:
        """Check in intervals.

        Raises:
            RuntimeError: the process has to end.
        """
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            problems = self.liveness()
            if problems:
                raise RuntimeError("; ".join(problems))

    def _missing(self, complete: float) -> list[str]:
        missing = missing_watchers(self._kinds, self._namespaces, asyncio.all_tasks())
        if not missing:
            self._complete = self._clock()
        elif self._clock() - complete >= GRACE_SECONDS:
            return [f"{name} has ended" for name in sorted(missing)]
        return []

    def _silent(self) -> list[str]:
        problems = []
        for watch in self._watches:
            silence = watch.silence()
            self._metrics.watch_silence_seconds.labels(watch.kind, watch.namespace or "").set(silence)
            if silence > SILENCE_LIMIT_SECONDS:
                problems.append(f"the watch of {watch.kind} has got no answer for {silence:.0f} s")
        return problems
