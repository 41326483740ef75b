"""Web app of probes and metrics, and a context manager that serves any app, with TLS or without."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tunesmith.controller_runtime.metrics import Metrics

Problems = Callable[[], list[str]]
"""Source of the current problems, one sentence each."""


def build_plain_app(metrics: Metrics, liveness: Problems, readiness: Problems) -> web.Application:
    """``/metrics``, ``/livez`` and ``/readyz``."""

    async def exposition(_: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=generate_latest(metrics.registry), headers=headers)

    async def livez(_: web.Request) -> web.Response:
        return _answer(liveness())

    async def readyz(_: web.Request) -> web.Response:
        return _answer(readiness())

    app = web.Application()
    app.add_routes([web.get("/metrics", exposition), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app


def _answer(problems: list[str]) -> web.Response:
    return web.Response(text="\n".join(problems) or "ok", status=503 if problems else 200)


@asynccontextmanager
async def serving(
    app: web.Application, host: str, port: int, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve within the block; yields the port."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host or None, port, ssl_context=context, reuse_address=True)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
