"""A pod that is told to go."""

import signal
from types import FrameType

from .failures import Preempted


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

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True
