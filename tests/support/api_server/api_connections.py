"""Connections to local API servers: fixed configurations, kubeconfigs, TLS servers and a proxy."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from api_server.watch_answers import Answer
from kubernetes.aio.client import Configuration

from tunesmith.controller_runtime.connection import Connection
from tunesmith_cluster.certificates import Authority


class FixedSource:
    """A server's address without credentials."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def read(self, rejected: bool = False) -> Configuration:
        return Configuration(host=self.url)


def connection_to(url: str) -> Connection:
    """A connection without credentials."""
    return Connection(FixedSource(url))


def write_kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, Any] | None = None) -> None:
    """A kubeconfig with one context."""
    context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
    document = {
        "current-context": "test",
        "contexts": [context],
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(document))


def server_context(authority: Authority, name: str, client_authority: str | None = None) -> ssl.SSLContext:
    """TLS of a server with this certificate; it asks for clients' certificates where it has an authority for them."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_authority)
    context.load_cert_chain(authority.path(name), authority.path(name, "key"))
    if client_authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def serving(
    answer: Answer, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """A local server; yields its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app, scheme="https" if context else "http", host=host)
    await server.start_server(ssl=context)
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


def exec_plugin(folder: Path) -> dict[str, Any]:
    """A credential plugin: prints ``<folder>/answer``, and adds a line to ``<folder>/runs``."""
    script = folder / "plugin.sh"
    script.write_text(f'#!/bin/sh\necho run >> "{folder}/runs"\ncat "{folder}/answer"\n')
    script.chmod(0o700)
    return {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}


def write_plugin_answer(folder: Path, token: str, expires: str) -> None:
    """What the plugin prints from now on."""
    status = {"token": token, "expirationTimestamp": expires}
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }
    (folder / "answer").write_text(json.dumps(answer))


class Proxy:
    """An HTTP proxy for TLS connections; ``targets`` lists what clients asked for."""

    def __init__(self, url: str, targets: list[str]) -> None:
        self.url = url
        self.targets = targets


@asynccontextmanager
async def proxying() -> AsyncIterator[Proxy]:
    """A local proxy that answers CONNECT."""
    targets: list[str] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        request = await reader.readuntil(b"\r\n\r\n")
        target = request.split()[1].decode()
        targets.append(target)
        host, _, port = target.rpartition(":")
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(_pipe(reader, upstream_writer), _pipe(upstream_reader, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield Proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", targets)
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
            await writer.wait_closed()
