"""The agent's server against h11: the request that it sees is the one that h11 sees, or it is refused."""

import asyncio
from itertools import count

import h11
import pytest
from agents.http_corpus import CORPUS, HELLO, END, Case, chunked, request
from agents.http_readers import parse_responses, read_by_agent, read_by_h11
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases

from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.limits import Limits
from tunesmith_agent.http.messages import Request

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
        match draw(st.sampled_from("insert replace delete double byte".split())):
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
