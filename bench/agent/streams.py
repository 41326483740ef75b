"""What a stream's tokens cost on their way: the engine's stand-in writes into each when it was sent.

    streams.py URL MODEL KEY SECONDS

Prints the latencies of tokens in microseconds, as JSON.
"""

import asyncio
import json
import re
import statistics
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop
from load import PATH, request_body

STREAMS = 16
#: Between the first requests of two streams, so that tokens do not come all at once.
STAGGER_SECONDS = 0.0003
_SENT_AT = re.compile(rb'"content": ?"(\d{12,})"')
_END = b"0\r\n\r\n"


class Stream(asyncio.Protocol):
    """One connection that asks for a stream again and again."""

    def __init__(self, request: bytes, until: float, latencies: list[int]) -> None:
        self._request = request
        self._until = until
        self._latencies = latencies
        self._rest = b""
        self._has_begun = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(f"The stream broke off: {self._rest[-500:]!r}"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self._has_begun and not data.startswith(b"HTTP/1.1 200 "):
            self._rest = data
            self._transport.abort()
            return
        self._has_begun = True
        data = self._rest + data
        end = 0
        for match in _SENT_AT.finditer(data):
            self._latencies.append(now - int(match[1]))
            end = match.end()
        self._rest = data[end:]
        if not self._rest.endswith(_END):
            return
        self._rest = b""
        self._has_begun = False
        if time.monotonic() < self._until:
            self._transport.write(self._request)
        else:
            self.ended.set_result(None)
            self._transport.close()


async def ask(url: str, model: str, key: str, seconds: float) -> list[int]:
    """Latency of each token, in nanoseconds."""
    address = urlsplit(url)
    body = json.dumps({**request_body(model, "user-1"), "stream": True}).encode()
    request = (
        f"POST {PATH} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
    loop, latencies, ends = asyncio.get_running_loop(), [], []
    for _ in range(STREAMS):
        _, stream = await loop.create_connection(
            lambda: Stream(request, time.monotonic() + seconds, latencies), address.hostname, address.port
        )
        ends.append(stream.ended)
        await asyncio.sleep(STAGGER_SECONDS)
    await asyncio.gather(*ends)
    return latencies


def main() -> None:
    """Ask and print."""
    url, model, key, seconds = sys.argv[1:]
    latencies = uvloop.run(ask(url, model, key, float(seconds)))
    quantiles = statistics.quantiles(latencies, n=100)
    figures = {
        "tokens": len(latencies),
        "p50Microseconds": round(quantiles[49] / 1e3, 1),
        "p99Microseconds": round(quantiles[98] / 1e3, 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
