"""Requests that wait until the engine holds their version: bounded in number, bytes and time."""

import asyncio
from collections.abc import Callable

from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.messages import Refusal
from tunesmith_agent.routing.table import Target
from tunesmith_agent.telemetry.record import record_of

MAX_REQUESTS = 256
MAX_BYTES = 64 * 1024**2

_RETRY = b"retry-after: 5\r\n"


_FULL = Refusal(
    429,
    "Too many requests wait for models that are being loaded on this pod: try again in a moment.",
    kind="rate_limit_error",
    code="queue_full",
    headers=_RETRY,
)


class WaitingRoom:
    """All requests of the pod that wait.

    Args:
        seconds: longest wait of a request.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.waiting = 0
        self.bytes = 0

    def has_room(self, size: int) -> bool:
        """True if a request of so many bytes may wait."""
        return self.waiting < MAX_REQUESTS and self.bytes + size <= MAX_BYTES

    def admit(
        self, client: ServerConnection, target: Target, size: int, deadline: float | None, go_on: "GoOn"
    ) -> None:
        """Let a request wait for its version; it is refused if too many wait already.

        Args:
            target: the version; its gate is closed.
            size: bytes of the request.
            deadline: end of its wait, by the loop's clock; None if the wait begins.
            go_on: chooses a version again, with the deadline.
        """
        if not self.has_room(size):
            target.stats.count_wait("full", 0.0)
            target.stats.count_refused_waiting()
            client.respond_refusal(_FULL)
            return
        now = client.loop.time()
        _Waiting(self, client, target, size, now + self.seconds if deadline is None else deadline, go_on)


GoOn = Callable[[float], None]


class _Waiting:
    """One request that waits; it is the exchange of its client's connection."""

    def __init__(
        self,
        room: WaitingRoom,
        client: ServerConnection,
        target: Target,
        size: int,
        deadline: float,
        go_on: GoOn,
    ) -> None:
        assert target.gate is not None, "the base model is never waited for"
        self._room = room
        self._client = client
        self._target = target
        self._gate = target.gate
        self._size = size
        self._deadline = deadline
        self._go_on = go_on
        self._since = client.loop.time()
        target.stats.waiting += 1
        room.waiting += 1
        room.bytes += size
        client.exchange = self
        self._timer: asyncio.TimerHandle = client.loop.call_at(deadline, self.timed_out)
        self._gate.wait(self._released)

    # -- from the client's connection

    def client_lost(self) -> None:
        """Wait no longer."""
        self._leave("left")

    def pause(self) -> None:
        """No effect: nothing is sent."""

    def resume(self) -> None:
        """No effect: nothing is sent."""

    def timed_out(self) -> None:
        """Answer that the version was not loaded in time."""
        self._leave("timed_out")
        self._target.stats.count_refused_waiting()
        message = (
            f"The model is being loaded on this pod and was not ready within {self._room.seconds:g} s: "
            "try again in a moment."
        )
        self._client.respond_refusal(
            Refusal(503, message, kind="server_error", code="model_loading", headers=_RETRY)
        )

    # -- from the gate

    def _released(self) -> None:
        self._leave("served" if self._gate.is_open else "moved")
        self._client.exchange = None
        self._go_on(self._deadline)

    def _leave(self, result: str) -> None:
        self._gate.leave(self._released)
        self._timer.cancel()
        self._room.waiting -= 1
        self._room.bytes -= self._size
        self._target.stats.waiting -= 1
        waited = self._client.loop.time() - self._since
        self._target.stats.count_wait(result, waited)
        if (record := record_of(self._client)) is not None:
            record.queued += waited
