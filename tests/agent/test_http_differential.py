"""The agent's server against h11: the request that it sees is the one that h11 sees, or it is refused.

What it answers is read by h11 as well, for every method, version and way of answering.
"""

import asyncio
from collections.abc import Callable
from itertools import product

import pytest
from agents.http_corpus import CORPUS, Case
from agents.http_readers import parse_responses, read_by_agent, read_by_h11
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases

from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.messages import Refusal, Request

SHORT = [case.stream for case in CORPUS if len(case.stream) < 400]
#: Pieces of messages that a mutation puts anywhere.
PIECES = [
    b" ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b"\x0b", b"\x7f", b"\xff", b":", b";", b",", b"0", b"1",
    b"-", b"+", b"x", b"GET ", b"HEAD ", b"POST ", b"/", b" HTTP/1.1", b" HTTP/1.0", b"Host: x\r\n", b"Host: y\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
    b"A: b\r\n", b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A stream of the corpus, or two, with pieces put in, taken out, doubled or replaced."""
    stream = bytearray(b"".join(draw(st.lists(st.sampled_from(SHORT), min_size=1, max_size=2))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(stream)))
        length = draw(st.integers(0, 12))
        match draw(st.sampled_from(["insert", "replace", "delete", "double", "byte"])):
            case "insert":
                stream[at:at] = draw(st.sampled_from(PIECES))
            case "replace":
                stream[at : at + length] = draw(st.sampled_from(PIECES))
            case "delete":
                del stream[at : at + length]
            case "double":
                stream[at:at] = stream[at : at + 4 * length]
            case "byte":
                stream[at : at + 1] = bytes([draw(st.integers(0, 255))])
    return bytes(stream)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
async def test_corpus(case: Case) -> None:
    reading = read_by_agent(case.stream)
    assert len(reading.seen) == case.served
    assert reading.seen == read_by_h11(case.stream)[: case.served]
    assert reading.held == 0
    if len(case.stream) < 1000:
        byte_by_byte = read_by_agent(case.stream, range(len(case.stream)))
        assert byte_by_byte.seen == reading.seen


@settings(max_examples=cases(400, 100_000))
@given(stream=mutated(), cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_mutations_of_the_corpus(stream: bytes, cuts: list[int]) -> None:
    async def compare() -> None:
        reading = read_by_agent(stream, cuts)
        assert reading.seen == read_by_h11(stream)[: len(reading.seen)]
        assert reading.held == 0
        # A refusal comes last; one of a HEAD ends with its head.
        refused = b"HEAD" if reading.written.endswith(b"\r\n") else b"POST"
        methods = [seen.method for seen in reading.seen]
        parse_responses([*methods, refused], reading.written, ended=reading.ended)

    asyncio.run(compare())


METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"TRACE")
REFUSED_METHODS = (b"CONNECT", b"OPTIONS", b"BREW", b"PRI")


def stream(status: int, length: int | None) -> Callable[[ServerConnection, Request], None]:
    """Answer in two pieces."""

    def answer(connection: ServerConnection, request: Request) -> None:
        connection.begin(status, b"a: b\r\n", length)
        for piece in (b"he", b"", b"llo"):
            connection.send(piece)
            connection.flush()
        connection.end()

    return answer


ANSWERS: dict[str, tuple[int, bytes, Callable[[ServerConnection, Request], None]]] = {
    "whole": (200, b"hello", lambda connection, _: connection.respond(200, b"", b"hello")),
    "empty": (200, b"", lambda connection, _: connection.respond(200, b"", b"")),
    "streamed": (200, b"hello", stream(200, None)),
    "streamed with a length": (200, b"hello", stream(200, 5)),
    "no content": (204, b"", stream(204, None)),
    "no content with a length": (204, b"", stream(204, 5)),
    "not modified": (304, b"", stream(304, None)),
    "unknown status": (299, b"hello", stream(299, None)),
    "refused": (405, b"", lambda connection, _: connection.respond_refusal(Refusal(405, "Not here."))),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_responses_are_what_h11_reads(name: str) -> None:
    status, body, answer = ANSWERS[name]
    for method, version in product(METHODS, (b"1.0", b"1.1")):
        request = b"%b / HTTP/%b\r\nHost: x\r\n\r\n" % (method, version)
        reading = read_by_agent(request * 2, answer=answer)
        count = 2 if version == b"1.1" else 1
        responses = parse_responses([method] * count, reading.written, ended=reading.ended)
        assert [response.status for response in responses] == [status] * count
        if name != "refused":
            assert responses[0].body == (b"" if method == b"HEAD" else body)
        has_length = {response.headers.get(b"content-length") for response in responses}
        assert status not in (204, 304) or has_length == {None}


@pytest.mark.parametrize("method", [*METHODS, *REFUSED_METHODS])
@pytest.mark.parametrize("version", [b"0.9", b"1.0", b"1.1", b"1.2", b"2.0"])
async def test_refusals_are_what_h11_reads(method: bytes, version: bytes) -> None:
    refused = method in REFUSED_METHODS or version not in (b"1.0", b"1.1")
    for header in (b"", b"Host: y\r\n", b"Content-Length: 9999999\r\n", b"A: " + b"x" * 99_999, b": x\r\n"):
        request = b"%b / HTTP/%b\r\nHost: x\r\n%b\r\n" % (method, version, header)
        reading = read_by_agent(request)
        (response,) = parse_responses([method], reading.written, ended=reading.ended)
        assert (response.status >= 400) is bool(header or refused)
        assert not reading.seen or not (header or refused)
        assert response.headers.get(b"connection", b"close") == b"close"
