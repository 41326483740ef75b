"""Requests from the bytes of one connection, each complete and with one meaning, or the refusal that ends it.

Framing is llhttp's. What it lets pass although RFC 9112 forbids it, or bounds not at all, is refused here.
"""

import re
from collections import deque
from collections.abc import Callable
from functools import lru_cache

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from .known_head import VAIN_HEADS, KnownHead, keep_head
from .limits import Limits
from .messages import Refusal, Request

TOO_BUSY = Refusal(
    503,
    "This pod holds too many large requests: try again in a moment.",
    kind="server_error",
    code="overloaded",
    headers=b"retry-after: 1\r\n",
)

#: Input is parsed in pieces of this size: what a piece held besides body bytes is known only after it.
SLICE_BYTES = 16 * 1024

#: Framing that each chunk may cost (its size, in at most ten digits, and two line ends).
_CHUNK_FRAMING = 16

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"TRACE"))
_VERSIONS = frozenset(("1.1", "1.0"))

#: Headers that decide something: two of them could mean two things to two readers.
_SINGLE_HEADERS = frozenset((b"host", b"content-length", b"content-type", b"authorization"))

#: ``host`` or ``host:port`` as in RFC 3986: a name or IPv4 address, or an IP literal.
_HOST = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])(?::[0-9]*)?"
)

_ABSOLUTE_FORM = re.compile(rb"https?://[^/?]+", re.IGNORECASE)

#: Options of ``connection`` that belong to an upgrade.
_UPGRADE_OPTIONS = (b"upgrade", b"http2-settings")


class _Stop(Exception):
    """Ends parsing from inside a callback."""


