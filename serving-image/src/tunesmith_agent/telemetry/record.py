"""Record of one request while it is answered, for access logs and traces."""

from collections.abc import Callable

from tunesmith_agent.http.connection import ServerConnection
from tunesmith_agent.metrics import ANSWERED, End, Usage

from .trace_context import TraceContext


class RequestRecord:
    """What is known of one request; nothing in it comes from its content.

    Attributes:
        method, path: as in the request; the path is empty if nothing is served there.
        request_id: value of ``x-request-id``, from the client or made here.
        trace: its place in a trace; None if there is none.
        is_traced: a span is written of it.
        begun, first_token_at, ended: times by the loop's clock; 0: not yet.
        ended_at: time of its end, in Unix nanoseconds.
        status: status of the answer; 0 if there was none.
        end: how it ended; None: as the status says.
        alias, version: who answered, or was chosen to; empty: nobody.
        client: name of the client, where clients are known by name.
        queued: seconds that it waited for its version.
        usage: tokens; None if they are unknown.
        finish_reasons: reasons why the engine stopped.
    """

    # Most of these are set in few requests: a default of the class costs a request nothing.
    first_token_at: float = 0.0
    ended: float = 0.0
    queued: float = 0.0
    status: int = 0
    ended_at: int = 0
    end: End | None = None
    alias: str = ""
    version: str = ""
    client: str = ""
    usage: Usage | None = None
    finish_reasons: tuple[str, ...] = ()

    def __init__(
        self,
        method: bytes,
        path: str,
        request_id: bytes,
        trace: TraceContext | None,
        begun: float,
        on_ended: "Callable[[RequestRecord], None]",
    ) -> None:
        self.method = method
        self.path = path
        self.request_id = request_id
        self.trace = trace
        self.is_traced = trace is not None and trace.is_sampled
        self.begun = begun
        self._on_ended = on_ended

    # -- from the connection

    def answer_began(self, status: int) -> None:
        """Note the head of the answer."""
        self.status = status

    def answer_ended(self, now: float, complete: bool) -> None:
        """Note the end of the answer, or of the connection before it."""
        self.ended = now
        if self.end is None:
            if not complete:
                self.end = End.DISCONNECTED
            else:
                self.end = ANSWERED if self.status < 400 else End.REFUSED
        self._on_ended(self)


def record_of(connection: ServerConnection) -> RequestRecord | None:
    """Record of the request that a connection answers; None where nothing is written of requests."""
    observer = connection.observer
    return observer if isinstance(observer, RequestRecord) else None
