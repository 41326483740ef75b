"""Requests that this pod forwards to another one, one hop and no further, and those that it gets in this way."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from tunesmith_agent.access.clients import LIMIT_HEADERS
from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.messages import JSON_TYPE, Refusal, Request
from tunesmith_agent.http.upstream import UpstreamConnection
from tunesmith_agent.metrics import End, HopStats
from tunesmith_agent.peers.directory import ANSWER_SECONDS, PeerDirectory, PeerLink
from tunesmith_agent.peers.signing import Signed
from tunesmith_agent.routing.homes import Homes
from tunesmith_agent.routing.stickiness import NO_KEY, key_number, stickiness_key
from tunesmith_agent.routing.table import Target
from tunesmith_agent.telemetry.record import record_of
from tunesmith_contract.agent import (
    DIGEST_HEADER,
    FORWARDED_ALIAS_HEADER,
    FORWARDED_CLIENT_HEADER,
    FORWARDED_HEADER,
    FORWARDED_KEY_HEADER,
    IGNORED_HEADER,
    NOT_ANSWERED_HERE,
    VERSION_HEADER,
)

from .forward import PASSED_HEADERS
from .passing import Passing, passed_headers

FORWARDED = FORWARDED_HEADER.encode()
FORWARDED_ALIAS = FORWARDED_ALIAS_HEADER.encode()
FORWARDED_CLIENT = FORWARDED_CLIENT_HEADER.encode()
_FORWARDED_KEY = FORWARDED_KEY_HEADER.encode()
_FORGED_STATUS = 403

#: Headers of another agent's answer that the client gets to see.
_PASSED_HEADERS = (
    *PASSED_HEADERS,
    VERSION_HEADER.encode(),
    DIGEST_HEADER.encode(),
    IGNORED_HEADER.encode(),
    *LIMIT_HEADERS,
)

#: Other pods that one request is tried on.
MAX_TRIES = 8

FORGED = Refusal(
    _FORGED_STATUS,
    f"The header {FORWARDED_HEADER} is for requests between the pods of a deployment: leave it out.",
    code="forged_request",
)
NOT_HELD = Refusal(
    NOT_ANSWERED_HERE,
    "This pod can't answer with this version now: another one may.",
    kind="server_error",
    code="not_held",
)


class Hops:
    """Forwarding of requests to the home pods of their alias.

    Args:
        directory: the other pods.
        stats: counters.
    """

    def __init__(self, directory: PeerDirectory, stats: HopStats) -> None:
        self.directory = directory
        self.stats = stats

    def forward_to_peer(
        self,
        client: ServerConnection,
        request: Request,
        body: dict[str, Any],
        homes: Homes,
        target: Target,
        key: bytes,
        answer_here: Callable[[], None],
    ) -> None:
        """Have a request answered by the first of its homes that can: another pod, or this one.

        Args:
            target: the version that was chosen, which no other pod chooses again.
            key: sticky key.
            answer_here: answers on this pod: it is the first home that can, or none can.
        """
        if homes.only_lacking and target.is_here:
            answer_here()
            return
        names, own = self._order(homes, key), self.directory.own_name
        if not target.is_here:
            # Pods that are not its home load it more slowly than this one, but this one can't.
            everywhere = self.directory.everywhere or homes
            names = [name for name in dict.fromkeys((*names, *everywhere.order(key))) if name != own]
        if names[:1] == [own]:
            answer_here()
            return
        _HandedOn(self, request, body, names, target, key, answer_here).try_next(client)

    def forward_to_any_peer(
        self,
        client: ServerConnection,
        request: Request,
        body: dict[str, Any],
        homes: Homes | None,
        target: Target,
        refuse: Callable[[], None],
    ) -> None:
        """Have a request answered by any other pod, since this one's engine does not answer; see ``forward_to_peer``.

        Args:
            homes: the first ones to be tried; None: all pods are alike.
            refuse: called if no other pod can.
        """
        homes = homes or self.directory.everywhere
        if homes is None:
            refuse()
        else:
            key = stickiness_key(request.headers, body)
            self.forward_to_peer(client, request, body, homes, replace(target, is_here=False), key, refuse)

    def _order(self, homes: Homes, key: bytes) -> list[str]:
        """Homes by sticky key; without one this pod first, and then those with the fewest requests from here."""
        names = homes.order(key)
        return names if key != NO_KEY else sorted(names, key=self.directory.load)

    def accepts(self, request: Request) -> bool:
        """True if the request comes from an agent of the same AdapterDeployment, for this pod."""
        headers, own = request.headers, self.directory.own_name
        sticky, alias = headers.get(_FORWARDED_KEY, b""), headers.get(FORWARDED_ALIAS, b"")
        client = headers.get(FORWARDED_CLIENT, b"")
        signed = Signed(own, request.path, sticky, alias, request.body, client)
        return signed.has_code(headers[FORWARDED], self.directory.key)


def taken_key(request: Request) -> int | None:
    """Number of the sticky key of a request that another agent forwards."""
    sticky = request.headers.get(_FORWARDED_KEY)
    return int(sticky) if sticky else None


class _HandedOn:
    """One request, and the pods that it has not been tried on."""

    def __init__(
        self,
        hops: Hops,
        request: Request,
        body: dict[str, Any],
        names: list[str],
        target: Target,
        key: bytes,
        answer_here: Callable[[], None],
    ) -> None:
        self._hops = hops
        self._path = request.path
        asked = body.get("model")
        self._alias = b"" if asked == target.name or not isinstance(asked, str) else asked.encode()
        self._payload = orjson.dumps({**body, "model": target.name})
        self._names = names
        self._tries = 0
        self._target = target
        self._sticky = b"%d" % key_number(key)
        self._client_name = request.client_name.encode()
        self._headers = passed_headers(request)
        self._answer_here = answer_here

    def try_next(self, client: ServerConnection) -> None:
        """Try the next pod; this one where it is next, or where none is left."""
        directory = self._hops.directory
        while self._names and self._tries < MAX_TRIES:
            name = self._names.pop(0)
            if name == directory.own_name:
                break
            if (link := directory.find(name, self._target.name)) is not None:
                self._tries += 1
                Hop(
                    self._hops.stats,
                    link,
                    client,
                    self._target,
                    self._head(name),
                    self._payload,
                    self.try_next,
                ).start()
                return
        self._answer_here()

    def _head(self, pod: str) -> bytes:
        signed = Signed(pod, self._path, self._sticky, self._alias, self._payload, self._client_name)
        headers = (
            (b"host", b"peer"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self._payload)),
            (b"expect", b"100-continue"),
            (FORWARDED, signed.code(self._hops.directory.key)),
            (_FORWARDED_KEY, self._sticky),
            *([(FORWARDED_ALIAS, self._alias)] if self._alias else []),
            *([(FORWARDED_CLIENT, self._client_name)] if self._client_name else []),
        )
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        return b"POST %b HTTP/1.1\r\n%b%b\r\n" % (self._path, lines, self._headers)


class Hop(Passing):
    """One try on one pod.

    The body is sent when the other agent asks for it. One that hangs or has gone never does, so nothing was done for
    the request, and another pod can be tried.

    Args:
        go_on: tries the next pod; called if this one did nothing for the request.
    """

    __slots__ = ("_body", "_go_on", "_head", "_is_consented", "_link", "_nothing_done", "_record", "_sent_at", "_stats",
                 "_status", "_target", "_timer")  # fmt: skip

    def __init__(
        self,
        stats: HopStats,
        link: PeerLink,
        client: ServerConnection,
        target: Target,
        head: bytes,
        body: bytes,
        go_on: Callable[[ServerConnection], None],
    ) -> None:
        super().__init__(link.pool, client)
        self._stats = stats
        self._link = link
        self._target = target
        self._head = head
        self._body = body
        self._go_on = go_on
        self._is_consented = self._nothing_done = False
        self._status = 0
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._record = record_of(client)

    def start(self) -> None:
        """Send the head, on an idle connection if there is one."""
        self._client.exchange = self
        self._stats.begin()
        if self._record is not None:
            self._record.alias, self._record.version = self._target.stats.alias, self._target.name
        self._open()

    # -- from the client's connection

    def client_lost(self) -> None:
        """Close the connection to the other pod, whose engine then stops generating."""
        self._drop_upstream()
        self._end("left", None)

    def timed_out(self) -> None:
        self._drop_upstream()
        self._fail(504, "The pod that answers was silent for too long.", "engine_timeout")

    # -- from the other pod's connection

    def on_continue(self) -> None:
        """Count the time of the hop."""
        self._is_consented = True
        self._head = self._body = b""
        self._stop_timer()
        self._link.succeed()
        self._stats.consent_seconds.observe(self._client.loop.time() - self._sent_at)

    def on_head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        self._stop_timer()
        if not self._is_consented or status in (NOT_ANSWERED_HERE, _FORGED_STATUS):
            self._nothing_done = True
            self._link.lack(self._target.name)
            return
        self._status = status
        # It keeps the body, which no other pod will be asked for any more.
        self._go_on = _do_nothing
        lines = (b"%b: %b\r\n" % (name, headers[name]) for name in _PASSED_HEADERS if name in headers)
        self._client.begin(status, b"".join(lines), length)

    def on_data(self, data: bytes) -> None:
        if not self._nothing_done:
            self._client.send(data)

    def on_pause(self) -> None:
        if self._status:
            self._client.flush()

    def on_end(self) -> None:
        self._upstream = None
        if self._nothing_done:
            self._stats.end("not_held")
            self._go_on(self._client)
            return
        self._end("answered", End.ERROR if self._status >= 500 else None)
        self._client.end()

    def on_lost(self) -> None:
        """Try the next pod if this one has not asked for the body; else nobody knows what it did."""
        self._upstream = None
        if not self._is_consented or self._nothing_done:
            self._give_up()
        elif self._status:
            self._client.flush()
            self._cut()
        else:
            self._fail(502, "The pod that was to answer closed the connection.", "engine_failed")

    # -- inside

    def _send(self, upstream: UpstreamConnection) -> None:
        self._upstream = upstream
        self._sent_at = self._client.loop.time()
        self._timer = self._client.loop.call_later(ANSWER_SECONDS, self._give_up)
        upstream.send(self, self._head, self._body)
        if self._client.paused:
            upstream.pause()

    def _not_connected(self) -> None:
        self._give_up()

    def _give_up(self) -> None:
        self._link.fail()
        self._drop_upstream()
        self._stats.end("unreachable")
        self._go_on(self._client)

    def _drop_upstream(self) -> None:
        self._stop_timer()
        super()._drop_upstream()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, status: int, message: str, code: str) -> None:
        """Answer with an error, or cut the connection if a part of the answer was sent already."""
        if self._status:
            self._cut()
            return
        self._end("broken", End.ERROR)
        refusal = Refusal(status, message, kind="server_error", code=code)
        self._client.respond(status, JSON_TYPE, refusal.to_body())

    def _cut(self) -> None:
        """End the connection so that the client can't take a partial answer for a whole one."""
        self._client.exchange = None
        self._end("broken", End.ERROR)
        self._client.cut()

    def _end(self, result: str, end: End | None) -> None:
        """End the request, which no other pod is tried for; ``end`` is None where its status says how it ended."""
        self._stats.end(result)
        if self._record is not None:
            # This pod's engine may have been tried before.
            self._record.end = end


def _do_nothing(client: ServerConnection) -> None:
    """End of the tries: one has succeeded."""