class RequestParser:
    """Parser of one connection.

    Args:
        limits: limits on head, body and pipelined requests.
        hold: counts bytes that are kept in memory, negative ones when they are released; False where that is too much.

    Attributes:
        queue: complete requests in their order; a refusal is the last item.
        in_message: a request has begun and is not complete.
        broken: a refusal was queued, and nothing more is read.
        waits_for_continue: the client of the request that is arriving wants a ``100 Continue`` first.
    """

    __slots__ = (
        "_begun", "_body", "_body_size", "_chunks", "_excess", "_head", "_head_size", "_headers", "_hold", "_http_10",
        "_in_head", "_known", "_limits", "_lines", "_messages", "_method", "_missing", "_parser", "_path",
        "_piece_body", "_unheld", "_unparsed_size", "_upgrade", "_url", "_vain", "broken", "in_message", "queue",
        "waits_for_continue",
    )  # fmt: skip

    def __init__(self, limits: Limits, hold: Callable[[int], bool]) -> None:
        self._limits = limits
        self._hold = hold
        self._parser = HttpRequestParser(self)
        self.queue: deque[Request | Refusal] = deque()
        self.in_message = self.broken = self.waits_for_continue = False
        self._in_head, self._http_10 = True, False
        self._url = self._path = b""
        self._lines: list[tuple[bytes, bytes]] = []
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._messages = self._head_size = self._body_size = self._unparsed_size = 0
        self._excess = self._piece_body = self._chunks = self._unheld = 0
        self._upgrade = False
        self._method = b""
        self._known: KnownHead | None = None
        self._vain = 0
        #: Head of the request that llhttp reads, if it came in one piece with nothing before it; else empty.
        self._head = b""
        #: Request with the known head that is arriving, and the bytes of its body that are missing.
        self._begun: Request | None = None
        self._missing = 0

    # -- for the connection

    @property
    def method(self) -> bytes:
        """Method of the request that is arriving; empty before its target."""
        if self._begun is not None:
            return self._begun.method
        method: bytes = self._parser.get_method() if self._url else b""
        return method

    def feed(self, data: bytes) -> None:
        """Parse the next bytes."""
        if self._known is not None:
            if not self.in_message:
                if not self.queue and self._read_by_known(data):
                    return
            elif self._begun is not None:
                self._read_body(self._begun, data)
                return
        if len(data) > SLICE_BYTES:
            for start in range(0, len(data), SLICE_BYTES):
                if not self.broken:
                    self.feed(data[start : start + SLICE_BYTES])
            return
        messages, was_in_head, is_first = self._messages, self._in_head, not self.in_message
        self._piece_body = self._chunks = 0
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except HttpParserCallbackError:
            if not self.broken:
                raise
        except HttpParserError as error:
            self.refuse(Refusal(400, f"This is not HTTP/1.1: {error}.", code="bad_framing"))
        else:
            is_new = is_first and self._messages == messages + 1 and self._vain < VAIN_HEADS
            if not self.in_message:
                if is_new:
                    self._keep_head(data[: len(data) - self._body_size])
                elif self._head and self._messages == messages:
                    self._keep_head(self._head)
                self._head = b""
                return
            if self._messages != messages:
                self._head = data[: len(data) - self._piece_body] if is_new and not self._in_head else b""
            if not self._hold_new_bytes():
                self.refuse(TOO_BUSY)
            elif self._messages == messages:
                self._count_unparsed(len(data), was_in_head)

    def finish(self) -> None:
        """Note that no more bytes come."""
        if self.in_message and not self.broken:
            self.refuse(Refusal(400, "The request ended before it was complete.", code="bad_framing"))

    def refuse(self, refusal: Refusal) -> None:
        """Queue a refusal; nothing more is parsed."""
        self.broken = True
        self._body = []
        self.queue.append(refusal)

    # -- from the parser

    def on_message_begin(self) -> None:
        self._messages += 1
        self._in_head = self.in_message = True
        self._url = b""
        self._lines = []
        self._body = []
        self._body_size = self._head_size = self._unparsed_size = self._excess = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_size += len(url)
        if self._head_size > self._limits.head_bytes:
            self._stop(self._head_too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # A trailer: its bytes are counted as framing, and it never becomes a header.
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self._limits.head_bytes:
            self._stop(self._head_too_large())
        self._lines.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self._in_head = False
        parser = self._parser
        self._method = parser.get_method()
        refusal = self._check_head(self._method, parser.get_http_version())
        if refusal is not None:
            self._stop(refusal)
        self._upgrade = parser.should_upgrade()
        if self._upgrade:
            return
        self._unheld += self._head_size
        expectation = self._headers.get(b"expect")
        if expectation is not None and not self._http_10:
            if expectation.lower() != b"100-continue":
                self._stop(Refusal(417, "The only expectation that is served is 100-continue."))
            self.waits_for_continue = True

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        size = len(body)
        self._body_size += size
        self._piece_body += size
        self._unheld += size
        if self._body_size > self._limits.body_bytes:
            self._stop(self._too_large())
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._upgrade:
            return
        if not self._hold_new_bytes():
            self._stop(TOO_BUSY)
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        size = self._head_size + self._body_size
        keep_alive = not self._http_10 and self._parser.should_keep_alive()
        self.queue.append(
            Request(self._method, self._path, self._headers, body, keep_alive, self._http_10, size)
        )
        self._body = []
        self.in_message = self.waits_for_continue = False
        if len(self.queue) > self._limits.pipelined:
            self._stop(Refusal(400, "Too many requests were sent without waiting for an answer."))

    # -- inside

    def _read_by_known(self, data: bytes) -> bool:
        """Take the request that has the known head; False if the data is anything else."""
        assert self._known is not None, "tested by the caller, as this is on the way of each request"
        found = self._known.read(data, self._limits.body_bytes)
        if found is None:
            return False
        request, missing = found
        if not self._hold(request.size):
            self._hold(-request.size)
            return False
        self._vain = 0
        if missing:
            self._begun, self._missing = request, missing
            self._body = [request.body]
            self.in_message = True
        else:
            self.queue.append(request)
        return True

    def _read_body(self, request: Request, data: bytes) -> None:
        """Take more of the body of a request with the known head."""
        size = min(len(data), self._missing)
        self._body.append(data[:size])
        self._missing -= size
        request.size += size
        if not self._hold(size):
            self.refuse(TOO_BUSY)
            return
        if self._missing:
            return
        request.body = b"".join(self._body)
        self._body = []
        self._begun = None
        self.in_message = False
        self.queue.append(request)
        if len(data) > size:
            self.feed(data[size:])

    def _keep_head(self, head: bytes) -> None:
        """Keep the head of the request that has come, to recognize the next one by."""
        request = self.queue[-1]
        if isinstance(request, Request):
            self._vain += 1
            self._known = keep_head(head, request, self._head_size) or self._known

    def _hold_new_bytes(self) -> bool:
        """Count what has come of a request since the last time; once a piece, as it is done for each request."""
        size, self._unheld = self._unheld, 0
        return not size or self._hold(size)

    def _count_unparsed(self, size: int, was_in_head: bool) -> None:
        """Bound what llhttp gathers without a word: a header, a trailer or a chunk extension without end.

        As in Go's net/http, a chunk may cost 16 bytes of framing and twice its content. What exceeds that is summed
        up; a large body earns nothing for a trailer behind it.
        """
        if self._in_head:
            self._unparsed_size += size
            if self._unparsed_size > self._limits.head_bytes:
                self.refuse(self._head_too_large())
        elif not was_in_head:
            self._excess += size - 3 * self._piece_body - _CHUNK_FRAMING * self._chunks
            self._excess = max(0, self._excess)
            if self._excess > self._limits.head_bytes:
                limit = self._limits.head_bytes
                self.refuse(Refusal(431, f"Trailers and chunk extensions are over {limit} bytes."))

    def _check_head(self, method: bytes, version: str) -> Refusal | None:
        """Headers as a dictionary, or what is wrong with the head."""
        if version not in _VERSIONS:
            return Refusal(505, f"HTTP/{version} is not served here: use HTTP/1.1.")
        if method not in _METHODS:
            return Refusal(501, f"The method {method.decode()} is not served here.")
        self._http_10 = version == "1.0"
        self._path = _path(self._url)
        if not self._path.startswith(b"/") or b"#" in self._url:
            return Refusal(400, "The target of the request is not a path.", code="bad_framing")
        self._headers = headers = dict(self._lines)
        if len(headers) < len(self._lines):
            headers.clear()
            for name, value in self._lines:
                if name not in headers:
                    headers[name] = value
                elif name in _SINGLE_HEADERS:
                    return Refusal(400, f"The header {name.decode()} is there twice.", code="bad_framing")
                else:
                    headers[name] += (b"; " if name == b"cookie" else b", ") + value
        return self._check_framing(headers)

    def _check_framing(self, headers: dict[bytes, bytes]) -> Refusal | None:
        host = headers.get(b"host")
        if host is None and not self._http_10:
            return Refusal(400, "HTTP/1.1 needs the header host.", code="bad_framing")
        if host is not None and not _is_host(host):
            return Refusal(400, "The header host is not a host with an optional port.", code="bad_framing")
        encoding = headers.get(b"transfer-encoding")
        if encoding is not None:
            if self._http_10:
                return Refusal(400, "HTTP/1.0 has no transfer-encoding.", code="bad_framing")
            if encoding.lower() != b"chunked":
                return Refusal(501, "The only transfer-encoding that is served is chunked.")
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            return self._too_large()
        return None

    def _decline_upgrade(self, rest: bytes) -> None:
        """Ignore an upgrade to another protocol, as HTTP allows: parse the request again without it."""
        lines = []
        for name, value in self._lines:
            if name == b"connection":
                options = (option.strip(b" \t") for option in value.split(b","))
                value = b", ".join(option for option in options if option.lower() not in _UPGRADE_OPTIONS)
            if name not in _UPGRADE_OPTIONS:
                lines.append(b"%b: %b\r\n" % (name, value))
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self._url, version, b"".join(lines))
        self._parser = HttpRequestParser(self)
        self.feed(head + rest)

    def _stop(self, refusal: Refusal) -> None:
        self.refuse(refusal)
        raise _Stop

    def _head_too_large(self) -> Refusal:
        return Refusal(431, f"Request line and headers are over {self._limits.head_bytes} bytes.")

    def _too_large(self) -> Refusal:
        return Refusal(413, f"The request is over {self._limits.body_bytes} bytes: send a shorter one.")


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _path(target: bytes) -> bytes:
    """Path of a request's target, in origin form (``/path?query``) or absolute form (``http://host/path?query``)."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") and (origin := _ABSOLUTE_FORM.match(path)) is not None:
        path = path[origin.end() :] or b"/"
    return path
