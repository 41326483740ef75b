"""One request on its way over a connection of a pool."""

import asyncio
from abc import ABC, abstractmethod

from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.messages import Request
from tunesmith_agent.http.upstream import UpstreamConnection, UpstreamPool

_ID, _TRACE, _STATE = b"x-request-id", b"traceparent", b"tracestate"


class Passing(ABC):
    """Connection of one request; everything happens in callbacks, so that a request needs no task."""

    __slots__ = ("_client", "_connecting", "_pool", "_upstream")

    def __init__(self, pool: UpstreamPool, client: ServerConnection) -> None:
        self._pool = pool
        self._client = client
        self._upstream: UpstreamConnection | None = None
        self._connecting: asyncio.Task[UpstreamConnection] | None = None

    # -- from the client's connection

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    # -- inside

    @abstractmethod
    def _send(self, upstream: UpstreamConnection) -> None:
        """Send the request."""

    @abstractmethod
    def _not_connected(self) -> None:
        """Note that there is no connection, so that nothing was sent."""

    def _open(self) -> None:
        """Send on an idle connection if there is one, else on a new one."""
        if (upstream := self._pool.take()) is not None:
            self._send(upstream)
        else:
            self._connecting = self._client.loop.create_task(self._pool.connect())
            self._connecting.add_done_callback(self._connected)

    def _connected(self, connecting: asyncio.Task[UpstreamConnection]) -> None:
        self._connecting = None
        if connecting.cancelled():
            return
        if connecting.exception() is not None:
            self._not_connected()
            return
        self._send(connecting.result())

    def _drop_upstream(self) -> None:
        if self._connecting is not None:
            self._connecting.remove_done_callback(self._connected)
            self._connecting.add_done_callback(_close_late)
            self._connecting.cancel()
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None


def passed_headers(request: Request) -> bytes:
    """Lines of the headers of a request that are passed on."""
    headers = request.headers
    lines = b"x-request-id: %b\r\n" % headers[_ID] if _ID in headers else b""
    if _TRACE in headers:
        lines += b"traceparent: %b\r\n" % headers[_TRACE]
    if _STATE in headers:
        lines += b"tracestate: %b\r\n" % headers[_STATE]
    return lines


def _close_late(connecting: asyncio.Task[UpstreamConnection]) -> None:
    """Close a connection that was made after its request had ended."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
