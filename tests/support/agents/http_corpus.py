"""Byte streams that servers and proxies have read differently, each with the number of requests that must be served.

Sources: RFC 9110 and 9112; the request-smuggling cases of PortSwigger (CL.TE, TE.CL, TE.TE, CL.0), of the HTTP Garden
and of the advisories of Node.js, Go's net/http, aiohttp, gunicorn and waitress.
"""

from typing import NamedTuple


class Case(NamedTuple):
    """One stream; ``served`` requests of it reach the handler, and then the connection refuses, waits or ends."""

    name: str
    stream: bytes
    served: int


def request(
    *headers: bytes, body: bytes = b"", start: bytes = b"POST /a HTTP/1.1", host: bytes = b"Host: x\r\n"
) -> bytes:
    """Request with complete header lines but for their ends."""
    return start + b"\r\n" + host + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + body


def chunked(body: bytes, encoding: bytes = b"Transfer-Encoding: chunked", *headers: bytes) -> bytes:
    """Chunked request with its body as it is on the wire."""
    return request(encoding, *headers, body=body)


NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
END = b"0\r\n\r\n"
HELLO = b"5\r\nhello\r\n"

FRAMING = [
    Case("content-length", request(b"Content-Length: 5", body=b"hello"), 1),
    Case("content-length 0", request(b"Content-Length: 0") + NEXT, 2),
    Case("content-length in capitals", request(b"CONTENT-LENGTH: 5", body=b"hello") + NEXT, 2),
    Case("no length", request() + NEXT, 2),
    Case("GET with a body", request(b"Content-Length: 5", body=b"hello", start=b"GET / HTTP/1.1") + NEXT, 2),
    Case(
        "HEAD with a body", request(b"Content-Length: 5", body=b"hello", start=b"HEAD / HTTP/1.1") + NEXT, 2
    ),
    Case(
        "DELETE with a body", request(b"Content-Length: 1", body=b"x", start=b"DELETE / HTTP/1.1") + NEXT, 2
    ),
    Case("body is a request (CL.0)", request(b"Content-Length: 34", body=NEXT + b"...") + NEXT, 2),
    Case("leading zeros in content-length", request(b"Content-Length: 0005", body=b"hello") + NEXT, 2),
    Case("space after content-length", request(b"Content-Length: 5 \t", body=b"hello") + NEXT, 2),
    Case("two content-lengths", request(b"Content-Length: 5", b"Content-Length: 0", body=b"hello"), 0),
    Case("two equal content-lengths", request(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), 0),
    Case("list of content-lengths", request(b"Content-Length: 5, 5", body=b"hello"), 0),
    Case("signed content-length", request(b"Content-Length: +5", body=b"hello"), 0),
    Case("negative content-length", request(b"Content-Length: -1"), 0),
    Case("hexadecimal content-length", request(b"Content-Length: 0x5", body=b"hello"), 0),
    Case("content-length with underscore", request(b"Content-Length: 1_0", body=b"hellohello"), 0),
    Case("content-length with decimals", request(b"Content-Length: 5.0", body=b"hello"), 0),
    Case("content-length with exponent", request(b"Content-Length: 5e0", body=b"hello"), 0),
    Case("content-length in other digits", request(b"Content-Length: \xd9\xa5", body=b"hello"), 0),
    Case("empty content-length", request(b"Content-Length:") + NEXT, 0),
    Case("huge content-length", request(b"Content-Length: 18446744073709551621", body=b"hello"), 0),
    Case("content-length over the limit", request(b"Content-Length: 4000000000"), 0),
    Case("quoted content-length", request(b'Content-Length: "5"', body=b"hello"), 0),
    Case("content-length with a space inside", request(b"Content-Length: 1 0", body=b"hellohello"), 0),
    Case("body that is cut off", request(b"Content-Length: 50", body=b"hello"), 0),
]

