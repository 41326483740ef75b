"""A proxy between one operator and the API server, which hurts requests by a plan and kills at a chosen write."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web
from api_faults.faults import NOTHING, Fault, FaultPlan, Request, Stroke
from yarl import URL

from tunesmith_cluster.api import current_context, tls_context

#: Requests that the API server answers to, and what it says in their place.
_ANSWERS = {
    Fault.CONFLICT: (409, "Conflict", "Operation cannot be fulfilled: the object has been modified"),
    Fault.GONE: (410, "Expired", "The provided continue parameter is too old"),
    Fault.TOO_MANY: (429, "TooManyRequests", "The server has received too many requests"),
    Fault.ERROR: (500, "InternalError", "etcdserver: request timed out"),
    Fault.UNAVAILABLE: (503, "ServiceUnavailable", "apiserver is shutting down"),
    Fault.WEBHOOK: (
        500,
        "InternalError",
        'Internal error occurred: failed calling webhook "mesh.example": context deadline exceeded',
    ),
    Fault.DONE_AND_ERROR: (500, "InternalError", "etcdserver: leader changed"),
}
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive", "date"}
_HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"


class Moment(Enum):
    """When a kill happens to a write."""

    BEFORE = "before it is forwarded"
    DONE = "after it is done, before the answer"
    ANSWERED = "after the answer"


@dataclass(slots=True)
class _Kill:
    """A kill at the write that makes ``writes`` zero."""

    writes: int
    moment: Moment
    strike: Callable[[], None]


Read = Callable[[str], Awaitable[dict[str, Any]]]
"""Reader of an API server's object or list by its path."""

BeforeWrite = Callable[[Request, Read], Awaitable[None]]
"""Look at a write that is about to be carried out."""

AfterWrite = Callable[[Request, dict[str, Any]], None]
"""Look at a write that was carried out, with the answer."""


