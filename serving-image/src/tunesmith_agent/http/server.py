"""HTTP server: the listening socket, all client connections, and the limits they share."""

import asyncio
from collections.abc import Callable

from .connection import Handler, ServerConnection
from .limits import Limits
from .messages import date_header

DEADLINE_CHECK_SECONDS = 0.5


class Server:
    """Listening server that passes each request to ``handler``."""

    def __init__(self, handler: Handler, on_refusal: Callable[[int], None], limits: Limits) -> None:
        self.handler = handler
        self.on_refusal = on_refusal
        self.limits = limits
        self.connections: set[ServerConnection] = set()
        self.draining = False
        self.buffered = 0
        self.date = date_header()
        self._listener: asyncio.Server | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port (a free one where 0 was asked for)."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: ServerConnection(self), host, port, backlog=1024)
        self._check_deadlines()
        address: tuple[str, int] = self._listener.sockets[0].getsockname()
        return address[1]

    def add(self, connection: ServerConnection) -> bool:
        """Register a new connection; False where there are too many."""
        self.connections.add(connection)
        self._empty.clear()
        return len(self.connections) <= self.limits.connections

    def remove(self, connection: ServerConnection) -> None:
        """Forget a closed connection."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def announce_drain(self) -> None:
        """Go on answering, but close each connection after its answer: a new one reaches another pod."""
        self.draining = True

    async def drain(self, seconds: float) -> bool:
        """Accept no more connections and let requests finish; False where some did not in time."""
        self.draining = True
        if self._listener is not None:
            self._listener.close()
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
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self.connections):
            connection.abort()
        await self._empty.wait()

    def _check_deadlines(self) -> None:
        """One timer for all deadlines: cheaper than one per request."""
        loop = asyncio.get_running_loop()
        self.date = date_header()
        now = loop.time()
        for connection in tuple(self.connections):
            connection.check_deadline(now)
        self._deadline_timer = loop.call_later(DEADLINE_CHECK_SECONDS, self._check_deadlines)
