"""Checks and routing of client requests: an allow-list of paths in front of the engine."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import orjson

from tunesmith_agent.access.access import Access
from tunesmith_agent.access.clients import Charge, Client
from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.messages import JSON_TYPE, Refusal, Request
from tunesmith_agent.http.upstream import UpstreamPool
from tunesmith_agent.metrics import AgentMetrics
from tunesmith_agent.peers.directory import PeerDirectory
from tunesmith_agent.requests.endpoints import ALWAYS_OFFERED, Endpoint, build_endpoints
from tunesmith_agent.requests.model_name import resolve_model
from tunesmith_agent.requests.switches import apply_switches
from tunesmith_agent.routing.stickiness import key_number, stickiness_key
from tunesmith_agent.routing.table import Route, RoutingTable, Target
from tunesmith_agent.telemetry.record import record_of
from tunesmith_agent.telemetry.usage import ask_for_usage
from tunesmith_contract.agent import VERSION_HEADER

from .forward import Forward
from .hops import FORGED, FORWARDED, FORWARDED_ALIAS, FORWARDED_CLIENT, NOT_HELD, Hops, taken_key
from .passing import passed_headers
from .waiting import WaitingRoom

_MAX_NAMES_LISTED = 20
_RETRY = b"retry-after: 2\r\n"
_ENGINE_NOT_READY = Refusal(
    503,
    "The engine is not ready: it is starting or was restarted.",
    kind="server_error",
    code="engine_unavailable",
    headers=_RETRY,
)
_ENGINE_HANGS = Refusal(
    503,
    "The engine of this pod hangs: try again, another pod may answer.",
    kind="server_error",
    code="engine_unavailable",
    headers=_RETRY,
)
_NOT_AN_OBJECT = Refusal(400, 'The body must be a JSON object such as {"model": "…", "messages": […]}.')
_TOO_DEEP = Refusal(400, "The body has lists and objects nested too deeply: use at most 250 levels.")
_NOT_JSON_TYPE = Refusal(415, "Send the body as content-type application/json.")
_ENCODED = Refusal(415, "Send the body without content-encoding.")

_VERSION = VERSION_HEADER.encode()
#: Lists and objects below which no body is nested too deeply to be written again.
_SHALLOW = 250
_GONE = "it is not served any more."

PlainHandler = Callable[[ServerConnection, Request], None]


class Proxy:
    """Handler of all client requests, by the current routing table.

    Args:
        on_engine_failure: called when the engine accepts no connection, or does not have a routed version.
        abandoned_seconds: see ``Limits``.
        directory: the other pods.
        media_hosts: hosts that the engine may fetch images, audio and video from.
        access: the clients with keys; None where clients need none.

    Attributes:
        table: the current routes.
        engine_hangs: the engine generates nothing, so that requests are refused.
        queue_seconds: gives the time after which the engine's queue may have room; 0 while it has.
        offered: endpoints that the engine has, by their paths; None until it was asked.
    """

    def __init__(
        self,
        pool: UpstreamPool,
        metrics: AgentMetrics,
        on_engine_failure: Callable[[], None],
        abandoned_seconds: float,
        wait_seconds: float,
        directory: PeerDirectory,
        media_hosts: Iterable[str] = (),
        access: Access | None = None,
    ) -> None:
        self.table = RoutingTable()
        self.waiting_room = WaitingRoom(wait_seconds)
        self.engine_hangs = False
        self.queue_seconds: Callable[[], int] = int
        self._access = access
        self._pool = pool
        self._metrics = metrics
        self._directory = directory
        self._hops = Hops(directory, metrics.hops)
        self._on_engine_failure = on_engine_failure
        self._abandoned_seconds = abandoned_seconds
        self.offered: frozenset[bytes] | None = None
        self._endpoints = build_endpoints(media_hosts)
        self._handlers: dict[bytes, tuple[bytes, PlainHandler]] = {
            **dict.fromkeys(self._endpoints, (b"POST", self._generate)),
            b"/v1/models": (b"GET", self._list_models),
        }

    @property
    def paths(self) -> Collection[bytes]:
        """Paths that are served."""
        return self._handlers.keys()

    def __call__(self, connection: ServerConnection, request: Request) -> None:
        """Answer one request."""
        method, handler = self._handlers.get(request.path, (b"", None))
        if handler is None:
            path = request.path.decode("ascii", "replace")[:100]
            served = ", ".join(served_path.decode() for served_path in self._handlers)
            connection.respond_refusal(Refusal(404, f"{path} is not served here; served are {served}."))
        elif request.method != method and (request.method, method) != (b"HEAD", b"GET"):
            allow = b"allow: GET, HEAD\r\n" if method == b"GET" else b"allow: %b\r\n" % method
            message = f"Use {method.decode()} for {request.path.decode()}."
            connection.respond_refusal(Refusal(405, message, headers=allow))
        else:
            handler(connection, request)

    def _list_models(self, connection: ServerConnection, request: Request) -> None:
        if self._access is None:
            connection.respond(200, JSON_TYPE, self.table.models_body)
            return
        client = self._access.identify(request)
        if isinstance(client, Refusal):
            connection.respond_refusal(client)
            return
        connection.respond(200, JSON_TYPE, self._access.models_body(client, self.table))

    def _generate(self, connection: ServerConnection, request: Request) -> None:
        if FORWARDED in request.headers:
            self._take_over(connection, request)
            return
        client = self._access.identify(request) if self._access is not None else None
        if isinstance(client, Refusal):
            connection.respond_refusal(client)
            return
        if client is not None:
            self._note_client(connection, request, client.name)
        if self.engine_hangs and self._directory.everywhere is None:
            self._refuse_hanging(connection)
            return
        if request.path not in ALWAYS_OFFERED and (refusal := self._refuse_endpoint(request.path)):
            connection.respond_refusal(refusal)
            return
        endpoint = self._endpoints[request.path]
        body = _read_body(request, endpoint)
        if isinstance(body, Refusal):
            connection.respond_refusal(body)
            return
        route = self._find_route(request, body, client)
        if isinstance(route, Refusal):
            connection.respond_refusal(route)
            return
        body["model"] = route.model
        self._forward(connection, request, body, route, len(request.body))

    def _forward(
        self,
        connection: ServerConnection,
        request: Request,
        body: dict[str, Any],
        route: Route,
        size: int,
        deadline: float | None = None,
        *,
        is_here: bool = False,
    ) -> None:
        """Send a request to the version that is chosen for it, as soon as the engine holds it.

        Args:
            size: bytes of the body, as it arrived.
            deadline: end of the wait for a version, by the loop's clock; None if the request has not waited yet.
            is_here: no home is asked any more: this pod is to answer, unless its engine hangs.
        """
        if (record := record_of(connection)) is not None:
            record.alias = route.model
        key = stickiness_key(request.headers, body) if route.uses_keys else b""
        target = route.pick(key)
        is_elsewhere = self.engine_hangs or (route.homes is not None and not is_here)
        if is_elsewhere and target is not None:
            self._forward_to_peer(connection, request, body, route, size, target, key)
            return
        if target is not None and not target.is_here:
            target = route.substitute
        if target is None:
            connection.respond_refusal(_unavailable(route))
            return
        if target.gate is not None and not target.gate.is_open:

            def go_on(deadline: float) -> None:
                # The routes may have changed while the request waited.
                known = self.table.routes.get(route.model, Route(route.model, None, unavailable_reason=_GONE))
                self._forward(connection, request, body, known, size, deadline, is_here=True)

            self.waiting_room.admit(connection, target, size, deadline, go_on)
            return
        if deadline is None and target.gate is not None:
            target.stats.hits += 1
        answer_failure = self._answer_not_ready
        if self._directory.everywhere is not None:
            answer_failure = partial(self._answer_elsewhere, request, dict(body), route, target)
        begun = connection.loop.time() if deadline is None else deadline - self.waiting_room.seconds
        number = key_number(key) if route.uses_keys else None
        self._send(connection, request, body, target, answer_failure, number, begun, size)

    def _send(
        self,
        connection: ServerConnection,
        request: Request,
        body: dict[str, Any],
        target: Target,
        answer_failure: Callable[[ServerConnection], None],
        number: int | None,
        begun: float,
        size: int,
    ) -> None:
        """Send a request to the engine, if there is room and its client's limits allow it; see ``Forward``."""
        if seconds := self.queue_seconds():
            connection.respond_refusal(_queue_full(seconds))
            return
        charge: Charge | None = None
        if self._access is not None:
            admitted = self._access.admit(request.client_name, request.path, body, size)
            if isinstance(admitted, Refusal):
                connection.respond_refusal(admitted)
                return
            charge = admitted
        body["model"] = target.name
        switches = self._endpoints[request.path].switches
        if target.switches is not None and switches:
            ignored = apply_switches(body, switches, target.switches)
            target = target.ignoring(ignored) if ignored else target
        hides_usage = ask_for_usage(request.path, body)
        Forward(
            self._pool,
            connection,
            target,
            _engine_request(request, body),
            answer_failure,
            self._abandoned_seconds,
            number,
            begun,
            hides_usage,
            charge,
        ).start()

    def _forward_to_peer(
        self,
        connection: ServerConnection,
        request: Request,
        body: dict[str, Any],
        route: Route,
        size: int,
        target: Target,
        key: bytes,
    ) -> None:
        """Have a request answered by a pod that is home of the alias, which may be this one."""
        if self.engine_hangs:
            refuse = partial(self._refuse_hanging, connection)
            self._hops.forward_to_any_peer(connection, request, body, route.homes, target, refuse)
        elif route.homes is not None:
            answer = partial(self._forward, connection, request, body, route, size, is_here=True)
            self._hops.forward_to_peer(connection, request, body, route.homes, target, key, answer)

    def _take_over(self, connection: ServerConnection, request: Request) -> None:
        """Answer a request that another agent forwards, for which it has chosen the version."""
        stats = self._hops.stats
        if not self._hops.accepts(request):
            stats.count_received("forged")
            connection.respond_refusal(FORGED)
            return
        if self._access is not None:
            name = request.headers.get(FORWARDED_CLIENT, b"").decode()
            if self._access.find(name) is None:
                # The other agent asks for no keys yet, or has read a newer Secret.
                stats.count_received("not_held")
                connection.respond_refusal(NOT_HELD)
                return
            self._note_client(connection, request, name)
        body = orjson.loads(request.body)
        size = len(request.body)

        begun = connection.loop.time()

        def answer(deadline: float | None) -> None:
            target = None if self.engine_hangs else self._find_taken(request, body["model"])
            is_open = target is None or target.gate is None or target.gate.is_open
            if target is None or not (is_open or self.waiting_room.has_room(size)):
                stats.count_received("not_held")
                connection.respond_refusal(NOT_HELD)
                return
            if not is_open:
                self.waiting_room.admit(connection, target, size, deadline, answer)
                return
            stats.count_received("taken")
            self._send(
                connection, request, body, target, self._answer_not_held, taken_key(request), begun, size
            )

        answer(None)

    def _note_client(self, connection: ServerConnection, request: Request, name: str) -> None:
        request.client_name = name
        if (record := record_of(connection)) is not None:
            record.client = name

    def _find_taken(self, request: Request, name: str) -> Target | None:
        """Target of a request that another agent forwards; None if it is not here."""
        route = self.table.routes.get(name)
        if route is None:
            return None
        target = (
            route.instead
            if route.instead is not None and FORWARDED_ALIAS in request.headers
            else route.stable
        )
        return target if target is not None and target.is_here else None

    def _answer_elsewhere(
        self,
        request: Request,
        body: dict[str, Any],
        route: Route,
        target: Target,
        connection: ServerConnection,
    ) -> None:
        """Have another pod answer a request that never reached a version on this one."""
        body["model"] = route.model
        self._note_engine_failure()
        refuse = partial(connection.respond_refusal, _ENGINE_NOT_READY)
        self._hops.forward_to_any_peer(connection, request, body, route.homes, target, refuse)

    def _answer_not_held(self, connection: ServerConnection) -> None:
        """Answer a request of another agent that never reached a version: another pod may be tried."""
        self._note_engine_failure()
        self._hops.stats.count_received("not_held")
        connection.respond_refusal(NOT_HELD)

    def _answer_not_ready(self, connection: ServerConnection) -> None:
        """Answer a request that never reached a version; it does not count as the version's error."""
        self._note_engine_failure()
        connection.respond_refusal(_ENGINE_NOT_READY)

    def _note_engine_failure(self) -> None:
        self._metrics.engine_failures += 1
        self._on_engine_failure()

    def _refuse_hanging(self, connection: ServerConnection) -> None:
        connection.close_after_answer()
        connection.respond_refusal(_ENGINE_HANGS)

    def _refuse_endpoint(self, path: bytes) -> Refusal | None:
        """Refusal of an endpoint that not every engine has; None if this one has it."""
        if self.offered is None:
            return _ENGINE_NOT_READY
        if path in self.offered:
            return None
        served = ", ".join(name.decode() for name in self._endpoints if name in self.offered)
        return Refusal(
            404, f"The engine does not offer {path.decode()} for this base model; it offers {served}."
        )

    def _find_route(self, request: Request, body: dict[str, Any], client: Client | None) -> Route | Refusal:
        """Route of the model that a request asks for; one that the client may not use does not exist for it."""
        model = body.get("model")
        if not isinstance(model, str):
            return Refusal(400, f"Say which model to use: {self._list_names(client)}.", param="model")
        if version := request.headers.get(_VERSION):
            model = resolve_model(model, version)
            if isinstance(model, Refusal):
                return model
        route = self.table.routes.get(model)
        if route is None or not (client is None or client.may_use(model)):
            message = f"The model {model[:100]!r} does not exist here: use {self._list_names(client)}."
            return Refusal(404, message, code="model_not_found", param="model")
        return route

    def _list_names(self, client: Client | None) -> str:
        names = [name for name in self.table.names() if client is None or client.may_use(name)]
        unlisted = len(names) - _MAX_NAMES_LISTED
        more = f" or one of {unlisted} others" if unlisted > 0 else ""
        return (", ".join(names[:_MAX_NAMES_LISTED]) or "(none is served yet)") + more


