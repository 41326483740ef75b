"""HTTP messages: requests, errors in OpenAI's form, heads of responses."""

import http
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import orjson

JSON_TYPE = b"content-type: application/json\r\n"


@dataclass(slots=True)
class Request:
    """One complete request.

    Attributes:
        path: path of the target, without its query.
        headers: values by name in lower case; those of a repeated header are joined. No trailers.
        size: bytes of head and body that are counted as kept in memory.
        client_name: name of the client, where clients have keys.
        derived: what was derived from the head alone, for the next requests of the connection with the same head; None
            if it is not kept.
    """

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    http_10: bool
    size: int
    client_name: str = ""
    derived: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Error answer; ``kind`` and ``code`` are OpenAI's, the message says what to do instead."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: bytes = b""

    def to_body(self) -> bytes:
        """Body ``{"error": …}`` as OpenAI clients read it."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus
}


#: Final statuses whose answers end with their head, whatever their headers say.
WITHOUT_BODY = frozenset((204, 304))


def status_line(status: int) -> bytes:
    """Status line ``HTTP/1.1 <status> <phrase>``, with its line end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


def date_header() -> bytes:
    """Header line ``date`` with the current time."""
    return b"date: " + formatdate(time.time(), usegmt=True).encode() + b"\r\n"
