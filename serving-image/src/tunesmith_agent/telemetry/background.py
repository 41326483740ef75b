"""Queue that a thread of its own empties, so that no request waits for whoever reads a log or takes traces."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from tunesmith_agent.metrics import ExportCounts

log = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH = 512


class BackgroundQueue(Generic[T]):
    """Bounded queue; what finds no room in it is left out and counted.

    The thread looks by itself now and then, as waking it for each item would cost more than the item.

    Args:
        name: name of the thread.
        write: takes a batch; False: nobody took it, and it is left out. It runs in the thread.
        counts: what became of the items.
        capacity: largest number of items that wait.
        seconds: time between two looks.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], bool],
        counts: ExportCounts,
        capacity: int,
        seconds: float,
    ) -> None:
        self._write = write
        self._counts = counts
        self._capacity = capacity
        self._seconds = seconds
        self._items: deque[T] = deque()
        self._stopping = threading.Event()
        # A thread that hangs must not keep the process from ending.
        self._writer = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._writer.start()

    def put(self, item: T) -> None:
        """Add an item; never waits."""
        if len(self._items) >= self._capacity:
            self._counts.dropped += 1
        else:
            self._items.append(item)

    def stop(self, seconds: float) -> None:
        """Write what is left, for so long at most."""
        self._stopping.set()
        self._writer.join(seconds)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self._write_all()
        self._write_all()

    def _write_all(self) -> None:
        while self._items:
            batch = [self._items.popleft() for _ in range(min(len(self._items), _BATCH))]
            if self._is_written(batch):
                self._counts.written += len(batch)
            else:
                self._counts.failed += len(batch)

    def _is_written(self, batch: list[T]) -> bool:
        try:
            return self._write(batch)
        except Exception:
            # Without its thread nothing would be written any more, until the agent is restarted.
            log.exception("a batch could not be written", extra={"queue": self._writer.name})
            return False
