"""Forwarding of one request to the engine, and of the answer to the client."""

from collections.abc import Callable

from tunesmith_agent.access.clients import Charge
from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.http.messages import JSON_TYPE, Refusal
from tunesmith_agent.http.upstream import UpstreamConnection, UpstreamPool
from tunesmith_agent.metrics import ANSWERED, End, Usage
from tunesmith_agent.routing.table import Target
from tunesmith_agent.telemetry.record import record_of
from tunesmith_agent.telemetry.usage import AnswerReader

from .passing import Passing

#: Headers of the engine's answer that the client gets to see.
PASSED_HEADERS = (b"content-type", b"retry-after")

_STREAM_TYPE = b"text/event-stream"
#: Events of /v1/responses: the first ones come before any token, so these streams tell no time of the first one.
_RESPONSE_EVENT = b"event: response."

#: The engine has each version that is routed to, unless it was restarted a moment ago.
_NOT_FOUND = 404


class Forward(Passing):
    """One request that is forwarded to the engine.

    Args:
        on_engine_failure: answers the client when the request never reached a version: the engine accepts no
            connection, or does not have the version.
        abandoned_seconds: see ``Limits``.
        key: sticky key of the client, as a number; None if it was not needed.
        begun: time at which the request began to be answered, by the loop's clock.
        hides_usage: see ``AnswerReader``.
        charge: what the request takes from the client's limits; None where clients need no keys.
    """

    __slots__ = (
        "_abandoned_seconds", "_answer", "_begun_at", "_charge", "_data_at", "_first_at", "_key", "_not_found",
        "_on_engine_failure", "_record", "_request", "_status", "_target",
    )  # fmt: skip

    def __init__(
        self,
        pool: UpstreamPool,
        client: ServerConnection,
        target: Target,
        request: bytes,
        on_engine_failure: Callable[[ServerConnection], None],
        abandoned_seconds: float,
        key: int | None,
        begun: float,
        hides_usage: bool,
        charge: Charge | None = None,
    ) -> None:
        super().__init__(pool, client)
        self._on_engine_failure = on_engine_failure
        self._abandoned_seconds = abandoned_seconds
        self._key = key
        self._charge = charge
        self._target = target
        self._request = request
        self._not_found = False
        self._status = 0
        self._begun_at = begun
        self._data_at = client.loop.time()
        self._first_at = 0.0
        self._record = record_of(client)
        self._answer = AnswerReader(hides_usage, self._record is not None and self._record.is_traced)

    def start(self) -> None:
        """Send the request, on an idle connection if there is one."""
        self._client.exchange = self
        stats = self._target.stats
        stats.begin()
        if self._record is not None:
            self._record.alias, self._record.version = stats.alias, stats.name
        self._open()

    # -- from the client's connection

    def client_lost(self) -> None:
        """Close the connection to the engine, which then stops generating."""
        was_sent = self._upstream is not None
        self._drop_upstream()
        now = self._client.loop.time()
        # A client that reads slowly holds the answer back itself.
        abandoned = now - self._data_at >= self._abandoned_seconds and not self._client.paused
        end = self._target.stats.count_disconnect(now, self._key, abandoned=abandoned)
        self._note_end(end, now, self._answer.usage(), left=was_sent)

    def timed_out(self) -> None:
        self._drop_upstream()
        self._fail(
            Refusal(504, "The engine was silent for too long.", kind="server_error", code="engine_timeout")
        )

    # -- from the engine's connection

    def on_continue(self) -> None:
        """No effect: the request was sent as a whole."""

    def on_head(self, status: int, headers: dict[bytes, bytes], length: int | None) -> None:
        if status == _NOT_FOUND:
            self._not_found = True
            return
        self._status = status
        # It may keep the body, to ask another pod: that is over.
        self._on_engine_failure = _do_nothing
        self._answer.is_stream = headers.get(b"content-type", b"").startswith(_STREAM_TYPE)
        lines = self._target.headers
        for name in PASSED_HEADERS:
            if name in headers:
                lines += b"%b: %b\r\n" % (name, headers[name])
        if self._charge is not None:
            lines += self._charge.headers
        self._client.begin(status, lines, length)

    def on_data(self, data: bytes) -> None:
        self._data_at = self._client.loop.time()
        if self._not_found:
            return
        is_first = not self._first_at and self._answer.is_stream and self._status < 400
        if is_first and not data.startswith(_RESPONSE_EVENT):
            self._first_at = self._data_at
        if self._charge is not None and self._answer.is_stream:
            self._charge.count_events(data)
        self._client.send(self._answer.read(data))

    def on_pause(self) -> None:
        if self._status:
            self._client.flush()

    def on_end(self) -> None:
        self._upstream = None
        if self._not_found:
            self._target.stats.count_refused()
            self._not_reached()
            return
        self._client.send(self._answer.end())
        self._count(broken=False)
        self._client.end()

    def on_lost(self) -> None:
        """Fail: the request was sent, so nobody knows what the engine did with it, and it is not sent again."""
        self._upstream = None
        if self._status:
            self._client.flush()
            self._cut()
        else:
            message = "The engine closed the connection without an answer."
            self._fail(Refusal(502, message, kind="server_error", code="engine_failed"))

    # -- inside

    def _not_connected(self) -> None:
        self._target.stats.count_engine_lost()
        if self._record is not None:
            self._record.end = End.ENGINE_LOST
        self._not_reached()

    def _send(self, upstream: UpstreamConnection) -> None:
        self._upstream = upstream
        upstream.send(self, self._request)
        self._request = b""
        if self._client.paused:
            upstream.pause()

    def _not_reached(self) -> None:
        """Let the client be answered, as the request never reached a version."""
        if self._charge is not None:
            self._charge.settle(None, answered=False)
        self._on_engine_failure(self._client)

    def _fail(self, refusal: Refusal) -> None:
        """Answer with an error, or cut the connection if a part of the answer was sent already."""
        if self._status:
            self._cut()
            return
        self._status = refusal.status
        self._count(broken=True)
        body = refusal.to_body()
        self._client.respond(refusal.status, self._target.headers + JSON_TYPE, body)

    def _cut(self) -> None:
        """End the connection so that the client can't take a partial answer for a whole one."""
        self._client.exchange = None
        self._count(broken=True)
        self._client.cut()

    def _count(self, *, broken: bool) -> None:
        now, usage = self._client.loop.time(), self._answer.usage()
        broken = broken or self._answer.failed
        end = self._target.stats.finish(self._status, self._begun_at, now, self._key, broken=broken)
        self._note_end(end, now, usage)

    def _note_end(self, end: End, now: float, usage: Usage | None, *, left: bool = False) -> None:
        """Count the tokens of an answer that the engine began, and complete the record.

        Args:
            usage: tokens; None if they are unknown.
            left: the client left while the engine worked on it.
        """
        if 0 < self._status < 400:
            self._target.stats.count_tokens(usage, self._begun_at, self._first_at, now)
        if self._charge is not None:
            self._charge.settle(usage, answered=end is ANSWERED and self._status < 400, left=left)
        if (record := self._record) is not None:
            record.end = end
            record.first_token_at = self._first_at
            record.usage = usage
            if record.is_traced:
                record.finish_reasons = self._answer.finish_reasons()


def _do_nothing(client: ServerConnection) -> None:
    """Failure of an engine that has answered: it is no failure."""