CHUNKS = [
    Case("chunked", chunked(HELLO + END), 1),
    Case("chunked and another", chunked(HELLO + END) + NEXT, 2),
    Case("chunked in capitals", chunked(HELLO + END, b"Transfer-Encoding: Chunked") + NEXT, 2),
    Case("chunk sizes in capitals", chunked(b"A\r\nhellohello\r\n" + END) + NEXT, 2),
    Case("leading zeros in a chunk size", chunked(b"0005\r\nhello\r\n" + END) + NEXT, 2),
    Case("several zeros end it", chunked(HELLO + b"000\r\n\r\n") + NEXT, 2),
    Case("chunk extension", chunked(b"5;a=b\r\nhello\r\n" + END) + NEXT, 2),
    Case("quoted chunk extension", chunked(b'5;a="b;c"\r\nhello\r\n' + END) + NEXT, 2),
    Case("extension of the last chunk", chunked(HELLO + b"0;a=b\r\n\r\n") + NEXT, 2),
    Case("line end in a chunk extension", chunked(b"5;a=b\nx\r\nhello\r\n" + END), 0),
    Case("return in a chunk extension", chunked(b"5;a=b\rx\r\nhello\r\n" + END), 0),
    Case("line end alone after a size", chunked(b"5\nhello\r\n" + END), 0),
    Case("line end alone after a chunk", chunked(b"5\r\nhello\n" + END), 0),
    Case("no line end after a chunk", chunked(b"5\r\nhello0\r\n\r\n"), 0),
    Case("chunk longer than its size", chunked(b"4\r\nhello\r\n" + END), 0),
    Case("chunk shorter than its size", chunked(b"6\r\nhello\r\n" + END), 0),
    Case("signed chunk size", chunked(b"+5\r\nhello\r\n" + END), 0),
    Case("negative chunk size", chunked(b"-5\r\nhello\r\n" + END), 0),
    Case("chunk size with 0x", chunked(b"0x5\r\nhello\r\n" + END), 0),
    Case("chunk size with underscore", chunked(b"0_5\r\nhello\r\n" + END), 0),
    Case("space before a chunk size", chunked(b" 5\r\nhello\r\n" + END), 0),
    Case("empty chunk size", chunked(b"\r\nhello\r\n" + END), 0),
    Case("extension without a size", chunked(b";a=b\r\nhello\r\n" + END), 0),
    Case("chunk size of 17 digits", chunked(b"00000000000000005\r\nhello\r\n" + END), 1),
    Case("chunk size that overflows", chunked(b"10000000000000005\r\nhello\r\n" + END), 0),
    Case("chunk over the limit", chunked(b"ffffffff\r\nhello"), 0),
    Case("no last chunk", chunked(HELLO), 0),
    Case("trailer", chunked(HELLO + b"0\r\nX-Checksum: 1\r\n\r\n") + NEXT, 2),
    Case(
        "trailer with a name of a header",
        chunked(
            HELLO + b"0\r\nX-Request-Id: forged\r\n\r\n", b"Transfer-Encoding: chunked", b"X-Request-Id: real"
        )
        + NEXT,
        2,
    ),
    Case("trailer with authorization", chunked(HELLO + b"0\r\nAuthorization: forged\r\n\r\n") + NEXT, 2),
    Case("trailer with a length", chunked(HELLO + b"0\r\nContent-Length: 3\r\n\r\n") + NEXT, 0),
    Case("trailer with an encoding", chunked(HELLO + b"0\r\nTransfer-Encoding: chunked\r\n\r\n") + NEXT, 0),
    Case("trailer with a host", chunked(HELLO + b"0\r\nHost: evil\r\n\r\n") + NEXT, 2),
    Case("trailer that closes", chunked(HELLO + b"0\r\nConnection: close\r\n\r\n") + NEXT, 1),
    Case("trailer without a colon", chunked(HELLO + b"0\r\nnonsense\r\n\r\n"), 0),
    Case("folded trailer", chunked(HELLO + b"0\r\nA: b\r\n c\r\n\r\n"), 0),
    Case("long trailer", chunked(HELLO + b"0\r\nA: " + b"x" * 100_000 + b"\r\n\r\n"), 0),
    Case("many trailers", chunked(HELLO + b"0\r\n" + b"A: b\r\n" * 20_000 + b"\r\n"), 0),
    Case("long chunk extension", chunked(b"5;" + b"x" * 100_000 + b"\r\nhello\r\n" + END), 0),
    Case("many chunk extensions", chunked((b"1;" + b"x" * 5_000 + b"\r\na\r\n") * 20 + END), 0),
]

