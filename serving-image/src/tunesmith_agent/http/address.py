"""Addresses of the servers that requests are passed to: a port of a host, or a socket in the file system."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Connection = TypeVar("Connection", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A port of a host."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """``http://host:port``; an address of IPv6 is in brackets there."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def connect(self, factory: Callable[[], Connection]) -> Connection:
        """A new connection.

        Raises:
            OSError: nothing accepts it.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(factory, self.host, self.port)
        return connection


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system, by its path of at most 107 bytes."""

    path: str

    async def connect(self, factory: Callable[[], Connection]) -> Connection:
        """A new connection.

        Raises:
            OSError: nothing accepts it.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(factory, self.path)
        return connection


Address = TcpAddress | UnixAddress
