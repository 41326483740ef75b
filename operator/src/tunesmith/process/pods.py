"""Requests of pods: progress of training pods, connections of serving agents."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import WSMsgType, web
from pydantic import ValidationError

from tunesmith.cluster.controller import Controller
from tunesmith.cluster.live import AgentHub, Connection, Progress
from tunesmith.cluster.reconciler import utc_now
from tunesmith.controller_runtime.bodies import Key
from tunesmith.controller_runtime.errors import ApiError
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.controller_runtime.tokens import Forbidden, PodIdentity, TokenReviewer, Unauthenticated
from tunesmith.decide.refusal import describe
from tunesmith.manifests.names import PLURALS
from tunesmith_contract.agent import AGENT_PATH, AgentReport
from tunesmith_contract.progress import PROGRESS_PATH, ProgressUpdate

logger = logging.getLogger(__name__)

MAX_PROGRESS_BYTES = 64 * 1024
MAX_REPORT_BYTES = 1024 * 1024
MAX_REQUESTS = 256
#: Agents whose tokens are being reviewed; each review is a request to the API server.
MAX_ARRIVING_AGENTS = 256
MAX_AGENTS = 5000
HEARTBEAT_SECONDS = 20.0
RETRY_AFTER = {"Retry-After": "2"}

KINDS = {plural: kind for kind, plural in PLURALS.items()}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class PodServer:
    """HTTP handlers for pods; ``controller`` is None before and after the lead."""

    reviewer: TokenReviewer
    metrics: Metrics
    controller: Controller | None = None
    requests: int = 0
    arriving_agents: int = 0
    agents: int = 0

    async def take_progress(self, request: web.Request) -> web.Response:
        """``POST PROGRESS_PATH``: keep the progress of the pod's resource."""
        controller = self._leading()
        kind = KINDS.get(request.match_info["plural"])
        if kind is None:
            raise web.HTTPNotFound(text=f"there is no kind {request.match_info['plural']}")
        owner_uid, identity, labels = await self._authorize(controller, kind, request)
        try:
            update = ProgressUpdate.model_validate_json(await request.read())
        except ValidationError as error:
            raise web.HTTPBadRequest(text=describe(error)) from error
        progress = Progress(identity.name, identity.uid, labels, utc_now(), update.trainer_status)
        controller.live.progress.put(owner_uid, progress)
        return web.Response(status=204)

    async def serve_agent(self, request: web.Request) -> web.WebSocketResponse:
        """``GET AGENT_PATH``: reports in, desired states out, until either side closes."""
        controller = self._leading()
        if self.arriving_agents >= MAX_ARRIVING_AGENTS:
            raise web.HTTPServiceUnavailable(text="too many agents arrive at a time", headers=RETRY_AFTER)
        self.arriving_agents += 1
        try:
            owner_uid, identity, _ = await self._authorize(controller, "AdapterDeployment", request)
        finally:
            self.arriving_agents -= 1
        if self.agents >= MAX_AGENTS:
            raise web.HTTPServiceUnavailable(text="too many agents are connected", headers=RETRY_AFTER)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_REPORT_BYTES)
        await socket.prepare(request)
        hub = controller.live.agents
        connection = hub.connect(owner_uid, identity.uid)
        self._count_agents(1)
        sender = asyncio.create_task(_send(socket, connection), name=f"sender to agent {identity.uid}")
        try:
            await _receive(socket, hub, owner_uid, identity)
        finally:
            self._count_agents(-1)
            hub.disconnect(owner_uid, identity.uid, connection)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    def _leading(self) -> Controller:
        if self.controller is None:
            raise web.HTTPServiceUnavailable(text="another replica leads", headers=RETRY_AFTER)
        return self.controller

    def _count_agents(self, change: int) -> None:
        self.agents += change
        self.metrics.agents.set(self.agents)

    async def _authorize(
        self, controller: Controller, kind: str, request: web.Request
    ) -> tuple[str, PodIdentity, dict[str, str]]:
        """The resource's UID, the pod, and the pod's labels."""
        key = Key(kind, request.match_info["namespace"], request.match_info["name"])
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise web.HTTPUnauthorized(text="send the pod's token as a bearer token")
        try:
            identity = await self.reviewer.identify(token.strip())
            body = controller.bodies.get(key)
            if body is None or identity.namespace != key.namespace:
                raise Forbidden(f"there is no {kind} of this name in the pod's namespace")
            owner_uid: str = body["metadata"]["uid"]
            return owner_uid, identity, await self.reviewer.labels(identity, owner_uid)
        except Unauthenticated as error:
            raise web.HTTPUnauthorized(text=str(error)) from error
        except Forbidden as error:
            raise web.HTTPForbidden(text=str(error)) from error
        except ApiError as error:
            text = "the token can't be checked now"
            raise web.HTTPServiceUnavailable(text=text, headers=RETRY_AFTER) from error

    @web.middleware
    async def bound(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Limit of concurrent requests; connections of agents have limits of their own."""
        if request.match_info.handler == self.serve_agent:
            return await handler(request)
        if self.requests >= MAX_REQUESTS:
            raise web.HTTPServiceUnavailable(text="too many requests at a time", headers=RETRY_AFTER)
        self.requests += 1
        try:
            return await handler(request)
        finally:
            self.requests -= 1


def build_pod_app(server: PodServer) -> web.Application:
    """The application behind TLS."""
    app = web.Application(client_max_size=MAX_PROGRESS_BYTES, middlewares=[server.bound])
    app.add_routes([web.post(PROGRESS_PATH, server.take_progress), web.get(AGENT_PATH, server.serve_agent)])
    return app


async def _send(socket: web.WebSocketResponse, connection: Connection) -> None:
    while True:
        await socket.send_str((await connection.next()).to_json())


async def _receive(
    socket: web.WebSocketResponse, hub: AgentHub, owner_uid: str, identity: PodIdentity
) -> None:
    """Take reports until the agent closes; an invalid one closes the connection with the reason."""
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            await socket.close(code=1003, message=b"send reports as JSON text")
            return
        try:
            report = AgentReport.model_validate_json(message.data)
        except ValidationError as error:
            await socket.close(code=1007, message=describe(error).encode()[:120])
            return
        if report.pod_uid != identity.uid:
            await socket.close(code=1008, message=b"the report is of another pod than the token")
            return
        hub.report(owner_uid, report, utc_now())