BOTH = [
    Case(
        "content-length and chunked (CL.TE)",
        chunked(END + b"G", b"Transfer-Encoding: chunked", b"Content-Length: 6"),
        0,
    ),
    Case(
        "chunked and content-length (TE.CL)",
        request(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=HELLO + END),
        0,
    ),
    Case(
        "two encodings (TE.TE)",
        request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=HELLO + END),
        0,
    ),
    Case(
        "two encodings, the last is chunked",
        request(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=HELLO + END),
        0,
    ),
    Case(
        "chunked twice",
        request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=HELLO + END),
        0,
    ),
    Case("chunked in a list twice", chunked(HELLO + END, b"Transfer-Encoding: chunked, chunked"), 0),
    Case("gzip, chunked", chunked(HELLO + END, b"Transfer-Encoding: gzip, chunked"), 0),
    Case("chunked, gzip", chunked(HELLO + END, b"Transfer-Encoding: chunked, gzip"), 0),
    Case("identity", request(b"Transfer-Encoding: identity", b"Content-Length: 5", body=b"hello"), 0),
    Case("empty encoding", request(b"Transfer-Encoding:", b"Content-Length: 5", body=b"hello"), 0),
    Case("xchunked", chunked(HELLO + END, b"Transfer-Encoding: xchunked"), 0),
    Case("chunkedx", chunked(HELLO + END, b"Transfer-Encoding: chunkedx"), 0),
    Case("quoted chunked", chunked(HELLO + END, b'Transfer-Encoding: "chunked"'), 0),
    Case("chunked with a parameter", chunked(HELLO + END, b"Transfer-Encoding: chunked;q=1"), 0),
    Case("tab before chunked", chunked(HELLO + END, b"Transfer-Encoding:\tchunked") + NEXT, 2),
    Case("vertical tab before chunked", chunked(HELLO + END, b"Transfer-Encoding: \x0bchunked"), 0),
    Case("space before the colon", chunked(HELLO + END, b"Transfer-Encoding : chunked"), 0),
    Case("space before the name", request(b"X: y", b" Transfer-Encoding: chunked", body=HELLO + END), 0),
    Case("folded encoding", chunked(HELLO + END, b"Transfer-Encoding:\r\n chunked"), 0),
    Case("line end inside the encoding", chunked(HELLO + END, b"Transfer-Encoding: \nchunked"), 0),
    Case("encoding after a bare line end", request(b"X: y\nTransfer-Encoding: chunked", body=HELLO + END), 0),
    Case("encoding after a bare return", request(b"X: y\rTransfer-Encoding: chunked", body=HELLO + END), 0),
    Case("encoding with a NUL", chunked(HELLO + END, b"Transfer-Encoding: chunked\0"), 0),
    Case("encoding with an accent", chunked(HELLO + END, b"Transfer-Encoding: chunk\xc3\xa9d"), 0),
    Case("name with underscore is another", request(b"Transfer_Encoding: chunked") + NEXT, 2),
    Case(
        "chunked in HTTP/1.0",
        request(b"Transfer-Encoding: chunked", body=HELLO + END, start=b"POST / HTTP/1.0"),
        0,
    ),
    Case(
        "both in HTTP/1.0",
        request(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"hello", start=b"POST / HTTP/1.0"),
        0,
    ),
]

