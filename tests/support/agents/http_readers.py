"""What two implementations see in the same bytes: the agent's server, on a transport that is a list, and h11."""

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import h11

from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.limits import Limits
from tunesmith_agent.http.messages import Request
from tunesmith_agent.http.server import Server

#: Headers of a single connection: an upgrade that was declined is no longer in them.
_HOP_BY_HOP = (b"connection", b"upgrade", b"http2-settings")


class Seen(NamedTuple):
    """One request as a reader understands it."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes


class Transport:
    """Transport that keeps what is written, and tells its connection about its end as the event loop does."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = self.ended = False

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else MagicMock()

    def write(self, data: bytes) -> None:
        assert not self.closed
        assert not self.ended
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        """No effect: the test decides what is read."""

    resume_reading = pause_reading


class AgentReading(NamedTuple):
    """Requests that the agent's server passed to its handler, and what it wrote."""

    seen: list[Seen]
    written: bytes
    ended: bool
    held: int


def read_by_agent(
    stream: bytes,
    cuts: Iterable[int] = (),
    *,
    limits: Limits | None = None,
    answer: Callable[[ServerConnection, Request], None] | None = None,
    end: bool = True,
) -> AgentReading:
    """Feed a stream in pieces, each request being answered at once; needs a running event loop.

    Args:
        answer: answers a request; without it, 200 with an empty body.
        end: the client closes its side after the stream.
    """
    seen = []

    def handle(connection: ServerConnection, request: Request) -> None:
        seen.append(Seen(request.method, request.path, _end_to_end(request.headers), request.body))
        if answer is None:
            connection.respond(200, b"", b"")
        else:
            answer(connection, request)

    server = Server(handle, lambda *refusal: None, limits or Limits())
    server.date = b""  # the same in every run
    connection, transport = ServerConnection(server), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, stop in pairwise(edges):
        if not transport.closed:
            connection.data_received(stream[start:stop])
    if end and not transport.closed:
        connection.eof_received()
        assert transport.closed, "a connection whose client has ended stays open"
    ended = transport.closed or transport.ended
    connection.connection_lost(None)
    return AgentReading(seen, transport.written, ended, server.shares.held)


def read_by_h11(stream: bytes) -> list[Seen]:
    """Complete requests that h11 finds, up to the first one that it refuses or after which the connection ends.

    Two things are taken away first, which h11 refuses although they can mean only one thing: line ends before a
    request, and several spaces in a request line. RFC 9112 lets a server accept them (sections 2.2 and 3).
    """
    seen = []
    while stream:
        stream = re.sub(rb"\A[\r\n]+", b"", stream)
        stream = re.sub(rb"\A([A-Z]+) +([^\s]+) +(?=HTTP/)", rb"\1 \2 ", stream)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**26)
        connection.receive_data(stream)
        request = _read_one(connection)
        if request is None:
            break
        seen.append(request)
        if request.method == b"CONNECT" or not _keeps_alive(connection):
            break
        stream = connection.trailing_data[0]
    return seen


def _read_one(connection: h11.Connection) -> Seen | None:
    head, body = None, b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return Seen(head.method, _path(head.target), _end_to_end(_joined(head.headers)), body)
        else:
            return None


def _keeps_alive(connection: h11.Connection) -> bool:
    connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    return connection.our_state is h11.DONE


def _joined(lines: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Values by name, repeated ones joined as RFC 9110, section 5.3 and RFC 6265, section 5.4 say."""
    headers: dict[bytes, bytes] = {}
    for name, value in lines:
        if name in headers:
            value = headers[name] + (b"; " if name == b"cookie" else b", ") + value
        headers[name] = value
    return headers


def _end_to_end(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    kept = {name: value for name, value in headers.items() if name not in _HOP_BY_HOP}
    if b"transfer-encoding" in kept:
        kept[b"transfer-encoding"] = kept[b"transfer-encoding"].lower()
    return kept


def _path(target: bytes) -> bytes:
    """Path of a target in origin form or, by RFC 3986, in absolute form."""
    target = target.partition(b"?")[0]
    if target.startswith(b"/"):
        return target
    _, slash, path = target.partition(b"://")[2].partition(b"/")
    return slash + path or b"/"


class Answered(NamedTuple):
    """One final response as h11 understands it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def parse_responses(methods: Iterable[bytes], written: bytes, *, ended: bool) -> list[Answered]:
    """Final responses that h11 finds in what a server wrote to requests with these methods.

    Raises:
        h11.RemoteProtocolError: it is not HTTP/1.1, or the last response is not complete.
    """
    responses = []
    for method in methods:
        if not written:
            break
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(written)
        if ended:
            connection.receive_data(b"")
        status, headers, body = 0, {}, b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, "a response is not complete"
            if isinstance(event, h11.Response):
                status, headers = event.status_code, dict(event.headers)
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        responses.append(Answered(status, headers, body))
        written = connection.trailing_data[0]
    assert not written, "bytes behind the last response"
    return responses
