"""Answers on the port for monitoring: probes of kubelet, and metrics."""

import asyncio
from collections.abc import Callable

from .access.access import Access
from .access.metrics import AccessSample, render_access, sample_access
from .engine.metrics import KEPT_SECONDS, EngineMetrics
from .http.background import Answer, BackgroundAnswers
from .http.connection import Handler, ServerConnection
from .http.messages import Refusal, Request
from .http.server import Server
from .metrics import AgentMetrics, ConnectionGauges

_TEXT = b"content-type: text/plain; charset=utf-8\r\n"
_METRICS_TYPE = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"


class Monitoring:
    """Handler of ``/healthz``, ``/readyz`` and ``/metrics``.

    Args:
        data_path: the server for clients: the process lives while that one moves.
        not_ready_reason: gives the reason why the pod can't take requests; empty if it can.
        access: the clients with keys; None where clients need none.
    """

    def __init__(
        self,
        data_path: Server,
        metrics: AgentMetrics,
        engine_metrics: EngineMetrics,
        not_ready_reason: Callable[[], str],
        access: Access | None = None,
    ) -> None:
        self._access = access
        self._data_path = data_path
        self._metrics = metrics
        self._engine_metrics = engine_metrics
        self._not_ready_reason = not_ready_reason
        self._rendered, self._rendered_at = b"", float("-inf")
        self._rendering = asyncio.Lock()
        self._background = BackgroundAnswers()
        self._handlers: dict[bytes, Handler] = {
            b"/healthz": self._healthz,
            b"/readyz": self._readyz,
            b"/metrics": self._background.handler(self._metrics_answer),
        }

    def __call__(self, connection: ServerConnection, request: Request) -> None:
        """Answer one request."""
        handler = self._handlers.get(request.path)
        if handler is None:
            served = ", ".join(path.decode() for path in self._handlers)
            connection.respond_refusal(Refusal(404, f"Served here are {served}."))
        elif request.method not in (b"GET", b"HEAD"):
            connection.respond_refusal(Refusal(405, "Use GET.", headers=b"allow: GET, HEAD\r\n"))
        else:
            handler(connection, request)

    def count_refusal(self, status: int, code: str) -> None:
        """No effect: the metrics count what clients are refused."""

    async def close(self) -> None:
        """Cancel answers in progress."""
        await self._background.close()

    def _healthz(self, connection: ServerConnection, request: Request) -> None:
        if self._data_path.is_moving():
            connection.respond(200, _TEXT, b"alive\n")
        else:
            connection.respond(503, _TEXT, b"The data path stands still.\n")

    def _readyz(self, connection: ServerConnection, request: Request) -> None:
        reason = self._not_ready_reason()
        if reason:
            connection.respond(503, _TEXT, f"{reason}\n".encode())
        else:
            connection.respond(200, _TEXT, b"ready\n")

    async def _metrics_answer(self) -> Answer:
        loop = asyncio.get_running_loop()
        async with self._rendering:
            if loop.time() - self._rendered_at >= KEPT_SECONDS:
                # Beside the data path: with many versions it takes tenths of a second.
                clients = sample_access(self._access) if self._access is not None else None
                self._rendered = await asyncio.to_thread(self._render, self._gauges(), clients)
                self._rendered_at = loop.time()
        engine = await self._engine_metrics.read()
        return 200, _METRICS_TYPE, self._rendered + self._metrics.render_residency(engine) + engine

    def _render(self, gauges: ConnectionGauges, clients: AccessSample | None) -> bytes:
        return self._metrics.render(gauges) + (render_access(clients) if clients is not None else b"")

    def _gauges(self) -> ConnectionGauges:
        server = self._data_path
        return ConnectionGauges(
            open=len(server.connections),
            idle_closed=server.counts.idle_closed,
            slow_closed=server.counts.slow_closed,
            dropped=server.counts.dropped,
            buffered_bytes=server.shares.held,
        )