def _queue_full(seconds: int) -> Refusal:
    return Refusal(
        429,
        f"The engine's queue is full: try again in {seconds} s.",
        kind="rate_limit_error",
        code="queue_full",
        headers=b"retry-after: %d\r\n" % seconds,
    )


def _unavailable(route: Route) -> Refusal:
    message = f"The model {route.model!r} can't answer on this pod: {route.unavailable_reason}"
    return Refusal(503, message, kind="server_error", code="model_unavailable", headers=_RETRY)


def _read_body(request: Request, endpoint: Endpoint) -> dict[str, Any] | Refusal:
    """Body of a request that says nothing but what its endpoint serves."""
    body = _parse_body(request)
    if isinstance(body, Refusal):
        return body
    refusal = endpoint.check(body)
    if refusal is not None:
        return refusal
    if endpoint.fixed:
        body.update(endpoint.fixed)
    return body


def _parse_body(request: Request) -> dict[str, Any] | Refusal:
    """Body of a request as a JSON object.

    Browsers send application/json to another origin only with its permission, hence the check of the type.
    """
    content_type = request.headers.get(b"content-type", b"")
    if not content_type.lower().startswith(b"application/json"):
        return _NOT_JSON_TYPE
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        return _ENCODED
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        return Refusal(400, f"The body is not JSON: {error}.")
    if not isinstance(body, dict):
        return _NOT_AN_OBJECT
    return body if _is_writable(request.body, body) else _TOO_DEEP


def _is_writable(data: bytes, body: dict[str, Any]) -> bool:
    """False for a body that is nested too deeply to be written again: orjson reads 1,024 levels, and writes 254."""
    if data.count(b"[") + data.count(b"{") <= _SHALLOW:
        return True
    try:
        orjson.dumps(body)
    except orjson.JSONEncodeError:
        return False
    return True


def _engine_request(request: Request, body: dict[str, Any]) -> bytes:
    """Request for the engine, built anew so that nothing of the client's framing is passed on."""
    payload = orjson.dumps(body)
    return (
        b"POST %b HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n%b\r\n%b" % (request.path, len(payload), passed_headers(request), payload)
    )
