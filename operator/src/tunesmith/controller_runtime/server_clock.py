"""The API server's clock, by the ``Date`` of its answers.

The operator compares the present with times that the control plane wrote: ends of Jobs, deletions of pods. If the clock
of its own node is off, it would remove Jobs early and give up pods that still run.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

logger = logging.getLogger(__name__)

#: Differences up to this are those of whole seconds, of the way, and of clocks that are kept together.
TOLERANCE = timedelta(seconds=2)
#: An answer that took longer says too little about the present.
MAX_ANSWER_SECONDS = 1.0
#: Between two comparisons.
COMPARE_SECONDS = 5.0


def own_time() -> datetime:
    """The time by the clock of this node, in UTC."""
    return datetime.now(UTC)


class ServerClock:
    """The time as the API server has it; by the node's own clock while the two agree.

    Args:
        own: the node's own clock.
        monotonic: monotonic seconds.
    """

    def __init__(
        self, own: Callable[[], datetime] = own_time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._own = own
        self._monotonic = monotonic
        self._offset = timedelta(0)
        self._compared_at = float("-inf")

    def now(self) -> datetime:
        """The time, in UTC."""
        return self._own() + self._offset

    def learn(self, date: str | None, answer_seconds: float) -> None:
        """Compare the clocks, once in a while.

        Args:
            date: the ``Date`` header of an answer.
            answer_seconds: how long the answer took.
        """
        if date is None or answer_seconds > MAX_ANSWER_SECONDS:
            return
        if self._monotonic() - self._compared_at < COMPARE_SECONDS:
            return
        try:
            # It has whole seconds, cut off.
            server = parsedate_to_datetime(date).astimezone(UTC) + timedelta(seconds=0.5)
        except ValueError:
            return
        self._compared_at = self._monotonic()
        offset = server - self._own()
        if abs(offset) <= TOLERANCE:
            offset = timedelta(0)
        elif abs(offset - self._offset) <= TOLERANCE:
            return
        if offset != self._offset:
            logger.warning(
                "this node's clock differs from the API server's by %.0f s; the API server's is used",
                offset.total_seconds(),
            )
        self._offset = offset
