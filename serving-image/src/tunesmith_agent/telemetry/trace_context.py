"""Trace context of W3C: the header ``traceparent``, and which traces are recorded."""

import re
from random import getrandbits
from typing import NamedTuple

#: Version, trace ID, parent ID and flags; later versions may go on behind them.
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_SAMPLED = 1


class TraceContext(NamedTuple):
    """Place of one request in a trace; IDs are in hexadecimal digits, as in the header.

    Attributes:
        span_id: ID of the span of this request; empty while it has none.
        parent_id: ID of the client's span; empty if the trace begins here.
        is_sampled: the trace is recorded.
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    is_sampled: bool

    def to_header(self) -> bytes:
        """Value of ``traceparent`` for the engine."""
        return b"00-%b-%b-%b" % (self.trace_id, self.span_id, b"01" if self.is_sampled else b"00")


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Context of the client, whose span is the parent; None if the value is invalid."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if trace_id == _NO_TRACE or parent_id == _NO_SPAN or (more and version == b"00"):
        return None
    return TraceContext(trace_id, b"", parent_id, bool(int(flags, 16) & _SAMPLED))


def join_trace(parent: TraceContext) -> TraceContext:
    """Context of a request of a client with this context; the client's decision to record holds."""
    return parent._replace(span_id=b"%016x" % getrandbits(64))


def begin_trace() -> TraceContext:
    """Context of a new trace that is recorded."""
    return TraceContext(b"%032x" % getrandbits(128), b"%016x" % getrandbits(64), b"", True)


def unrecorded_trace() -> bytes:
    """Value of ``traceparent`` of a new trace that is not recorded; the engine then does not record it either."""
    return b"00-%032x-%016x-00" % (getrandbits(128), getrandbits(64))
