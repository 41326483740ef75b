"""Entry of all client requests: IDs, trace context, and a record of each request where one is wanted."""

import itertools
import re
import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import random

from tunesmith_agent.http.connection import Handler, ServerConnection
from tunesmith_agent.http.messages import Request
from tunesmith_agent.metrics import AgentMetrics

from .access_log import AccessLog, AccessLogs
from .background import BackgroundQueue
from .record import RequestRecord
from .trace_context import begin_trace, join_trace, parse_traceparent, unrecorded_trace

_ID_HEADER, _TRACE_HEADER, _STATE_HEADER = b"x-request-id", b"traceparent", b"tracestate"
#: An ID of a client that is passed on: visible characters, not too many.
_VALID_ID = re.compile(rb"[!-~]{1,128}")

_SPANS = 4096
_SECONDS = 1.0
_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is written of requests.

    Attributes:
        access_logs: requests that are written to the access log.
        traces_endpoint: URL of an OTLP/HTTP collector with its path, such as ``http://collector:4318/v1/traces``;
            empty: no traces are written.
        traces_ratio: share of new traces that are recorded, 0 to 1.
        resource: attributes of this process in traces.
    """

    access_logs: AccessLogs
    traces_endpoint: str
    traces_ratio: float
    resource: Mapping[str, str]


class Telemetry:
    """Handler in front of another one.

    Each answer has an ``x-request-id``, the client's or a new one, which the engine gets too. The trace context is
    passed to the engine, with the span of this request in it where traces are written.

    Args:
        handler: answers the requests.
        paths: paths that are served; others are not written down, as they may hold anything.
    """

    def __init__(
        self, handler: Handler, paths: Collection[bytes], settings: TelemetrySettings, metrics: AgentMetrics
    ) -> None:
        self._handler = handler
        self._paths = {path: path.decode() for path in paths}
        self._ratio = settings.traces_ratio
        self._id_prefix = secrets.token_hex(8).encode()
        self._numbers = itertools.count(1)
        self._access_log: AccessLog | None = None
        self._spans: BackgroundQueue[RequestRecord] | None = None
        self._settings = settings
        self._metrics = metrics
        self._is_recording = False

    def start(self) -> None:
        """Start the threads that write."""
        settings = self._settings
        if settings.access_logs is not AccessLogs.NONE:
            self._access_log = AccessLog(settings.access_logs, self._metrics.access_log)
            self._access_log.start()
        if settings.traces_endpoint:
            from .spans import SpanWriter

            self._writer = SpanWriter(settings.traces_endpoint, settings.resource)
            counts = self._metrics.spans
            self._spans = BackgroundQueue("traces", self._writer.write, counts, _SPANS, _SECONDS)
            self._spans.start()
        self._is_recording = self._access_log is not None or self._spans is not None

    def stop(self) -> None:
        """Write what is left, for a moment."""
        if self._access_log is not None:
            self._access_log.stop()
        if self._spans is not None:
            self._spans.stop(_STOP_SECONDS)
            self._writer.close()

    def __call__(self, connection: ServerConnection, request: Request) -> None:
        """Answer one request."""
        headers = request.headers
        request_id = headers.get(_ID_HEADER)
        if request_id is None or not _VALID_ID.fullmatch(request_id):
            request_id = headers[_ID_HEADER] = b"%b-%x" % (self._id_prefix, next(self._numbers))
        connection.answer_headers = b"x-request-id: %b\r\n" % request_id
        if self._is_recording:
            connection.observer = self._begin(connection, request, request_id)
        self._handler(connection, request)

    def _begin(self, connection: ServerConnection, request: Request, request_id: bytes) -> RequestRecord:
        headers = request.headers
        value = headers.get(_TRACE_HEADER)
        trace = parse_traceparent(value) if value else None
        if self._spans is not None:
            if trace is not None:
                trace = join_trace(trace)
            else:
                headers.pop(_STATE_HEADER, None)
                trace = begin_trace() if random() < self._ratio else None
            headers[_TRACE_HEADER] = trace.to_header() if trace else unrecorded_trace()
        return RequestRecord(
            request.method,
            self._paths.get(request.path, ""),
            request_id,
            trace,
            connection.loop.time(),
            self._end,
        )

    def _end(self, record: RequestRecord) -> None:
        record.ended_at = time.time_ns()
        if self._access_log is not None:
            self._access_log.add(record)
        if self._spans is not None and record.is_traced:
            self._spans.put(record)
