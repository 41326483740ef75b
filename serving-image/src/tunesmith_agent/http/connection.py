"""Connection of one client: requests in, answers out in the same order, every wait bounded."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from .limits import Limits
from .messages import JSON_TYPE, Refusal, Request, status_line

TOO_MANY = Refusal(
    503,
    "This pod has too many connections: try again, another pod may have room.",
    kind="server_error",
    code="overloaded",
    headers=b"retry-after: 1\r\n",
)


TOO_BUSY = Refusal(
    503,
    "This pod holds too many large requests: try again in a moment.",
    kind="server_error",
    code="overloaded",
    headers=b"retry-after: 1\r\n",
)


class State(Enum):
    """State of a connection; each has its own time limit."""

    IDLE = "idle"
    READING = "reading"
    ANSWERING = "answering"
    LINGERING = "lingering"


class Exchange(Protocol):
    """Producer of the answer to the current request, notified of what the client does."""

    def client_lost(self) -> None:
        """Stop making the answer: the client is gone."""

    def pause(self) -> None:
        """Make no more of the answer for now: the client is slow."""

    def resume(self) -> None:
        """Go on making the answer: the client has caught up."""

    def timed_out(self) -> None:
        """Answer with an error: there was no progress for too long."""


class Handler(Protocol):
    """Function that answers one request, now or later, by ``respond``, or by ``begin``, ``send``, ``end``."""

    def __call__(self, connection: "ServerConnection", request: Request) -> None: ...


class ConnectionOwner(Protocol):
    """Server as its connections use it.

    Attributes:
        on_refusal: called with the status of each refusal.
        draining: no connection is kept open after its current answer.
        buffered: bytes of request bodies in memory, over all connections.
        date: the current ``date`` header.
    """

    handler: Handler
    on_refusal: Callable[[int], None]
    limits: Limits
    draining: bool
    buffered: int
    date: bytes

    def add(self, connection: "ServerConnection") -> bool:
        """Register a new connection; False where there are too many."""

    def remove(self, connection: "ServerConnection") -> None:
        """Forget a closed connection."""


_UPGRADE_HEADERS = (b"upgrade", b"connection", b"http2-settings")


class _Stop(Exception):
    """Ends parsing from inside a callback."""


class ServerConnection(asyncio.Protocol):
    """Connection of one client, driven by the event loop and the parser."""

    __slots__ = (
        "_advancing", "_backlog", "_body", "_body_size", "_broken", "_chunked", "_head_size", "_headers",
        "_held", "_in_head", "_in_message", "_keep_alive", "_out", "_parser", "_paused", "_queue",
        "_reading_paused", "_request", "_server", "_since", "_state", "_transport", "_unparsed_size",
        "_url", "exchange", "loop",
    )  # fmt: skip

    def __init__(self, server: ConnectionOwner) -> None:
        self._server = server
        self.loop = asyncio.get_running_loop()
        self.exchange: Exchange | None = None
        self._parser = HttpRequestParser(self)
        self._queue: deque[Request | Refusal] = deque()
        self._backlog = bytearray()
        self._out: list[bytes] = []
        self._state = State.IDLE
        self._since = self.loop.time()
        self._advancing = self._broken = self._paused = self._reading_paused = self._chunked = False
        self._keep_alive = True
        self._in_head, self._in_message = True, False
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._held = self._body_size = self._head_size = self._unparsed_size = 0

    # -- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._server.add(self):
            self._refuse(TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.remove(self)
        self._broken = True
        self._queue.clear()
        self._backlog.clear()
        self._hold(-self._held)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_lost()

    def data_received(self, data: bytes) -> None:
        if self._state is State.ANSWERING and not self._broken:
            self._backlog += data
            if len(self._backlog) > self._server.limits.backlog_bytes and not self._reading_paused:
                self._reading_paused = True
                self._transport.pause_reading()
        elif not self._broken:
            self._feed(data)
            self._advance()

    def pause_writing(self) -> None:
        self._paused = True
        self._since = self.loop.time()
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        self._paused = False
        self._since = self.loop.time()
        if self.exchange is not None:
            self.exchange.resume()

    # -- from the parser

    def on_message_begin(self) -> None:
        if self._state is State.IDLE:
            self._state = State.READING
            self._since = self.loop.time()
        self._in_head = self._in_message = True
        self._url = b""
        self._headers = {}
        self._body = []
        self._body_size = self._head_size = self._unparsed_size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        headers = self._headers
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._server.limits.body_bytes:
            self._reject(self._too_large())
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue" and not self._queue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size > self._server.limits.body_bytes:
            self._reject(self._too_large())
        self._hold(len(body))
        if self._server.buffered > self._server.limits.buffered_bytes:
            self._reject(TOO_BUSY)
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade():
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        method, http_10 = parser.get_method(), parser.get_http_version() == "1.0"
        path = self._url.partition(b"?")[0]
        self._queue.append(Request(method, path, self._headers, body, parser.should_keep_alive(), http_10))
        self._body = []
        self._in_message = False
        if len(self._queue) > self._server.limits.pipelined:
            self._reject(Refusal(400, "Too many requests were sent without waiting for an answer."))

    # -- from the handler

    @property
    def paused(self) -> bool:
        """True while the client reads too slowly for the data that waits for it."""
        return self._paused

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Send a whole answer at once; ``headers`` are complete lines."""
        self.begin(status, headers, len(body))
        self._out.append(body)
        self.end()

    def respond_refusal(self, refusal: Refusal) -> None:
        """Send a whole answer in OpenAI's error form."""
        self._server.on_refusal(refusal.status)
        self.respond(refusal.status, JSON_TYPE + refusal.headers, refusal.to_body())

    def begin(self, status: int, headers: bytes, length: int | None) -> None:
        """Send the head of an answer; without a ``length`` the body is chunked."""
        out = self._out
        out.append(status_line(status))
        out.append(headers)
        out.append(self._server.date)
        if self._server.draining:
            self._keep_alive = False
        self._chunked = False
        if length is not None:
            out.append(b"content-length: %d\r\n" % length)
        elif self._request.http_10:
            self._keep_alive = False
        else:
            self._chunked = True
            out.append(b"transfer-encoding: chunked\r\n")
        if not self._keep_alive:
            out.append(b"connection: close\r\n\r\n")
        elif self._request.http_10:
            out.append(b"connection: keep-alive\r\n\r\n")
        else:
            out.append(b"\r\n")

    def send(self, data: bytes) -> None:
        """Add a piece of the body; it leaves with the next ``flush`` or ``end``."""
        if not data:
            return
        if self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def flush(self) -> None:
        """Write everything added so far to the client, and restart the time limit of the answer."""
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if not self._paused:
            self._since = self.loop.time()

    def end(self) -> None:
        """Complete the answer and start the next request."""
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
            self._chunked = False
        self.flush()
        self._hold(-len(self._request.body))
        self.exchange = None
        self._since = self.loop.time()
        if not self._keep_alive:
            self._transport.close()
            return
        self._state = State.READING if self._in_message else State.IDLE
        self._advance()

    def cut(self) -> None:
        """Close in the middle of an answer: flushed bytes arrive, but no end of the body."""
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection with all unwritten bytes."""
        self._transport.abort()

    def close_if_idle(self) -> None:
        """Close between two requests."""
        if self._state is State.IDLE and not self._queue:
            self._transport.close()

    def check_deadline(self, now: float) -> None:
        """Enforce the time limit of the current state."""
        limits, waited = self._server.limits, now - self._since
        match self._state:
            case State.IDLE if waited > limits.idle_seconds:
                self._transport.close()
            case State.READING if waited > limits.read_seconds:
                self._broken = True
                self._refuse(Refusal(408, "The request did not arrive in time."))
            case State.ANSWERING if self._paused and waited > limits.stall_seconds:
                self.abort()
            case State.ANSWERING if waited > limits.engine_seconds and not self._paused:
                if self.exchange is not None:
                    self.exchange.timed_out()
            case State.LINGERING if waited > limits.linger_seconds:
                self.abort()

    # -- inside

    def _take_backlog(self) -> None:
        data = bytes(self._backlog)
        self._backlog.clear()
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        head = self._headers
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except HttpParserCallbackError:
            if not self._broken:
                raise
        except HttpParserError as error:
            self._broken = True
            self._queue.append(Refusal(400, f"This is not HTTP/1.1: {error}."))
        else:
            if self._in_head and self._headers is head:
                # The parser reports a header only when it is complete: input within one is counted here.
                self._unparsed_size += len(data)
                if self._unparsed_size > self._server.limits.head_bytes:
                    self._broken = True
                    self._queue.append(self._head_too_large())

    def _decline_upgrade(self, rest: bytes) -> None:
        """Ignore an upgrade to another protocol, as HTTP allows: parse the request again without it."""
        method, headers = self._parser.get_method(), dict(self._headers)
        if method == b"CONNECT":
            self._broken = True
            self._queue.append(Refusal(405, "CONNECT is not served here."))
            return
        for name in _UPGRADE_HEADERS:
            headers.pop(name, None)
        lines = b"".join(b"%b: %b\r\n" % header for header in headers.items())
        head = b"%b %b HTTP/%b\r\n" % (method, self._url, self._parser.get_http_version().encode())
        self._parser = HttpRequestParser(self)
        self._feed(b"%b%b\r\n%b" % (head, lines, rest))

    def _advance(self) -> None:
        """Start waiting requests, one at a time; immediate answers return here without recursion."""
        if self._advancing:
            return
        self._advancing = True
        while self._state is not State.ANSWERING and self._state is not State.LINGERING:
            if self._queue:
                self._start(self._queue.popleft())
            elif self._backlog and not self._broken:
                self._take_backlog()
            else:
                break
        self._advancing = False

    def _start(self, item: Request | Refusal) -> None:
        if isinstance(item, Refusal):
            self._refuse(item)
            return
        self._state = State.ANSWERING
        self._since = self.loop.time()
        self._request = item
        self._keep_alive = item.keep_alive
        self._server.handler(self, item)

    def _refuse(self, refusal: Refusal) -> None:
        """Send the last answer of a connection; later input is discarded, as a reset would destroy the answer."""
        self._broken = True
        self._body = []
        self._hold(-self._held)
        self._request = Request(b"", b"", {}, b"", keep_alive=False, http_10=False)
        self._keep_alive = False
        body = refusal.to_body()
        self._server.on_refusal(refusal.status)
        self.begin(refusal.status, JSON_TYPE + refusal.headers, len(body))
        self.send(body)
        self.flush()
        self._state = State.LINGERING
        self._since = self.loop.time()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _hold(self, size: int) -> None:
        """Count bytes of request bodies that this connection keeps in memory."""
        self._held += size
        self._server.buffered += size

    def _reject(self, refusal: Refusal) -> None:
        self._broken = True
        self._queue.append(refusal)
        raise _Stop

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._server.limits.head_bytes:
            self._reject(self._head_too_large())

    def _head_too_large(self) -> Refusal:
        return Refusal(431, f"Request line and headers are over {self._server.limits.head_bytes} bytes.")

    def _too_large(self) -> Refusal:
        return Refusal(
            413, f"The request is over {self._server.limits.body_bytes} bytes: send a shorter one."
        )