class FaultProxy:
    """Serves plain HTTP on loopback in a thread of its own, with the certificate of a kubeconfig to the API server.

    Args:
        kubeconfig: of the API server.
        folder: for the kubeconfig of the proxy.
        before: sees each write before it is carried out.
        after: sees each write that was carried out.

    Attributes:
        kubeconfig: the kubeconfig of the operator.
    """

    def __init__(
        self, kubeconfig: Path, folder: Path, plan: FaultPlan, before: BeforeWrite, after: AfterWrite
    ) -> None:
        context = current_context(yaml.safe_load(kubeconfig.read_text()))
        self._server = URL(context.cluster["server"])
        self._tls = tls_context(context, kubeconfig)
        self._folder, self._plan, self._before, self._after = folder, plan, before, after
        self._kill: _Kill | None = None
        self._away: list[str] = []
        self._streams: set[asyncio.Task[web.StreamResponse]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="proxy", daemon=True)
        self.kubeconfig = folder / "proxied.kubeconfig"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def kill_at(self, writes: int, moment: Moment, strike: Callable[[], None]) -> None:
        """Call ``strike`` at the write of this number from now on that matters to a resource."""
        self._kill = _Kill(writes, moment, strike)

    def disarm(self) -> None:
        """Kill nobody."""
        self._kill = None

    @property
    def streams(self) -> int:
        """Number of watches that are open."""
        return len(self._streams)

    @contextlib.contextmanager
    def away(self, part: str = "") -> Iterator[None]:
        """Within the block the API server can't be reached; streams that were open are cut.

        Args:
            part: for requests whose path has this part.
        """
        self._away.append(part)
        if not part:
            self._loop.call_soon_threadsafe(self._cut_streams)
        try:
            yield
        finally:
            self._away.remove(part)

    # -- in the thread

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            self._session = session
            runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self._write_kubeconfig(runner.addresses[0][1])
            self._started.set()
            await self._stop.wait()
            await runner.cleanup()

    def _write_kubeconfig(self, port: int) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        if any(part in http.path for part in self._away):
            return _cut(http)
        request = Request(http.method, http.path, "watch" in http.query)
        stroke = self._plan.draw(request)
        try:
            if request.is_watch:
                return await self._stream_until_away(http, stroke)
            return await self._answer(http, request, stroke)
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            # The API server is away.
            return _cut(http)

    async def _answer(self, http: web.BaseRequest, request: Request, stroke: Stroke) -> web.StreamResponse:
        sent = await http.read()
        kill = self._take_kill(request)
        if kill is not None and kill.moment is Moment.BEFORE:
            kill.strike()
            return _cut(http)
        if stroke.fault in (Fault.SLOW, Fault.WEBHOOK):
            await asyncio.sleep(stroke.seconds)
        if kill is None and (answer := _answer_instead(http, stroke)) is not None:
            return answer
        response = await self._forward(http, request, sent)
        if kill is not None:
            if kill.moment is Moment.ANSWERED:
                await response.prepare(http)
                await response.write_eof()
            kill.strike()
        elif stroke.fault is Fault.STALLED:
            await asyncio.sleep(stroke.seconds)
            return _cut(http)
        elif stroke.fault is Fault.DONE_AND_CUT:
            return _cut(http)
        elif stroke.fault is Fault.DONE_AND_ERROR:
            return _status(stroke.fault)
        return response

    async def _forward(self, http: web.BaseRequest, request: Request, sent: bytes) -> web.Response:
        if request.is_work:
            await self._before(request, self._read)
        async with self._session.request(
            http.method, self._url(http), data=sent or None, headers=_headers(http)
        ) as upstream:
            body = await upstream.read()
            if request.is_work and upstream.status < 300:
                self._after(request, json.loads(body))
            headers = {
                key: value for key, value in upstream.headers.items() if key.lower() not in _HOP_BY_HOP
            }
            return web.Response(status=upstream.status, body=body, headers=headers)

    async def _read(self, path: str) -> dict[str, Any]:
        async with self._session.get(self._server.join(URL(path, encoded=True))) as response:
            body: dict[str, Any] = json.loads(await response.read())
            return body

    async def _stream_until_away(self, http: web.BaseRequest, stroke: Stroke) -> web.StreamResponse:
        streaming = asyncio.create_task(self._stream(http, stroke))
        self._streams.add(streaming)
        try:
            return await streaming
        except asyncio.CancelledError:
            if "" not in self._away:
                raise
            return _cut(http)
        finally:
            self._streams.discard(streaming)
            streaming.cancel()

    def _cut_streams(self) -> None:
        for streaming in self._streams:
            streaming.cancel()

    async def _stream(self, http: web.BaseRequest, stroke: Stroke) -> web.StreamResponse:
        if (answer := _answer_instead(http, stroke)) is not None:
            return answer
        async with self._session.get(self._url(http), headers=_headers(http)) as upstream:
            response = web.StreamResponse(status=upstream.status)
            response.content_type = "application/json"
            await response.prepare(http)
            await self._pass_lines(upstream.content, response, stroke)
            match stroke.fault:
                case Fault.STREAM_CUT:
                    await response.write(b'{"type":"MODIFIED","object":{"kind":')
                    return _cut(http)
                case Fault.STREAM_STALLED:
                    await asyncio.sleep(stroke.seconds)
                    return _cut(http)
                case Fault.STREAM_GONE | Fault.STREAM_ERROR:
                    await response.write(_error_event(stroke.fault))
            return response

    async def _pass_lines(
        self, content: aiohttp.StreamReader, response: web.StreamResponse, stroke: Stroke
    ) -> None:
        """Pass on whole lines of a watch, until a fault strikes or the API server ends it."""
        ends = None if stroke is NOTHING else self._loop.time() + stroke.seconds
        count, rest = 0, b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                async for chunk in content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        await response.write(line + b"\n")
                        count += 1
                        if stroke is not NOTHING and count > stroke.lines:
                            return

    def _url(self, http: web.BaseRequest) -> URL:
        return self._server.join(URL(http.raw_path, encoded=True))

    def _take_kill(self, request: Request) -> _Kill | None:
        """The kill that this write leads to."""
        kill = self._kill
        if kill is None or not request.is_work:
            return None
        kill.writes -= 1
        if kill.writes > 0:
            return None
        self._kill = None
        return kill


def _headers(http: web.BaseRequest) -> dict[str, str]:
    return {
        name: http.headers[name] for name in ("Accept", "Content-Type", "User-Agent") if name in http.headers
    }


def _answer_instead(http: web.BaseRequest, stroke: Stroke) -> web.StreamResponse | None:
    """The answer to a request that is not forwarded; None for one that is."""
    match stroke.fault:
        case Fault.REFUSED:
            return _cut(http)
        case Fault.GATEWAY:
            return web.Response(status=502, text=_HTML, content_type="text/html")
        case Fault.CONFLICT | Fault.GONE | Fault.TOO_MANY | Fault.ERROR | Fault.UNAVAILABLE | Fault.WEBHOOK:
            return _status(stroke.fault)
        case _:
            return None


def _status(fault: Fault) -> web.Response:
    code, reason, message = _ANSWERS[fault]
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    headers = {"Retry-After": "1"} if fault is Fault.TOO_MANY else {}
    return web.json_response(status | {"reason": reason, "message": message}, status=code, headers=headers)


def _error_event(fault: Fault) -> bytes:
    code, reason, message = _ANSWERS[Fault.GONE if fault is Fault.STREAM_GONE else Fault.ERROR]
    status = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def _cut(http: web.BaseRequest) -> web.StreamResponse:
    """An answer that never arrives: the connection is gone."""
    if http.transport is not None:
        http.transport.abort()
    return web.Response()
