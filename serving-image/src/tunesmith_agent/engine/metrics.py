"""Metrics of the engine: read by a session of their own, kept for a second, bounded."""

import asyncio
import math
import re

import aiohttp

from tunesmith_agent.http.address import Address

from .session import open_session

#: Scrapes within this time get the same answer; the engine sees one of them.
KEPT_SECONDS = 1.0
READ_SECONDS = 2.0
MAX_BYTES = 8 * 1024 * 1024

#: Counters that grow while the engine works: tokens read and generated, by all requests.
_TOKENS = re.compile(rb"^vllm:(?:prompt|generation)_tokens_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_WAITING = re.compile(rb"^vllm:num_requests_waiting(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


class EngineMetrics:
    """Reader of one engine's metrics; an async context manager.

    Control traffic to the engine has another session, so that no number of scrapes can hold it up.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._session: aiohttp.ClientSession | None = None
        self._reading: asyncio.Task[bytes] | None = None
        self._text = b""
        self._read_at = float("-inf")

    async def __aenter__(self) -> "EngineMetrics":
        self._session = open_session(self._address, 1)
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def read(self) -> bytes:
        """Metrics in Prometheus' text format, at most a second old; empty if the engine gives none in time."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._read_at < KEPT_SECONDS:
            return self._text
        if self._reading is None:
            self._reading = loop.create_task(self._fetch())
        return await asyncio.shield(self._reading)

    async def tokens(self) -> float | None:
        """Tokens that the engine has read and generated since its start; None if it does not say."""
        counts = _numbers(_TOKENS, await self.read())
        return sum(counts) if counts else None

    async def waiting(self) -> int:
        """Requests that wait in the engine until others have ended; 0 if it does not say."""
        return int(sum(_numbers(_WAITING, await self.read())))

    async def _fetch(self) -> bytes:
        assert self._session is not None, "use the reader as a context manager"
        timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
        try:
            async with self._session.get("/metrics", timeout=timeout) as response:
                text = await _read_bounded(response) if response.status == 200 else b""
        except (aiohttp.ClientError, TimeoutError):
            text = b""
        finally:
            self._reading = None
        self._text, self._read_at = text, asyncio.get_running_loop().time()
        return text


def _numbers(pattern: re.Pattern[bytes], text: bytes) -> list[float]:
    """Values of a metric; those that are no finite numbers, or below 0, count nothing and are left out."""
    numbers = []
    for value in pattern.findall(text):
        try:
            number = float(value)
        except ValueError:
            continue
        if 0 <= number < math.inf:
            numbers.append(number)
    return numbers


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """Body of an answer; empty if it is over the limit, as a part of it would be no valid text."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BYTES:
            return b""
    return b"".join(pieces)
