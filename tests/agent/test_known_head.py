"""Heads that came before: whatever follows on a connection is read as a new connection reads it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_agent.http.known_head import VAIN_HEADS
from tunesmith_agent.http.limits import Limits
from tunesmith_agent.http.messages import Refusal, Request
from tunesmith_agent.http.parsing import RequestParser

HEAD = (
    b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer one\r\n"
    b"Content-Length: %b\r\ncontent-type: application/json\r\nx-last: 1\r\n\r\n"
)
BODY = b'{"model": "expenses"}'
LIMITS = Limits(body_bytes=200)


class Reader:
    """A parser and the bytes that it counts as kept in memory."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.held = 0
        self.parser = RequestParser(limits, self._hold)

    def _hold(self, size: int) -> bool:
        self.held += size
        return True

    def read(self, *pieces: bytes) -> tuple[list[Request | Refusal], bool, bool, int]:
        """What has come of these pieces: requests, whether more is awaited or refused, and bytes in memory."""
        before = self.held
        for piece in pieces:
            if not self.parser.broken:
                self.parser.feed(piece)
        found = [
            replace(item, derived=None) if isinstance(item, Request) else item for item in self.parser.queue
        ]
        self.parser.queue.clear()
        return found, self.parser.in_message, self.parser.broken, self.held - before


def message(body: bytes = BODY, length: bytes | None = None, head: bytes = HEAD) -> bytes:
    return head % (b"%d" % len(body) if length is None else length) + body


def experienced() -> Reader:
    """A reader that knows the head, which the test of its work below proves."""
    reader = Reader()
    reader.read(message())
    return reader


def test_the_next_request_with_the_same_head_needs_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = experienced()
    monkeypatch.setattr(reader.parser, "_parser", None)
    for body in (BODY, b'{"model": "another one"}', b"{}" * 50, b"x"):
        found, *state = reader.read(message(body))
        assert (found, *state) == Reader.read(Reader(), message(body))
        assert isinstance(found[0], Request) and found[0].body == body
        assert found[0].headers[b"content-length"] == b"%d" % len(body)


@pytest.mark.parametrize(
    "pieces",
    [
        (message()[:-1],),
        (message()[:-1], message()[-1:]),
        (message()[:40], message()[40:]),
        (message() + b"\r\n",),
        (b"\r\n" + message(),),
        (message() + message(),),
        (message() + message()[:90],),
        (message(b""),),
        (message(b"x" * 200),),
        (message(b"x" * 201),),
        (message(length=b"021"),),
        (message(length=b"+21"),),
        (message(length=b"-1"),),
        (message(length=b""),),
        (message(length=b"21 "),),
        (message(length=b"21, 21"),),
        (message(length=b"0x15"),),
        (message(length=b"2_1"),),
        (message(length="²¹".encode()),),
        (message(length=b"000000000000000000021"),),
        (message(length=b"21\r\ncontent-length: 21"),),
        (message(length=b"21\r\ntransfer-encoding: chunked"),),
        (message(length=b"21\n"),),
        (message().replace(b"Bearer one", b"Bearer two"),),
        (message().replace(b"Bearer one", b"Bearer on2"),),
        (message().replace(b"x-last: 1", b"x-last: 2"),),
        (message().replace(b"x-last: 1", b"x-last"),),
        (message().replace(b"POST", b"HEAD"),),
        (message().replace(b"HTTP/1.1", b"HTTP/1.0"),),
        (message().replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"),),
        (message().replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),),
        (b"GET / HTTP/1.1\r\nhost: agent\r\n\r\n",),
        (b"nonsense" + message(),),
    ],
)
def test_anything_else_is_read_as_by_a_new_connection(pieces: tuple[bytes, ...]) -> None:
    reader = experienced()
    assert reader.read(*pieces) == Reader().read(*pieces)
    if not reader.parser.broken and not reader.parser.in_message:
        assert reader.read(message(b"more")) == Reader().read(message(b"more"))


