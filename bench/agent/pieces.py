"""Load by clients that write the head of a request and its body one after the other, as most libraries do.

    pieces.py URL MODEL KEY CONNECTIONS SECONDS PIECES

``PIECES`` is 2, or 1 for clients that write both at once. Prints the number of answers, as JSON.
"""

import asyncio
import json
import sys
import time
from itertools import count
from typing import cast
from urllib.parse import urlsplit

import uvloop
from load import PATH, USERS, request_body

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has an answer."""

    def __init__(self, requests: list[tuple[bytes, ...]], first: int, until: float) -> None:
        self._requests = requests
        self._turn = count(first)
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
        begin = head.find(_LENGTH) + len(_LENGTH)
        if not end or len(body) < int(head[begin:].partition(b"\r\n")[0]):
            self._rest = data
            return
        self._rest = b""
        if not head.startswith(b"HTTP/1.1 200 "):
            self._rest = data
            self._transport.abort()
            return
        self.answers += 1
        if time.monotonic() < self._until:
            self._ask()
        else:
            self.ended.set_result(None)
            self._transport.close()

    def _ask(self) -> None:
        for piece in self._requests[next(self._turn) % len(self._requests)]:
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


async def ask(url: str, model: str, key: str, connections: int, seconds: float, pieces: int) -> int:
    """Number of answers."""
    address = urlsplit(url)
    requests = build_requests(url, model, key, pieces)
    until = time.monotonic() + seconds
    loop, clients = asyncio.get_running_loop(), []
    for number in range(connections):
        _, client = await loop.create_connection(
            lambda number=number: Client(requests, 61 * number, until), address.hostname, address.port
        )
        clients.append(client)
    await asyncio.gather(*(client.ended for client in clients))
    return sum(client.answers for client in clients)


if __name__ == "__main__":
    _url, _model, _key, _connections, _seconds, _pieces = sys.argv[1:]
    answers = uvloop.run(ask(_url, _model, _key, int(_connections), float(_seconds), int(_pieces)))
    print(json.dumps({"answers": answers}))
