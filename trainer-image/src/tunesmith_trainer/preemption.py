"""A pod that is told to go."""

import signal
import time
from types import FrameType

from tunesmith_data.failures import Preempted
from tunesmith_data.pod.progress import ProgressReporter

_GLANCE_SECONDS = 0.5


class Preemption:
    """Remembers that the pod was told to go."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """Take SIGTERM from now on."""
        signal.signal(signal.SIGTERM, self._request)

    def check(self) -> None:
        """Stop here if the pod was told to go.

        Raises:
            Preempted: it was.
        """
        if self.requested:
            raise Preempted

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until the pod is told to go. Any thread may.

        Raises:
            Preempted: it was.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _GLANCE_SECONDS))

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True


class InterruptibleProgress(ProgressReporter):
    """Progress of a stage that keeps what it has done, and so may stop wherever it says how far it is."""

    def __init__(self, preemption: Preemption) -> None:
        super().__init__()
        self._preemption = preemption

    def update(self, done: int, total: int, **metrics: float | int | str) -> None:
        """Say how far the stage is, or stop here.

        Raises:
            Preempted: the pod was told to go.
        """
        self._preemption.check()
        super().update(done, total, **metrics)