@pytest.mark.parametrize(
    "first",
    [
        message() + b"\r\n",
        message(b"\r\n" + BODY) + b"\r\n",
        b"\r\n" + message(),
        message().replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"),
        message().replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"),
        HEAD.replace(b"Content-Length: %b", b"transfer-encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n",
        message(head=HEAD.replace(b"x-last: 1", b"x-last: " + b"1" * 4000)),
        message(head=HEAD.replace(b"Host: agent", b"Host: agent\r\nx-content-length: 21")),
        message(head=HEAD.replace(b"Content-Length: %b", b"content-LENGTH:%b")),
    ],
)
def test_the_same_bytes_mean_the_same_each_time(first: bytes) -> None:
    reader = Reader()
    for _ in range(3):
        assert reader.read(first) == Reader().read(first)
    assert reader.read(message(b"another")) == Reader().read(message(b"another"))


def parted(data: bytes) -> tuple[bytes, bytes]:
    """Head and body, as clients write them one after the other."""
    head, end, body = data.partition(b"\r\n\r\n")
    return head + end, body


def test_a_body_that_comes_behind_a_known_head_needs_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all requests before came in two pieces, or in more."""
    for first in ((message(),), parted(message()), (message()[:-5], message()[-5:-2], message()[-2:])):
        reader = Reader()
        reader.read(*first)
        monkeypatch.setattr(reader.parser, "_parser", None)
        for body in (BODY, b'{"model": "another one"}', b"{}" * 50, b"x"):
            head, rest = parted(message(body))
            for pieces in ((head, rest), (head, rest[:1], rest[1:]), (head + rest[:-1], rest[-1:])):
                found, *state = reader.read(*filter(None, pieces))
                assert (found, *state) == Reader().read(message(body))


@pytest.mark.parametrize("body", [BODY, b"", b"\r\n", b"x" * 200, b"POST / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize(
    "behind", [b"", b"\r\n", message(), message(b"")[:70], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"!"]
)
def test_every_cut_reads_as_by_a_new_connection(body: bytes, behind: bytes) -> None:
    """Also what a known head makes of the rest of the connection, and what is kept in memory on the way."""
    data = message(body) + behind
    for place in range(1, len(data)):
        reader, fresh = experienced(), Reader()
        for piece in (data[:place], data[place:]):
            assert reader.read(piece) == fresh.read(piece), place
        for piece in parted(message(b"more")):
            if not reader.parser.broken:
                assert reader.read(piece) == fresh.read(piece), place


@given(data=st.data(), bodies=st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_any_pieces_read_as_by_a_new_connection(data: st.DataObject, bodies: list[bytes]) -> None:
    """Heads are kept on the way, from requests in whatever pieces."""
    heads = st.sampled_from([HEAD, HEAD.replace(b"x-last: 1", b"x-last: 2")])
    stream = b"".join(message(body, head=data.draw(heads)) for body in bodies)
    places = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    reader, plain = Reader(), Reader()
    plain.parser._vain = VAIN_HEADS
    for begin, end in pairwise([0, *places, len(stream)]):
        assert reader.read(stream[begin:end]) == plain.read(stream[begin:end])
    assert plain.parser._known is None


def test_a_body_that_does_not_come_is_refused() -> None:
    for pieces in (parted(message())[:1], (message()[:-1],)):
        reader, fresh = experienced(), Reader()
        reader.read(b"HEAD / HTTP/1.1\r\nhost: agent\r\n\r\n")
        for each in (reader, fresh):
            each.read(*pieces)
            each.parser.finish()
        assert reader.read() == fresh.read()
        assert reader.parser.method == fresh.parser.method == b"POST"


def allow(calls: int) -> Callable[[int], bool]:
    """Counter of bytes in memory that says so many times that there is room."""
    answers = iter([True] * calls)
    return lambda size: size < 0 or next(answers, False)


def test_too_much_in_memory_is_refused_as_ever() -> None:
    for pieces in ((message(),), parted(message()), (message()[:-5], message()[-5:])):
        for allowed in range(len(pieces)):
            reader = experienced()
            reader.parser._hold = allow(allowed)
            found, *_ = reader.read(*pieces)
            assert [item.status for item in found if isinstance(item, Refusal)] == [503]


def test_heads_that_never_come_again_are_given_up() -> None:
    reader = Reader()
    for number in range(20):
        data = message(head=HEAD.replace(b"x-last: 1", b"x-last: %d" % number))
        assert reader.read(data) == Reader().read(data)
    known = reader.parser._known
    reader.read(message())
    assert reader.parser._known is known
