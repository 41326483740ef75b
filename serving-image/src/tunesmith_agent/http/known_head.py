"""Head of a request that is read once: the next request of a connection mostly has the same, but for its length.

A head that llhttp has read means the same whenever the same bytes come again. So a request with such a head needs no
parser; its body may come with it or later, as many clients write both one after the other. Everything else is left to
llhttp.
"""

from typing import Any

from .messages import Request

#: Largest head that is kept.
_KEPT_BYTES = 2048
#: Heads in a row that are kept in vain, as each next one was another one, before that is given up.
VAIN_HEADS = 8

#: Most digits of a content-length that is read without llhttp.
_LENGTH_DIGITS = 8
_LENGTH_HEADER = b"\r\ncontent-length:"
_HEAD_END = b"\r\n\r\n"


class KnownHead:
    """Head of the latest request with a body.

    Args:
        head: all bytes of the head, with its last line end.
        start, stop: where the digits of its content-length are.
        request: what llhttp made of it.
        size: bytes that are counted for the head.
    """

    __slots__ = ("_derived", "_heads", "_request", "_size", "_start", "_suffix_size")

    def __init__(self, head: bytes, start: int, stop: int, request: Request, size: int) -> None:
        # A head holds the key of its client, which may share the connection with others behind a proxy. Looked up by
        # its hash, it is compared with nothing that starts in the same way, so the time tells nothing about a key.
        self._heads = {head[:start] + head[stop:]}
        self._derived: dict[str, Any] = {}
        self._start = start
        self._suffix_size = len(head) - stop
        self._size = size - (stop - start)
        self._request = Request(
            request.method, request.path, {**request.headers}, b"", keep_alive=True, http_10=False, size=0
        )

    def read(self, data: bytes, largest: int) -> tuple[Request, int] | None:
        """Request that ``data`` begins, if it has this head, and the bytes of its body that are missing; else None.

        Args:
            largest: bytes that its body may have.
        """
        start = self._start
        stop = data.find(b"\r", start, start + _LENGTH_DIGITS + 1)
        if stop < 0:
            return None
        digits = data[start:stop]
        if not digits.isdigit():
            return None
        end = stop + self._suffix_size
        length, whole = len(data) - end, int(digits)
        if length > whole or whole > largest or data[:start] + data[stop:end] not in self._heads:
            return None
        known = self._request
        headers = known.headers.copy()
        headers[b"content-length"] = digits
        size = self._size + len(digits) + length
        # By position, as this is on the way of each request: kept alive, not of HTTP/1.0, of no client yet.
        request = Request(known.method, known.path, headers, data[end:], True, False, size, "", self._derived)
        return request, whole - length


def keep_head(head: bytes, request: Request, size: int) -> KnownHead | None:
    """Head to recognize the next one by; None where there is none that says all of a request.

    Args:
        head: all bytes up to the body.
        request: what llhttp made of it.
        size: bytes that are counted for the head.
    """
    headers = request.headers
    digits = headers.get(b"content-length")
    # A client that expects something waits for it before it sends a body.
    if digits is None or b"transfer-encoding" in headers or b"expect" in headers or not request.keep_alive:
        return None
    line = head.lower().find(_LENGTH_HEADER)
    start = head.find(digits, line + len(_LENGTH_HEADER))
    stop = start + len(digits)
    # Behind the body there may be empty lines, which belong to no request: then the place of the body is not known.
    is_whole = head.find(_HEAD_END) == len(head) - len(_HEAD_END)
    if not is_whole or line < 0 or head[stop : stop + 2] != b"\r\n" or len(head) > _KEPT_BYTES:
        return None
    return KnownHead(head, start, stop, request, size)
