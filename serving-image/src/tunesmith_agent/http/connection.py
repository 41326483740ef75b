"""Connection of one client: requests in, answers out in the same order, every wait bounded."""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from enum import Enum
from typing import Protocol, cast

from .limits import Limits
from .messages import JSON_TYPE, WITHOUT_BODY, Refusal, Request, status_line
from .parsing import RequestParser
from .shares import AddressShare, Shares

log = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_EVENT_STREAM = b"text/event-stream"
#: Comment of an event stream, which its readers skip (HTML standard, server-sent events).
_COMMENT, _EVENT_END = b":\n\n", b"\n\n"

_BROKEN = Refusal(500, "The agent failed on this request; its log says why.", kind="server_error")

#: Values of SO_LINGER: close by a reset, or in the ordinary way.
_RESET, _ORDINARY = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)


class State(Enum):
    """State of a connection; each has its own time limit."""

    IDLE = "idle"
    READING = "reading"
    ANSWERING = "answering"
    LINGERING = "lingering"


#: A member by its name in a class takes three times as long, and each request asks ten times.
_IDLE, _READING, _ANSWERING, _LINGERING = State


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


class AnswerObserver(Protocol):
    """Observer of the answer to the current request."""

    def answer_began(self, status: int) -> None:
        """Note the head of the answer."""

    def answer_ended(self, now: float, complete: bool) -> None:
        """Note the end of the answer, or of the connection before it; ``now`` is by the loop's clock."""


class Handler(Protocol):
    """Function that answers one request, now or later, by ``respond``, or by ``begin``, ``send``, ``end``."""

    def __call__(self, connection: "ServerConnection", request: Request) -> None: ...


class ConnectionOwner(Protocol):
    """Server as its connections use it.

    Attributes:
        on_refusal: called with the status and OpenAI's code of each refusal.
        shares: connections and bytes in memory by client address.
        idle: connections that wait for a request, the one that waits for longest first; the values say nothing.
        draining: no connection is kept open after its current answer.
        date: the current ``date`` header.
    """

    handler: Handler
    on_refusal: Callable[[int, str], None]
    limits: Limits
    shares: Shares
    idle: dict["ServerConnection", None]
    draining: bool
    date: bytes

    def add(self, connection: "ServerConnection") -> Refusal | None:
        """Register a new connection, which may close an idle one; a refusal where there is no room."""

    def remove(self, connection: "ServerConnection") -> None:
        """Forget a closed connection."""


