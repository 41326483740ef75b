"""Trace context of W3C: the header ``traceparent``, and which traces are recorded."""

import re
from dataclasses import dataclass
from random import getrandbits

#: Version, trace ID, parent ID and flags; later versions may go on behind them.
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Place of one request in a trace.

    Attributes:
        span_id: ID of the span of this request.
        parent_id: ID of the client's span; 0 if the trace begins here.
        is_sampled: the trace is recorded.
    """

    trace_id: int
    span_id: int
    parent_id: int
    is_sampled: bool

    def to_header(self) -> bytes:
        """Value of ``traceparent`` for the engine."""
        return b"00-%032x-%016x-%02x" % (self.trace_id, self.span_id, self.is_sampled)


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Context of the client; its span is the parent. None if the value is invalid.

    The span of this request has the ID 0.
    """
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace, parent, flags, more = match.groups()
    trace_id, parent_id = int(trace, 16), int(parent, 16)
    if not trace_id or not parent_id or (more and version == b"00"):
        return None
    return TraceContext(trace_id, 0, parent_id, bool(int(flags, 16) & _SAMPLED))


def begin_span(parent: TraceContext | None, ratio: float) -> TraceContext:
    """Context of a request of a client with this context, or of a new trace.

    The client's decision to record holds. Of new traces a share is recorded, chosen by the ID as OpenTelemetry's
    TraceIdRatioBased does it.
    """
    span_id = getrandbits(64) or 1
    if parent is not None:
        return TraceContext(parent.trace_id, span_id, parent.parent_id, parent.is_sampled)
    trace_id = getrandbits(128) or 1
    is_sampled = trace_id & 0xFFFFFFFFFFFFFFFF < int(ratio * 2**64)
    return TraceContext(trace_id, span_id, 0, is_sampled)
