"""Random bytes in random pieces: each connection gets an answer or ends, without an exception."""

import asyncio
from itertools import pairwise
from typing import Any
from unittest.mock import MagicMock

from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases

from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.limits import Limits
from tunesmith_agent.http.messages import Request
from tunesmith_agent.http.server import Server

PARTS = st.sampled_from(
    [
        b"GET ", b"POST ", b"CONNECT ", b"/healthz", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r\n\r\n",
        b": ", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
        b"5\r\nhello\r\n", b"0\r\n\r\n", b"Connection: close\r\n", b"Host: x\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Expect: 100-continue\r\n", b"hello",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"ffffffffffffffff\r\n", b"\x00", b"\xff",
    ]
)  # fmt: skip
PIECES = st.lists(PARTS | st.binary(max_size=40), max_size=40)


class Transport:
    """Takes what is written; closing is told to the connection as the event loop does."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else MagicMock()

    def __getattr__(self, name: str) -> Any:
        return lambda: None


def run(stream: bytes, cuts: list[int]) -> Transport:
    """Feed a stream in pieces to a connection that answers each request at once."""

    def answer(connection: ServerConnection, request: Request) -> None:
        connection.respond(200, b"", request.method + b" " + request.path + b" " + request.body)

    async def feed() -> Transport:
        server = Server(answer, lambda *refusal: None, Limits(head_bytes=200, body_bytes=100, pipelined=4))
        server.date = b""  # the same in every run
        connection, transport = ServerConnection(server), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        for start, end in pairwise(edges):
            if not transport.closed:
                connection.data_received(stream[start:end])
        connection.connection_lost(None)
        assert server.shares.held == 0
        return transport

    return asyncio.run(feed())


@settings(max_examples=cases(150, 20_000))
@given(pieces=PIECES, cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_no_bytes_break_a_connection(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    written = run(stream, cuts).written
    assert not written or written.startswith(b"HTTP/1.1 ")


REQUESTS = st.lists(
    st.builds(
        lambda path, body, chunked: (
            b"POST /%d HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n"
            % (path, b"%x\r\n%b\r\n" % (len(body), body) if body else b"")
            if chunked
            else b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (path, len(body), body)
        ),
        st.integers(0, 9),
        st.binary(max_size=60),
        st.booleans(),
    ),
    max_size=4,
)


@settings(max_examples=cases(100, 10_000))
@given(requests=REQUESTS, cuts=st.lists(st.integers(0, 2000), max_size=10))
def test_cuts_change_nothing(requests: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(requests)
    written = run(stream, cuts).written
    assert written.count(b"HTTP/1.1 200 OK") == len(requests)
    assert written.split(b"\r\n\r\n")[1:] == run(stream, []).written.split(b"\r\n\r\n")[1:]