LINES = [
    Case("empty line first", b"\r\n" + NEXT, 1),
    Case("empty lines between", NEXT + b"\r\n\r\n" + NEXT, 2),
    Case("return and line end first", b"\r\n\n\r" + NEXT, 1),
    Case("space first", b" " + NEXT, 0),
    Case("line ends alone", b"GET / HTTP/1.1\nHost: x\n\n", 0),
    Case("line end alone after the request line", b"GET / HTTP/1.1\nHost: x\r\n\r\n", 0),
    Case("line end alone at the end", b"GET / HTTP/1.1\r\nHost: x\r\n\n", 0),
    Case("returns alone", b"GET / HTTP/1.1\rHost: x\r\r", 0),
    Case("two returns", b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", 0),
    Case("two spaces before the target", request(start=b"GET  / HTTP/1.1") + NEXT, 2),
    Case("two spaces before the version", request(start=b"GET /  HTTP/1.1") + NEXT, 2),
    Case("space after the version", request(start=b"GET / HTTP/1.1 "), 0),
    Case("tab for a space", request(start=b"GET\t/ HTTP/1.1"), 0),
    Case("space in the target", request(start=b"GET /a b HTTP/1.1"), 0),
    Case("NUL in the target", request(start=b"GET /\0 HTTP/1.1"), 0),
    Case("accent in the target", request(start=b"GET /\xc3\xa9 HTTP/1.1"), 0),
    Case("DEL in the target", request(start=b"GET /\x7f HTTP/1.1"), 0),
    Case("query", request(start=b"GET /a?b=c&d=%20 HTTP/1.1"), 1),
    Case("fragment", request(start=b"GET /a#b HTTP/1.1"), 0),
    Case("another scheme", request(start=b"GET ftp://x/a HTTP/1.1"), 0),
    Case("absolute form without host", request(start=b"GET http:///a HTTP/1.1"), 0),
    Case("path without a slash", request(start=b"GET a HTTP/1.1"), 0),
    Case("backslash", request(start=b"GET \\a HTTP/1.1"), 0),
    Case("absolute form", request(start=b"GET http://x:80/a?b HTTP/1.1") + NEXT, 2),
    Case("absolute form without path", request(start=b"GET http://x HTTP/1.1"), 1),
    Case("absolute form with another host", request(start=b"GET http://other/a HTTP/1.1"), 1),
    Case("asterisk", request(start=b"OPTIONS * HTTP/1.1"), 0),
    Case("no target", b"GET HTTP/1.1\r\nHost: x\r\n\r\n", 0),
    Case("no version", b"GET /\r\nHost: x\r\n\r\n", 0),
    Case("HTTP/0.9", b"GET /\r\n\r\n", 0),
    Case("version 0.9", request(start=b"GET / HTTP/0.9"), 0),
    Case("version 1.0", request(start=b"GET / HTTP/1.0"), 1),
    Case("version 1.0 without a host", request(start=b"GET / HTTP/1.0", host=b""), 1),
    Case(
        "version 1.0 keeps nothing alive",
        request(b"Connection: keep-alive", start=b"GET / HTTP/1.0") + NEXT,
        1,
    ),
    Case("version 1.2", request(start=b"GET / HTTP/1.2"), 0),
    Case("version 2.0", request(start=b"GET / HTTP/2.0"), 0),
    Case("version 3", request(start=b"GET / HTTP/3"), 0),
    Case("version 11", request(start=b"GET / HTTP/1.11"), 0),
    Case("version in small letters", request(start=b"GET / http/1.1"), 0),
    Case("version with a comma", request(start=b"GET / HTTP/1,1"), 0),
    Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0),
    Case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0),
    Case("PROXY protocol", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n" + NEXT, 0),
    Case("RTSP", b"DESCRIBE /a RTSP/1.0\r\n\r\n", 0),
    Case("RTSP with a method of HTTP", b"OPTIONS /a RTSP/1.0\r\n\r\n", 0),
    Case("ICE", b"SOURCE /a ICE/1.0\r\n\r\n", 0),
    Case("unknown method", request(start=b"BREW / HTTP/1.1"), 0),
    Case("method in small letters", request(start=b"get / HTTP/1.1"), 0),
    Case("method with a colon", request(start=b"GE:T / HTTP/1.1"), 0),
    Case("CONNECT", request(start=b"CONNECT x:443 HTTP/1.1"), 0),
]

HEADERS = [
    Case("no host", request(host=b""), 0),
    Case("two hosts", request(b"Host: y"), 0),
    Case("two equal hosts", request(b"Host: x"), 0),
    Case("two hosts in HTTP/1.0", request(b"Host: y", start=b"GET / HTTP/1.0"), 0),
    Case("empty host", request(host=b"Host:\r\n"), 1),
    Case("host with port", request(host=b"Host: a.example:8000\r\n"), 1),
    Case("IPv6 host", request(host=b"Host: [::1]:80\r\n"), 1),
    Case("host with a path", request(host=b"Host: x/evil\r\n"), 0),
    Case("host with a user", request(host=b"Host: a@b\r\n"), 0),
    Case("host with a space", request(host=b"Host: a b\r\n"), 0),
    Case("list of hosts", request(host=b"Host: a, b\r\n"), 0),
    Case("host with a port that is none", request(host=b"Host: a:b\r\n"), 0),
    Case("two content types", request(b"Content-Type: a/b", b"Content-Type: c/d"), 0),
    Case("two authorizations", request(b"Authorization: a", b"Authorization: b"), 0),
    Case("repeated header", request(b"X-A: 1", b"x-a: 2", b"X-A:3"), 1),
    Case("repeated cookies", request(b"Cookie: a=1", b"Cookie: b=2"), 1),
    Case("empty header", request(b"X-A:", b"X-B: "), 1),
    Case("spaces around a value", request(b"X-A:  \t 1 2 \t "), 1),
    Case("colons in a value", request(b"X-A: b: c"), 1),
    Case("bytes above 127 in a value", request(b"X-A: caf\xe9 \xff"), 1),
    Case("line end in a value", request(b"X-A: b\nc"), 0),
    Case("return in a value", request(b"X-A: b\rc"), 0),
    Case("NUL in a value", request(b"X-A: b\0c"), 0),
    Case("control character in a value", request(b"X-A: b\x01c"), 0),
    Case("DEL in a value", request(b"X-A: b\x7fc"), 0),
    Case("folded value", request(b"X-A: b", b" c"), 0),
    Case("folded first header", b"GET / HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n", 0),
    Case("no colon", request(b"nonsense"), 0),
    Case("no name", request(b": x"), 0),
    Case("space in a name", request(b"X A: b"), 0),
    Case("space after a name", request(b"X-A : b"), 0),
    Case("tab after a name", request(b"X-A\t: b"), 0),
    Case("NUL in a name", request(b"X\0A: b"), 0),
    Case("accent in a name", request(b"X-\xe9: b"), 0),
    Case("parenthesis in a name", request(b"X(A): b"), 0),
    Case("every character of a token", request(b"!#$%&'*+-.^_`|~09azAZ: b"), 1),
    Case("long header", request(b"X-A: " + b"a" * 20_000), 1),
    Case("header over the limit", request(b"X-A: " + b"a" * 60_000), 0),
    Case("headers over the limit", request(*[b"A: b"] * 20_000), 0),
    Case("header without end", b"GET / HTTP/1.1\r\nX-A: " + b"a" * 60_000, 0),
    Case("target without end", b"GET /" + b"a" * 60_000, 0),
    Case("head that is cut off", b"GET / HTTP/1.1\r\nHost: x\r\n", 0),
]

