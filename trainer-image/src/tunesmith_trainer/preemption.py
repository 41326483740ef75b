"""Preemption of the pod: SIGTERM is recorded, and checked where a stage can stop."""

import signal
import time
from types import FrameType

from tunesmith_data.failures import Preempted
from tunesmith_data.pod.progress import ProgressReporter

_CHECK_INTERVAL_SECONDS = 0.5


class Preemption:
    """SIGTERM of this process.

    Attributes:
        requested: SIGTERM has arrived.
    """

    def __init__(self) -> None:
        self.requested = False
        self._listens = False

    def listen(self) -> None:
        """Install the handler of SIGTERM."""
        self._listens = True
        signal.signal(signal.SIGTERM, self._request)

    def check(self) -> None:
        """Stop here if SIGTERM has arrived.

        Raises:
            Preempted: it has.
        """
        if self.requested:
            raise Preempted

    def end_process(self) -> None:
        """Let SIGTERM end the process at once from now on: what is saved is whole, and nothing else has to be.

        Raises:
            Preempted: it has arrived already.
        """
        if self._listens:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.check()

    def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until SIGTERM arrives; may be called in any thread.

        Raises:
            Preempted: SIGTERM has arrived.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _CHECK_INTERVAL_SECONDS))

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True


class InterruptibleProgress(ProgressReporter):
    """Progress of a stage that saves its results as it goes, and so can stop at any update."""

    def __init__(self, preemption: Preemption) -> None:
        super().__init__()
        self._preemption = preemption

    def update(self, done: int, total: int, **metrics: float | int | str) -> None:
        """Report progress, or stop here if SIGTERM has arrived.

        Raises:
            Preempted: it has.
        """
        self._preemption.check()
        super().update(done, total, **metrics)
