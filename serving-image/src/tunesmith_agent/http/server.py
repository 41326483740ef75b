"""HTTP server: the listening socket, all client connections, and the limits they share."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from .connection import Handler, ServerConnection
from .limits import Limits
from .messages import Refusal, date_header
from .shares import AddressShare, Shares

DEADLINE_CHECK_SECONDS = 0.5
#: Connections that the kernel holds until they are accepted.
BACKLOG = 1024

#: Age of the latest check of deadlines from which on the data path counts as standing still.
STANDSTILL_SECONDS = 10.0

_TOO_MANY = Refusal(
    503,
    "This pod has too many connections: try again, another pod may have room.",
    kind="server_error",
    code="overloaded",
    headers=b"retry-after: 1\r\n",
)
_TOO_MANY_OF_ADDRESS = Refusal(
    429,
    "Your address has too many connections to this pod: close some, or use fewer for more requests each.",
    kind="rate_limit_error",
    code="too_many_connections",
    headers=b"retry-after: 1\r\n",
)


@dataclass
class ConnectionCounts:
    """Connections that were closed for lack of room, since the start.

    Attributes:
        idle_closed: idle ones that gave way to a new one.
        slow_closed: those with a request that was arriving slowly and gave way to a new one.
        dropped: new ones that were closed without an answer.
    """

    idle_closed: int = 0
    slow_closed: int = 0
    dropped: int = 0


class Server:
    """Listening server that passes each request to ``handler``.

    Attributes:
        connections: those that are served; neither refused ones nor those that gave way to another one.
        idle: those of them that wait for a request, the one that waits for longest first.
    """

    def __init__(self, handler: Handler, on_refusal: Callable[[int, str], None], limits: Limits) -> None:
        self.handler = handler
        self.on_refusal = on_refusal
        self.limits = limits
        self.shares = Shares(limits)
        self.connections: set[ServerConnection] = set()
        self.counts = ConnectionCounts()
        self.idle: dict[ServerConnection, None] = {}
        self.draining = False
        self.date = date_header()
        self._leaving: set[ServerConnection] = set()
        self._checked_at = 0.0
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def listen(self, host: str, port: int) -> int:
        """Take the port; connections wait in the kernel until ``accept``. Returns the port (a free one for 0).

        Args:
            host: an address, or empty for all addresses of this host.

        Raises:
            OSError: the port is taken.
        """
        self._socket = _open_listener(host, port)
        self._socket.setblocking(False)
        self._check_deadlines()
        # An address of IPv6 has more than two members, which compiled code would not take for a pair.
        taken: int = self._socket.getsockname()[1]
        return taken

    async def accept(self) -> None:
        """Serve the connections that wait, and all later ones."""
        assert self._socket is not None, "listen comes first"
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: ServerConnection(self), sock=self._socket, backlog=BACKLOG
        )

    def add(self, connection: ServerConnection) -> Refusal | None:
        """Register a new connection, which may close another one; a refusal where there is no room."""
        self._empty.clear()
        refusal = self._find_room(connection.share)
        if refusal is None:
            self.connections.add(connection)
            self.idle[connection] = None
            return None
        self._leaving.add(connection)
        if len(self._leaving) <= self.limits.refused_connections:
            return refusal
        self.counts.dropped += 1
        connection.abort()
        return None

    def remove(self, connection: ServerConnection) -> None:
        """Forget a closed connection."""
        self.connections.discard(connection)
        self._leaving.discard(connection)
        self.idle.pop(connection, None)
        if not self.connections and not self._leaving:
            self._empty.set()

    def _find_room(self, share: AddressShare) -> Refusal | None:
        """Make room for one more connection of an address where there is none: idle ones go first."""
        if share.connections > self.limits.address_connections:
            own = next((other for other in self.idle if other.share is share), None)
            if own is None:
                return _TOO_MANY_OF_ADDRESS
            self.counts.idle_closed += 1
            self._close(own)
        elif len(self.connections) >= self.limits.connections:
            if self.idle:
                self.counts.idle_closed += 1
                self._close(next(iter(self.idle)))
            elif (slow := self._slowest()) is not None:
                self.counts.slow_closed += 1
                self._close(slow)
            else:
                return _TOO_MANY
        return None

    def _slowest(self) -> ServerConnection | None:
        """Connection whose request has been arriving for longest, and for too long; None if there is none."""
        latest = asyncio.get_running_loop().time() - self.limits.slow_seconds
        slow: tuple[float, ServerConnection] | None = None
        for connection in self.connections:
            since = connection.arriving_since()
            if since is not None and since <= (slow[0] if slow else latest):
                slow = since, connection
        return slow[1] if slow else None

    def _close(self, connection: ServerConnection) -> None:
        self.connections.discard(connection)
        self.idle.pop(connection, None)
        self._leaving.add(connection)
        connection.abort()

    def announce_drain(self) -> None:
        """Go on answering, but close each connection after its answer: a new one reaches another pod."""
        self.draining = True

    async def drain(self, seconds: float) -> bool:
        """Accept no more connections and let requests finish; False where some did not in time."""
        self.draining = True
        self._close_listener()
        for connection in tuple(self.connections):
            connection.close_if_idle()
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Abort the remaining connections."""
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._close_listener()
        for connection in (*self.connections, *self._leaving):
            connection.abort()
        await self._empty.wait()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
        elif self._socket is not None:
            self._socket.close()

    def is_moving(self) -> bool:
        """True while the data path's own clock runs: deadlines were checked a moment ago."""
        return asyncio.get_running_loop().time() - self._checked_at < STANDSTILL_SECONDS

    def _check_deadlines(self) -> None:
        """One timer for all deadlines: cheaper than one per request."""
        loop = asyncio.get_running_loop()
        self.date = date_header()
        now = self._checked_at = loop.time()
        self._deadline_timer = loop.call_later(DEADLINE_CHECK_SECONDS, self._check_deadlines)
        for connection in (*self.connections, *self._leaving):
            connection.check_deadline(now)


def _open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens; without a host it is reached by IPv4 and by IPv6, as far as the kernel has them."""
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(
            (host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
