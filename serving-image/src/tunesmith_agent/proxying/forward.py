"""Forwarding of one request to the engine, and of the answer to the client."""

import asyncio
from collections.abc import Callable

from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.messages import JSON_TYPE, Refusal, Request
from tunesmith_agent.http.upstream import UpstreamConnection, UpstreamPool
from tunesmith_agent.metrics import RequestCounters
from tunesmith_agent.routing.table import Target

#: Request headers that are passed to the engine.
_PASSED_HEADERS = (b"x-request-id", b"traceparent", b"tracestate")

#: Headers of the engine's answer that the client gets to see.
ENGINE_HEADERS = (b"content-type", b"x-request-id", b"retry-after")

#: The engine has each version that is routed to, unless it was restarted a moment ago.
_NOT_FOUND = 404


class Forward:
    """One forwarded request; everything happens in callbacks, so that a request needs no task.

    Args:
        on_engine_failure: answers the client when the request never reached a version: the engine accepts no
            connection, or does not have the version.
        abandoned_seconds: see ``Limits``.
        key: sticky key of the client, as a number; None if it was not needed.
    """

    __slots__ = (
        "_abandoned_seconds", "_begun_at", "_client", "_connecting", "_data_at", "_head_at", "_key", "_not_found",
        "_on_engine_failure", "_pool", "_request", "_stats", "_status", "_target", "_upstream",
    )  # fmt: skip

    def __init__(
        self,
        pool: UpstreamPool,
        client: ServerConnection,
        target: Target,
        request: bytes,
        on_engine_failure: Callable[[ServerConnection], None],
        abandoned_seconds: float,
        key: int | None,
    ) -> None:
        self._on_engine_failure = on_engine_failure
        self._abandoned_seconds = abandoned_seconds
        self._key = key
        self._pool = pool
        self._client = client
        self._target = target
        self._stats: RequestCounters = target.stats
        self._request = request
        self._upstream: UpstreamConnection | None = None
        self._connecting: asyncio.Task[UpstreamConnection] | None = None
        self._not_found = False
        self._status = 0
        self._begun_at = self._data_at = client.loop.time()
        self._head_at = 0.0

    def start(self) -> None:
        """Send the request, on an idle connection if there is one."""
        self._client.exchange = self
        self._stats.begin()
        if (upstream := self._pool.take()) is not None:
            self._send(upstream)
        else:
            self._connect()

    # -- from the client's connection

    def client_lost(self) -> None:
        """Close the connection to the engine, which then stops generating."""
        self._drop_upstream()
        now = self._client.loop.time()
        # A client that reads slowly holds the answer back itself.
        abandoned = now - self._data_at >= self._abandoned_seconds and not self._client.paused
        self._stats.count_disconnect(now, self._key, abandoned=abandoned)

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    def timed_out(self) -> None:
        self._drop_upstream()
        self._fail(
            Refusal(504, "The engine was silent for too long.", kind="server_error", code="engine_timeout")
        )

    # -- from the engine's connection

    def on_continue(self) -> None:
        """No effect: the request was sent as a whole."""

    def on_head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        if status == _NOT_FOUND:
            self._not_found = True
            return
        self._status = status
        # It keeps the request, which no other pod will be asked for any more.
        self._on_engine_failure = _do_nothing
        self._head_at = self._client.loop.time()
        self._client.begin(status, self._head_lines(headers), length)

    def on_data(self, data: bytes) -> None:
        self._data_at = self._client.loop.time()
        if not self._not_found:
            self._client.send(data)

    def on_pause(self) -> None:
        if self._status:
            self._client.flush()

    def on_end(self) -> None:
        self._upstream = None
        if self._not_found:
            self._stats.count_refused()
            self._on_engine_failure(self._client)
            return
        self._count(broken=False)
        self._client.end()

    def on_lost(self) -> None:
        """Fail: the request was sent, so nobody knows what the engine did with it, and it is not sent again."""
        self._upstream = None
        if self._status:
            self._client.flush()
            self._cut()
        else:
            message = "The engine closed the connection without an answer."
            self._fail(Refusal(502, message, kind="server_error", code="engine_failed"))

    # -- inside

    def _connect(self) -> None:
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

    def _not_connected(self) -> None:
        self._stats.count_engine_lost()
        self._on_engine_failure(self._client)

    def _head_lines(self, headers: dict[bytes, bytes]) -> bytes:
        """Header lines of the answer, for the client."""
        lines = [b"%b: %b\r\n" % (name, headers[name]) for name in ENGINE_HEADERS if name in headers]
        return self._target.headers + b"".join(lines)

    def _send(self, upstream: UpstreamConnection) -> None:
        self._upstream = upstream
        upstream.send(self, self._request)
        self._request = b""
        if self._client.paused:
            upstream.pause()

    def _drop_upstream(self) -> None:
        if self._connecting is not None:
            self._connecting.remove_done_callback(self._connected)
            self._connecting.add_done_callback(_close_late)
            self._connecting.cancel()
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    def _fail(self, refusal: Refusal) -> None:
        """Answer with an error, or cut the connection if a part of the answer was sent already."""
        if self._status:
            self._cut()
            return
        self._status = refusal.status
        self._head_at = self._client.loop.time()
        self._count(broken=True)
        body = refusal.to_body()
        self._client.respond(refusal.status, self._target.headers + JSON_TYPE, body)

    def _cut(self) -> None:
        """End the connection so that the client can't take a partial answer for a whole one."""
        self._client.exchange = None
        self._count(broken=True)
        self._client.cut()

    def _count(self, *, broken: bool) -> None:
        now = self._client.loop.time()
        self._stats.finish(self._status, self._begun_at, self._head_at, now, self._key, broken=broken)


def _do_nothing(client: ServerConnection) -> None:
    """Failure of an engine that has answered: it is no failure."""


def passed_headers(request: Request) -> bytes:
    """Lines of the headers of a request that the engine gets to see."""
    headers = request.headers
    return b"".join(b"%b: %b\r\n" % (name, headers[name]) for name in _PASSED_HEADERS if name in headers)


def _close_late(connecting: asyncio.Task[UpstreamConnection]) -> None:
    """Close a connection that was made after its request had ended."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
