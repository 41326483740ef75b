"""Random bytes in random pieces: each connection gets an answer or ends, without an exception."""

import asyncio

from agents.http_readers import read_by_agent
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases

from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.limits import Limits
from tunesmith_agent.http.messages import Request

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


def run(stream: bytes, cuts: list[int]) -> bytes:
    """What a connection with small limits writes that answers each request at once."""

    def answer(connection: ServerConnection, request: Request) -> None:
        connection.respond(200, b"", request.method + b" " + request.path + b" " + request.body)

    async def read() -> bytes:
        limits = Limits(head_bytes=200, body_bytes=100, pipelined=4)
        reading = read_by_agent(stream, cuts, limits=limits, answer=answer)
        assert reading.held == 0
        return reading.written

    return asyncio.run(read())


@settings(max_examples=cases(150, 20_000))
@given(pieces=PIECES, cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_no_bytes_break_a_connection(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    written = run(stream, cuts)
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
    written = run(stream, cuts)
    assert written.count(b"HTTP/1.1 200 OK") == len(requests)
    assert written.split(b"\r\n\r\n")[1:] == run(stream, []).split(b"\r\n\r\n")[1:]