LIFE = [
    Case("close", request(b"Connection: close") + NEXT, 1),
    Case("close in capitals", request(b"Connection: CLOSE") + NEXT, 1),
    Case("close in a list", request(b"Connection: foo, close") + NEXT, 1),
    Case("close in a second header", request(b"Connection: foo", b"Connection: close") + NEXT, 1),
    Case("close and keep-alive", request(b"Connection: keep-alive, close") + NEXT, 1),
    Case("keep-alive", request(b"Connection: keep-alive") + NEXT, 2),
    Case("upgrade", request(b"Connection: Upgrade", b"Upgrade: h2c") + NEXT, 2),
    Case(
        "upgrade with a body",
        request(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AA",
            b"Content-Length: 5",
            body=b"hello",
        )
        + NEXT,
        2,
    ),
    Case(
        "upgrade with a chunked body",
        chunked(HELLO + END, b"Transfer-Encoding: chunked", b"Connection: upgrade", b"Upgrade: websocket")
        + NEXT,
        2,
    ),
    Case("upgrade and close", request(b"Connection: upgrade, close", b"Upgrade: h2c") + NEXT, 1),
    Case(
        "upgrade, and close in another header",
        request(b"Connection: upgrade", b"Connection: close", b"Upgrade: h2c") + NEXT,
        1,
    ),
    Case("upgrade without its option", request(b"Upgrade: h2c") + NEXT, 2),
    Case(
        "upgrade in HTTP/1.0", request(b"Connection: upgrade", b"Upgrade: h2c", start=b"POST / HTTP/1.0"), 1
    ),
    Case(
        "upgrade with two lengths",
        request(
            b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 5", b"Content-Length: 0", body=b"hello"
        ),
        0,
    ),
    Case("upgrade with two hosts", request(b"Connection: upgrade", b"Upgrade: h2c", b"Host: y"), 0),
    Case("expectation", request(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello") + NEXT, 2),
    Case(
        "expectation in capitals",
        request(b"Expect: 100-Continue", b"Content-Length: 5", body=b"hello") + NEXT,
        2,
    ),
    Case("expectation without a body", request(b"Expect: 100-continue") + NEXT, 2),
    Case(
        "expectation and upgrade",
        request(
            b"Expect: 100-continue",
            b"Connection: upgrade",
            b"Upgrade: h2c",
            b"Content-Length: 5",
            body=b"hello",
        )
        + NEXT,
        2,
    ),
    Case(
        "expectation in HTTP/1.0",
        request(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello", start=b"POST / HTTP/1.0"),
        1,
    ),
    Case("another expectation", request(b"Expect: 200-ok", b"Content-Length: 5", body=b"hello"), 0),
    Case("three in a row", NEXT * 3, 3),
    Case("garbage behind", NEXT + b"\x00\x01", 1),
    Case("nonsense behind", NEXT + b"nonsense\r\n\r\n", 1),
]

CORPUS = [*FRAMING, *CHUNKS, *BOTH, *LINES, *HEADERS, *LIFE]
