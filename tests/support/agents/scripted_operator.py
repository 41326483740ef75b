"""The operator's end of the agents' connection: collects reports, and pushes what a test tells it to."""

import asyncio
import contextlib
import ssl

from aiohttp import web

from tunesmith_contract.agent import AGENT_PATH, AgentReport, DesiredState

NAMESPACE, NAME = "team", "models"


class ScriptedOperator:
    """A server of WebSockets on loopback.

    Args:
        context: of TLS; None: plain HTTP.

    Attributes:
        state: what an agent gets that connects; None: nothing until something is pushed.
        latest: the latest report of each pod, by its name.
        reports: all reports.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.tokens: list[str] = []
        self.reports: asyncio.Queue[AgentReport] = asyncio.Queue()
        self.latest: dict[str, AgentReport] = {}
        self.sockets: list[web.WebSocketResponse] = []
        self.state: DesiredState | None = None
        self.port = 0
        self._context = context

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of an agent that connects to this operator, but for its credentials."""
        scheme = "http" if self._context is None else "https"
        return (
            f"--operator-url={scheme}://127.0.0.1:{self.port}",
            f"--namespace={NAMESPACE}",
            f"--deployment={NAME}",
        )

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        app = web.Application()
        app.router.add_get(AGENT_PATH.format(namespace=NAMESPACE, name=NAME), self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._context).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close all connections."""
        for socket in tuple(self.sockets):
            await socket.close()
        self.sockets.clear()
        await self._runner.cleanup()

    async def push(self, state: DesiredState) -> None:
        """Send a state to all agents that are connected, and to those that connect later."""
        self.state = state
        for socket in tuple(self.sockets):
            # An agent that was killed a moment ago.
            with contextlib.suppress(ConnectionError):
                await socket.send_str(state.to_json())

    async def report(self, generation: int) -> AgentReport:
        """The next report that has applied a generation."""
        async with asyncio.timeout(10):
            while (report := await self.reports.get()).applied_generation < generation:
                pass
        return report

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        self.tokens.append(request.headers["Authorization"])
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        try:
            if self.state is not None:
                await socket.send_str(self.state.to_json())
            async for message in socket:
                report = AgentReport.model_validate_json(message.data)
                self.latest[report.pod_name] = report
                self.reports.put_nowait(report)
        finally:
            if socket in self.sockets:
                self.sockets.remove(socket)
        return socket
