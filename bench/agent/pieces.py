"""Load by a client that writes the head of a request and its body one after the other, as many libraries do.

    pieces.py URL MODEL KEY SECONDS PIECES

``PIECES`` is 2, or 1 for a client that writes both at once. Prints the number of answers, as JSON.
"""

import asyncio
import json
import sys
import time
from itertools import cycle
from typing import cast
from urllib.parse import urlsplit

import uvloop
from load import PATH, USERS, request_body

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has an answer."""

    def __init__(self, requests: list[tuple[bytes, ...]], until: float) -> None:
        self._requests = cycle(requests)
        self._until = until
        self._rest = b""
        self.answers = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(f"No answer: {self._rest[:500]!r}"))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        head, end, body = data.partition(_HEAD_END)
        self._rest = data
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self._transport.abort()
            return
        begin = head.find(_LENGTH) + len(_LENGTH)
        if len(body) < int(head[begin:].partition(b"\r\n")[0]):
            return
        self._rest = b""
        self.answers += 1
        if time.monotonic() < self._until:
            self._ask()
        else:
            self.ended.set_result(None)
            self._transport.close()

    def _ask(self) -> None:
        for piece in next(self._requests):
            self._transport.write(piece)


def build_requests(url: str, model: str, key: str, pieces: int) -> list[tuple[bytes, ...]]:
    """Requests of all users, each in its pieces."""
    found: list[tuple[bytes, ...]] = []
    for user in range(USERS):
        body = json.dumps(request_body(model, f"user-{user}")).encode()
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()
        found.append((head, body) if pieces == 2 else (head + body,))
    return found


async def ask(url: str, model: str, key: str, seconds: float, pieces: int) -> int:
    """Number of answers."""
    address = urlsplit(url)
    requests, until = build_requests(url, model, key, pieces), time.monotonic() + seconds
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(requests, until), address.hostname, address.port)
    await client.ended
    return client.answers


def main() -> None:
    """Ask and print."""
    url, model, key, seconds, pieces = sys.argv[1:]
    answers = uvloop.run(ask(url, model, key, float(seconds), int(pieces)))
    sys.stdout.write(json.dumps({"answers": answers}) + "\n")


if __name__ == "__main__":
    main()
