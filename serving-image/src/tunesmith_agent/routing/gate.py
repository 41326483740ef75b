"""Gate in front of a version: open while it is proven and the engine holds it; requests wait while it is closed."""

from collections.abc import Callable


class Gate:
    """Gate of one version.

    Attributes:
        is_open: requests may be sent to the version.
        is_resident: the engine holds it.
        on_wait: called when a request waits: the version is to be loaded before others.
    """

    __slots__ = ("_is_proven", "_waiting", "is_open", "is_resident", "on_wait")

    def __init__(self) -> None:
        self.is_open = self.is_resident = self._is_proven = False
        self.on_wait: Callable[[], None] | None = None
        self._waiting: dict[Callable[[], None], None] = {}

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` once when the gate opens, or when the version is no longer served."""
        self._waiting[go_on] = None
        if self.on_wait is not None:
            self.on_wait()

    def leave(self, go_on: Callable[[], None]) -> None:
        """Wait no longer."""
        self._waiting.pop(go_on, None)

    def set_resident(self, resident: bool) -> None:
        """Record whether the engine holds the version."""
        self.is_resident = resident
        self._move()

    def set_proven(self, proven: bool) -> None:
        """Record whether the version was proven in this engine."""
        self._is_proven = proven
        self._move()

    def release(self) -> None:
        """Let those that wait choose again, as the routes are now."""
        waiting, self._waiting = self._waiting, {}
        for go_on in waiting:
            go_on()

    def _move(self) -> None:
        self.is_open = self.is_resident and self._is_proven
        if self.is_open:
            self.release()