class ServerConnection(asyncio.Protocol):
    """Connection of one client, driven by the event loop and the parser.

    Attributes:
        share: what its client's address holds.
        observer: told of the answer to the current request; None: nobody is.
        answer_headers: complete lines that are added to the head of the answer to the current request.
    """

    __slots__ = (
        "_advancing", "_backlog", "_begun", "_bodyless", "_chunked", "_closes_body", "_eof", "_held", "_is_events",
        "_keep_alive", "_last", "_out", "_parser", "_paused", "_reading_paused", "_request", "_server", "_since",
        "_state", "_transport", "answer_headers", "exchange", "loop", "observer", "share",
    )  # fmt: skip

    def __init__(self, server: ConnectionOwner) -> None:
        self._server = server
        self.loop = asyncio.get_running_loop()
        self.exchange: Exchange | None = None
        self.observer: AnswerObserver | None = None
        self.answer_headers = b""
        self._parser = RequestParser(server.limits, self._hold)
        self._backlog = bytearray()
        self._out: list[bytes] = []
        self._state = _IDLE
        self._since = self.loop.time()
        self._advancing = self._paused = self._reading_paused = self._eof = False
        self._begun = self._bodyless = self._chunked = self._closes_body = self._is_events = False
        self._last = b""
        self._keep_alive = True
        self._held = 0

    # -- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.share: AddressShare = self._server.shares.enter(str(peer[0]) if peer else "")
        if (refusal := self._server.add(self)) is not None:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.remove(self)
        self._parser.broken = True
        self._parser.queue.clear()
        self._backlog.clear()
        self._hold(-self._held)
        self._server.shares.leave(self.share)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_lost()
        self._tell_end(complete=False)

    def data_received(self, data: bytes) -> None:
        if self._parser.broken:
            return
        if self._state is _ANSWERING:
            self._backlog += data
            within_share = self._hold(len(data))
            is_full = not within_share or len(self._backlog) > self._server.limits.backlog_bytes
            if is_full and not self._reading_paused:
                self._reading_paused = True
                self._transport.pause_reading()
        else:
            self._feed(data)
            self._advance()

    def eof_received(self) -> bool:
        """Answer what was asked before the client closed its side; our side stays open until then."""
        self._eof = True
        if self._state is _ANSWERING:
            self._check_client()
        elif self._state is _LINGERING:
            self._transport.close()
        else:
            self._advance()
        return True

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

    # -- from the handler

    @property
    def paused(self) -> bool:
        """True while the client reads too slowly for the data that waits for it."""
        return self._paused

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Send a whole answer at once; ``headers`` are complete lines."""
        self.begin(status, headers, len(body))
        self.send(body)
        self.end()

    def respond_refusal(self, refusal: Refusal) -> None:
        """Send a whole answer in OpenAI's error form."""
        self._server.on_refusal(refusal.status, refusal.code or "")
        self.respond(refusal.status, JSON_TYPE + refusal.headers, refusal.to_body())

    def close_after_answer(self) -> None:
        """Close after the current answer, so that the client's next connection can reach another pod."""
        self._keep_alive = False

    def begin(self, status: int, headers: bytes, length: int | None) -> None:
        """Send the head of an answer; without a ``length`` the body is chunked, or ends with the connection."""
        out, request = self._out, self._request
        self._begun = True
        out += (status_line(status), headers, self.answer_headers, self._server.date)
        if self.observer is not None:
            self.observer.answer_began(status)
        if self._server.draining or (self._eof and not self._backlog and not self._parser.queue):
            self._keep_alive = False
        forbids_body = status in WITHOUT_BODY
        self._bodyless = forbids_body or request.method == b"HEAD"
        if length is not None and not forbids_body:
            out.append(b"content-length: %d\r\n" % length)
        elif self._bodyless:
            pass
        elif request.http_10:
            self._keep_alive = False
            self._end_body_by_closing()
        else:
            self._chunked = True
            out.append(b"transfer-encoding: chunked\r\n")
        self._is_events = (self._chunked or self._closes_body) and _EVENT_STREAM in headers
        self._last = _EVENT_END
        out.append(b"\r\n" if self._keep_alive else b"connection: close\r\n\r\n")

    def send(self, data: bytes) -> None:
        """Add a piece of the body; it leaves with the next ``flush`` or ``end``."""
        if not data or self._bodyless:
            return
        if self._is_events:
            self._last = data
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
        self._is_events = False
        self._last = b""
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
            self._chunked = False
        self.flush()
        self._hold(-self._request.size)
        self.exchange = None
        if self.observer is not None:
            self._tell_end(complete=True)
        self._since = self.loop.time()
        if self._closes_body:
            self._closes_body = False
            self._set_linger(_ORDINARY)
        if not self._keep_alive:
            self._transport.close()
            return
        self._wait()
        self._advance()

    def cut(self) -> None:
        """Close in the middle of an answer: flushed bytes arrive, but no end of the body."""
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection with all unwritten bytes."""
        self._transport.abort()

    def close_if_idle(self) -> None:
        """Close between two requests."""
        if self._state is _IDLE:
            self._transport.close()

    def arriving_since(self) -> float | None:
        """Time at which the request that is arriving began; None if there is none."""
        return self._since if self._state is _READING else None

    def check_deadline(self, now: float) -> None:
        """Enforce the time limit of the current state."""
        limits, waited = self._server.limits, now - self._since
        match self._state:
            case State.IDLE if waited > limits.idle_seconds:
                self._transport.close()
            case State.READING if waited > limits.read_seconds:
                self._parser.refuse(Refusal(408, "The request did not arrive in time."))
                self._advance()
            case State.ANSWERING if self._paused and waited > limits.stall_seconds:
                self.abort()
            case State.ANSWERING if waited > limits.engine_seconds and not self._paused:
                if self.exchange is not None:
                    self.exchange.timed_out()
            case State.ANSWERING:
                self._check_client()
            case State.LINGERING if waited > limits.linger_seconds:
                self.abort()

    # -- inside

    def _check_client(self) -> None:
        """Find out if a client from which nothing more is read waits for its answer.

        The end of its input does not tell a client that has left from one that has closed its writing side, and
        behind input that is not read its end is not seen at all. A client that waits skips an interim response
        (RFC 9110, section 15.2), and a comment between two events of a stream. The host of one that has left answers
        it by a reset, which ends the next one.
        """
        if self._paused or not (self._eof or self._reading_paused):
            return
        if not self._begun:
            if not self._request.http_10:
                self._transport.write(_CONTINUE)
        elif self._is_events and not self._out and self._last.endswith(_EVENT_END):
            self._transport.write(b"%x\r\n%b\r\n" % (len(_COMMENT), _COMMENT) if self._chunked else _COMMENT)

    def _end_body_by_closing(self) -> None:
        """Make whatever ends the connection before ``end`` a reset, so that a part of a body never looks whole."""
        self._closes_body = True
        self._set_linger(_RESET)

    def _set_linger(self, value: bytes) -> None:
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)

    def _take_backlog(self) -> None:
        data = bytes(self._backlog)
        self._backlog.clear()
        self._hold(-len(data))
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        self._parser.feed(data)
        if self._parser.in_message and self._state is _IDLE and not self._parser.broken:
            self._wait()

    def _wait(self) -> None:
        """Wait for a request, or for the rest of one."""
        self._since = self.loop.time()
        if self._parser.in_message:
            self._state = _READING
            self._server.idle.pop(self, None)
        else:
            self._state = _IDLE
            self._server.idle[self] = None

    def _advance(self) -> None:
        """Start waiting requests, one at a time; immediate answers return here without recursion."""
        if self._advancing:
            return
        self._advancing = True
        parser = self._parser
        while self._state is _IDLE or self._state is _READING:
            if parser.queue:
                self._start(parser.queue.popleft())
            elif self._backlog and not parser.broken:
                self._take_backlog()
            elif self._eof and parser.in_message and not parser.broken:
                parser.finish()
            else:
                if self._eof:
                    self._transport.close()
                elif parser.waits_for_continue:
                    parser.waits_for_continue = False
                    self._transport.write(_CONTINUE)
                break
        self._advancing = False

    def _start(self, item: Request | Refusal) -> None:
        if isinstance(item, Refusal):
            self._refuse(item)
            return
        self._server.idle.pop(self, None)
        self._state = _ANSWERING
        self._since = self.loop.time()
        self._request = item
        self._begun = False
        self.answer_headers = b""
        self._keep_alive = item.keep_alive
        try:
            self._server.handler(self, item)
        except Exception:
            # It may be called from the answer before it, whose connection to the engine must not break by this one.
            log.exception("a request could not be handled")
            self._fail()
        # The handler has taken what it needs of the body: it is not kept for as long as the answer takes.
        item.body = b""

    def _fail(self) -> None:
        """End a request that the agent itself failed on."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_lost()
        if self._begun:
            self._transport.abort()
        else:
            self.respond_refusal(_BROKEN)

    def _refuse(self, refusal: Refusal) -> None:
        """Send the last answer of a connection; later input is discarded, as a reset would destroy the answer."""
        self._server.idle.pop(self, None)
        self._parser.broken = True
        self._hold(-self._held)
        self.answer_headers = b""
        self._request = Request(self._parser.method, b"", {}, b"", keep_alive=False, http_10=False, size=0)
        self._keep_alive = False
        body = refusal.to_body()
        self._server.on_refusal(refusal.status, refusal.code or "")
        self.begin(refusal.status, JSON_TYPE + refusal.headers, len(body))
        self.send(body)
        self.flush()
        self._state = _LINGERING
        self._since = self.loop.time()
        if self._eof:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()

    def _tell_end(self, complete: bool) -> None:
        observer, self.observer = self.observer, None
        if observer is not None:
            observer.answer_ended(self.loop.time(), complete)

    def _hold(self, size: int) -> bool:
        """Count bytes that this connection keeps in memory; False if its client holds more than its share."""
        self._held += size
        return self._server.shares.hold(self.share, size)
