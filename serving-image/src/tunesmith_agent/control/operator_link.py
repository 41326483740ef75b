"""WebSocket to the operator: reports out, desired states in. Serving never waits for it."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
from pydantic import ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_random_exponential

from tunesmith_agent.metrics import AgentMetrics
from tunesmith_contract.agent import AGENT_PATH, AgentReport, SentState, UsageOfOthers
from tunesmith_contract.layout import CA_FILE, TOKEN_FILE

from .desired_state import DesiredStore, Source
from .reconciler import Reconciler

log = logging.getLogger(__name__)

REPORT_SECONDS = 2.0
#: Changes within this time share one report.
BATCH_SECONDS = 0.05
HEARTBEAT_SECONDS = 10.0
CONNECT_SECONDS = 10.0
#: Random pauses: the agents of a restarted operator do not come back in step. They stay short, because each try may
#: reach a replica of the operator that does not lead, which refuses connections.
RECONNECT_WAIT = wait_random_exponential(multiplier=0.25, max=2.0)


class OperatorLink:
    """One WebSocket to the operator, opened again whenever it closes.

    Args:
        on_usage: called with what other pods have counted; None where clients need no keys.
    """

    def __init__(
        self,
        url: str,
        credentials_dir: Path,
        store: DesiredStore,
        reconciler: Reconciler,
        metrics: AgentMetrics,
        make_report: Callable[[], AgentReport],
        on_peer_key: Callable[[str], None],
        on_usage: Callable[[UsageOfOthers], None] | None = None,
    ) -> None:
        self._url = url
        self._credentials_dir = credentials_dir
        self._store = store
        self._reconciler = reconciler
        self._metrics = metrics
        self._make_report = make_report
        self._on_peer_key = on_peer_key
        self._on_usage = on_usage

    async def run(self) -> None:
        """Connect, exchange messages, and connect again after a pause; cancel to stop."""
        # Every end of a connection is a result that leads to another try; only cancellation leaves the loop.
        retrying = AsyncRetrying(retry=retry_if_result(lambda _: True), wait=RECONNECT_WAIT)
        async with aiohttp.ClientSession() as session:
            async for attempt in retrying:
                with attempt:
                    await self._use_connection(session, attempt.retry_state)

    async def _use_connection(self, session: aiohttp.ClientSession, retry_state: RetryCallState) -> None:
        """One connection, from opening to its end, whatever ends it."""
        try:
            async with self._connect(session) as socket:
                # Pauses grow with the failures since the last connection.
                retry_state.attempt_number = 1
                await self._exchange_messages(socket)
            log.info("operator closed the connection")
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp's errors name the URL and the status, never the request's headers.
            log.warning("operator not reachable", extra={"error": str(error) or repr(error)})
        except Exception as error:
            # Serving must go on after any failure here. The message might quote what was sent.
            log.error("operator connection failed", extra={"error": type(error).__name__})
        finally:
            self._metrics.operator_connected = False

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

    async def _exchange_messages(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        log.info("connected to the operator")
        self._metrics.operator_connected = True
        tasks = [asyncio.create_task(side(socket)) for side in (self._send_reports, self._receive_states)]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()

    async def _receive_states(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            if self._on_usage is not None and (usage := _read_usage(message.data)) is not None:
                self._on_usage(usage)
            else:
                if key := read_peer_key(message.data):
                    self._on_peer_key(key)
                self._store.offer(message.data, Source.OPERATOR)

    async def _send_reports(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with self._reconciler.changes() as changed:
            while not socket.closed:
                changed.clear()
                await socket.send_str(self._make_report().to_json())
                await asyncio.sleep(BATCH_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_SECONDS - BATCH_SECONDS):
                        await changed.wait()


def _read_usage(data: str) -> UsageOfOthers | None:
    """The message, if it tells of the tokens that other pods have counted."""
    try:
        return UsageOfOthers.model_validate_json(data)
    except ValidationError:
        return None


def read_peer_key(message: str) -> str:
    """Secret of the agents in a message of the operator; empty where it has none that can be read."""
    try:
        return SentState.model_validate_json(message).peer_key
    except ValidationError:
        return ""


def operator_socket_url(operator_url: str, namespace: str, deployment: str) -> str:
    """URL of the WebSocket for the agents of one AdapterDeployment."""
    return operator_url.rstrip("/") + AGENT_PATH.format(namespace=namespace, name=deployment)
