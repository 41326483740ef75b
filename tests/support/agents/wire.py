"""A client of the agent that writes bytes and reads answers."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agents.agent_harness import Running

MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
ASK: dict[str, object] = {"model": "expenses", "messages": [{"role": "user", "content": "Lunch"}]}


def post(body: bytes | dict[str, object] = ASK, *extra: str, path: str = "/v1/chat/completions") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *extra]
    if not any(line.startswith("Transfer-Encoding") for line in extra):
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        text: str = json.loads(self.body)["error"]["message"]
        return text


class Wire:
    """A client that writes bytes and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> Answer:
        status, headers = await self.head()
        if "content-length" in headers:
            return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))
        body = b""
        while piece := await self.chunk():
            body += piece
        return Answer(status, headers, body)

    async def ask(self, request: bytes) -> Answer:
        self.writer.write(request)
        return await self.answer()


@asynccontextmanager
async def connect(
    running: Running, *, small_buffers: bool = False, port: int = 0, address: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    client = socket.socket()
    client.bind((address, 0))
    client.setblocking(False)
    if small_buffers:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port or running.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1024 if small_buffers else 2**16)
    try:
        async with asyncio.timeout(15):
            yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def once(running: Running, request: bytes) -> Answer:
    async with connect(running) as wire:
        return await wire.ask(request)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)
