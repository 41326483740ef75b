"""The connection to the operator: reports up, desired states down. Serving never waits for it."""

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp

from tunesmith_agent.metrics import AgentMetrics
from tunesmith_contract.agent import AGENT_PATH, AgentReport
from tunesmith_contract.layout import CA_FILE, TOKEN_FILE

from .desired_state import DesiredStore
from .reconciler import Reconciler

log = logging.getLogger(__name__)

REPORT_SECONDS = 2.0
#: Changes that come together are told together.
GATHER_SECONDS = 0.05
HEARTBEAT_SECONDS = 10.0
CONNECT_SECONDS = 10.0
BACKOFF_SECONDS = (0.25, 10.0)


class OperatorLink:
    """Keeps one WebSocket to the operator open, for ever."""

    def __init__(
        self,
        url: str,
        credentials_dir: Path,
        store: DesiredStore,
        reconciler: Reconciler,
        metrics: AgentMetrics,
        make_report: Callable[[], AgentReport],
    ) -> None:
        self._url = url
        self._credentials_dir = credentials_dir
        self._store = store
        self._reconciler = reconciler
        self._metrics = metrics
        self._make_report = make_report

    async def run(self) -> None:
        """Connect, talk, and connect again with growing, jittered pauses; cancel to stop."""
        shortest, longest = BACKOFF_SECONDS
        backoff = shortest
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with self._connect(session) as socket:
                        backoff = shortest
                        await self._talk(socket)
                    log.info("operator closed the connection")
                except (aiohttp.ClientError, OSError) as error:
                    # aiohttp's errors name the URL and the status, never the request's headers.
                    log.warning("operator not reachable", extra={"error": str(error) or repr(error)})
                except Exception as error:
                    # Whatever goes wrong here, serving must go on. The message might hold what was sent.
                    log.error("operator connection failed", extra={"error": type(error).__name__})
                self._metrics.operator_connected = False
                await asyncio.sleep(backoff * (0.5 + random.random()))
                backoff = min(2 * backoff, longest)

    @contextlib.asynccontextmanager
    async def _connect(
        self, session: aiohttp.ClientSession
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        token = (self._credentials_dir / TOKEN_FILE).read_text().strip()
        context: ssl.SSLContext | bool = True
        if self._url.startswith("https:"):
            context = ssl.create_default_context(cafile=self._credentials_dir / CA_FILE)
        async with asyncio.timeout(CONNECT_SECONDS):
            socket = await session.ws_connect(
                self._url,
                headers={"Authorization": f"Bearer {token}"},
                heartbeat=HEARTBEAT_SECONDS,
                ssl=context,
            )
        async with socket:
            yield socket

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        log.info("connected to the operator")
        self._metrics.operator_connected = True
        both = [asyncio.create_task(side(socket)) for side in (self._send_reports, self._take_states)]
        try:
            ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        for task in ended:
            task.result()

    async def _take_states(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self._store.offer(message.data, "operator")

    async def _send_reports(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with self._reconciler.changes() as changed:
            while not socket.closed:
                changed.clear()
                await socket.send_str(self._make_report().to_json())
                await asyncio.sleep(GATHER_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_SECONDS - GATHER_SECONDS):
                        await changed.wait()


def operator_socket_url(operator_url: str, namespace: str, deployment: str) -> str:
    """The address of the agents' socket of one AdapterDeployment."""
    return operator_url.rstrip("/") + AGENT_PATH.format(namespace=namespace, name=deployment)
