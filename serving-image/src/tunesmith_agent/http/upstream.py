"""Pooled keep-alive connections to the engine, one request on each at a time."""

import asyncio
import select
from typing import Protocol, cast

from httptools import HttpParserError, HttpResponseParser

from .address import Address
from .limits import Limits

_CONTINUE = 100


class Receiver(Protocol):
    """Receiver of the engine's answer, piece by piece."""

    def on_continue(self) -> None:
        """Note that the other side wants the body that waits for this."""

    def on_head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        """Take the head of the answer; ``length`` is None if the body is chunked or ends with the connection."""

    def on_data(self, data: bytes) -> None:
        """Take a piece of the body."""

    def on_pause(self) -> None:
        """Note that everything that has arrived was passed on."""

    def on_end(self) -> None:
        """Note the end of the answer; the connection is back in the pool or closed."""

    def on_lost(self) -> None:
        """Note that the connection broke before the end of the answer."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to the engine."""

    __slots__ = (
        "_body", "_chunked", "_complete", "_has_head", "_headers", "_keep_alive", "_length", "_parser", "_paused",
        "_poll", "_pool", "_receiver", "_transport", "idle_since", "lost",
    )  # fmt: skip

    def __init__(self, pool: "UpstreamPool") -> None:
        self._pool = pool
        self._receiver: Receiver | None = None
        self._parser = HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._length: int | None = None
        self._has_head = self._complete = self._chunked = self._paused = False
        self._keep_alive = True
        self._body = b""
        self.idle_since = 0.0
        self.lost = False

    def send(self, receiver: Receiver, request: bytes, body: bytes = b"") -> None:
        """Send a whole request; the answer goes to ``receiver``.

        Args:
            body: what is sent only when the other side asks for it by ``100 Continue``.
        """
        self._receiver = receiver
        self._body = body
        self._has_head = self._complete = False
        self._pool.request_began()
        self._transport.write(request)

    def is_open(self) -> bool:
        """True if an idle connection can be used: the engine has neither closed it nor sent anything.

        The kernel knows of an end that the event loop has not come to yet.
        """
        return not self.lost and not self._transport.is_closing() and not self._poll.poll(0)

    def pause(self) -> None:
        """Pause reading from the engine."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Resume reading from the engine."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close without a call to the receiver: the engine stops working on the request."""
        if self._receiver is not None:
            self._receiver = None
            self._pool.request_ended()
        self._transport.abort()

    # -- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
        self._pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._pool.closed(self)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        self._pool.request_ended()
        ends_with_connection = self._length is None and not self._chunked
        if exc is None and self._has_head and ends_with_connection:
            receiver.on_end()
        else:
            receiver.on_lost()

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            self._transport.abort()
            return
        self._pool.moved_at = self._pool.loop.time()
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._transport.abort()
            return
        if self._complete and self._receiver is not None:
            self._receiver = None
            self._pool.request_ended()
            self._pool.give_back(self, self._keep_alive)
            receiver.on_end()
        else:
            receiver.on_pause()

    # -- from the parser

    def on_message_begin(self) -> None:
        self._headers = {}
        self._chunked = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        length = self._headers.get(b"content-length")
        self._length = None if length is None else int(length)
        self._chunked = b"transfer-encoding" in self._headers
        self._has_head = status >= 200
        if status == _CONTINUE and self._body:
            body, self._body = self._body, b""
            self._transport.write(body)
            if self._receiver is not None:
                self._receiver.on_continue()
        if self._has_head and self._receiver is not None:
            self._receiver.on_head(status, self._headers, self._length)

    def on_body(self, body: bytes) -> None:
        if self._receiver is not None:
            self._receiver.on_data(body)

    def on_message_complete(self) -> None:
        self._complete = self._parser.get_status_code() >= 200
        self._keep_alive = self._parser.should_keep_alive()


class UpstreamPool:
    """Idle connections to one address, the last used first.

    Attributes:
        busy: requests that were sent and whose answer is not complete.
        ended: requests that are not busy any more, since the start.
        moved_at: the loop's time at which a piece of an answer came last, or a request was sent while none was busy.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address = address
        self._limits = limits
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self.loop = asyncio.get_running_loop()
        self.busy = self.ended = 0
        self.moved_at = 0.0
        self._is_retired = False

    def request_began(self) -> None:
        """Count a request."""
        if not self.busy:
            self.moved_at = self.loop.time()
        self.busy += 1

    def request_ended(self) -> None:
        """Count the end of a request."""
        self.busy -= 1
        self.ended += 1

    def silence(self) -> float:
        """Seconds for which no piece of any answer has come; 0 while no request is in progress."""
        return self.loop.time() - self.moved_at if self.busy else 0.0

    def take(self) -> UpstreamConnection | None:
        """An idle connection, or None."""
        oldest = self.loop.time() - self._limits.engine_idle_seconds
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and connection.is_open():
                return connection
            connection.close()
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection.

        Raises:
            OSError: the engine does not accept connections (TimeoutError is one).
        """
        async with asyncio.timeout(self._limits.connect_seconds):
            return await self._address.connect(lambda: UpstreamConnection(self))

    def give_back(self, connection: UpstreamConnection, keep_alive: bool) -> None:
        """Return a connection after its answer is complete."""
        if keep_alive and not connection.lost and not self._is_retired:
            connection.resume()
            connection.idle_since = self.loop.time()
            self._idle.append(connection)
        else:
            connection.close()

    def opened(self, connection: UpstreamConnection) -> None:
        """Register a new connection."""
        self._open.add(connection)

    def closed(self, connection: UpstreamConnection) -> None:
        """Forget a closed connection."""
        self._open.discard(connection)

    def retire(self) -> None:
        """Close idle connections, and the others when their answer is complete."""
        self._is_retired = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def close(self) -> None:
        """Close all connections, idle or not."""
        for connection in tuple(self._open):
            connection.close()
        self._idle.clear()
