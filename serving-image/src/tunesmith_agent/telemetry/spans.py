"""Spans of requests, sent by OTLP over HTTP. Only imported where traces are switched on: the library is large."""

import logging
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from tunesmith_agent.metrics import End

from .record import RequestRecord

log = logging.getLogger(__name__)

_SERVICE_NAME = "tunesmith-serving"
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}

AttributeValue = str | int | float | tuple[str, ...]


class SpanWriter:
    """Writer of spans to one collector; everything but ``close`` runs in one thread.

    The SDK makes the spans afterwards, from records: on the way of a request it would cost more than the rest of the
    agent.

    Args:
        endpoint: URL of the collector, with its path.
        resource: attributes of this process.
    """

    def __init__(self, endpoint: str, resource: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        self._ids = _ChosenIds()
        self._ended = _EndedSpans()
        # The name of the service may be set by the variables of OpenTelemetry.
        named = OTELResourceDetector().detect().attributes.get("service.name", _SERVICE_NAME)
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({**resource, "service.name": str(named)}),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("tunesmith_agent")
        self._is_failing = False
        self._reason = _LastMessage()
        library = logging.getLogger("opentelemetry")
        library.handlers, library.propagate = [self._reason], False

    def write(self, records: list[RequestRecord]) -> bool:
        """Send the spans of requests that have ended; False if the collector did not take them."""
        for record in records:
            self._add_span(record)
        is_sent = self._exporter.export(self._ended.take()) is SpanExportResult.SUCCESS
        if not is_sent and not self._is_failing:
            details = {"endpoint": self._endpoint, "detail": self._reason.text}
            log.warning("the collector takes no traces; they are left out until it does", extra=details)
        elif is_sent and self._is_failing:
            log.info("the collector takes traces again", extra={"endpoint": self._endpoint})
        self._is_failing = not is_sent
        return is_sent

    def close(self) -> None:
        """Give up what is being sent."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _add_span(self, record: RequestRecord) -> None:
        trace = record.trace
        assert trace is not None, "only sampled requests are written"
        self._ids.trace_id, self._ids.span_id = int(trace.trace_id, 16), int(trace.span_id, 16)
        context = None
        if trace.parent_id:
            parent_id, flags = int(trace.parent_id, 16), TraceFlags(TraceFlags.SAMPLED)
            parent = SpanContext(self._ids.trace_id, parent_id, is_remote=True, trace_flags=flags)
            context = set_span_in_context(NonRecordingSpan(parent))
        operation = _OPERATIONS.get(record.path, "")
        begun_at = record.ended_at - round(1e9 * (record.ended - record.begun))
        span = self._tracer.start_span(
            f"{operation} {record.alias}".strip() or record.method.decode(),
            context,
            SpanKind.SERVER,
            _attributes(record, operation),
            start_time=begun_at,
        )
        if record.queued:
            queued = {"tunesmith.queue.seconds": round(record.queued, 6)}
            span.add_event("version loaded", queued, begun_at + round(1e9 * record.queued))
        if record.first_token_at:
            seconds = record.first_token_at - record.begun
            first = {"gen_ai.latency.time_to_first_token": round(seconds, 6)}
            span.add_event("first token", first, begun_at + round(1e9 * seconds))
        if record.status >= 500 or record.end in (End.ERROR, End.ENGINE_LOST):
            span.set_status(Status(StatusCode.ERROR))
        span.end(record.ended_at)


def _attributes(record: RequestRecord, operation: str) -> dict[str, AttributeValue]:
    """Attributes by OpenTelemetry's conventions for HTTP and for generative AI; those without a value are left out."""
    usage, is_answered = record.usage, record.end is End.ANSWERED
    values: dict[str, AttributeValue] = {
        "http.request.method": record.method.decode(),
        "url.path": record.path,
        "http.response.status_code": record.status,
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "vllm" if operation else "",
        "gen_ai.request.model": record.alias,
        "gen_ai.response.model": record.version,
        "gen_ai.response.finish_reasons": record.finish_reasons,
        "error.type": "" if is_answered and record.status < 400 else _error_type(record),
        "tunesmith.request.end": str(record.end),
        "tunesmith.request.id": record.request_id.decode(),
        "tunesmith.client": record.client,
    }
    given = {name: value for name, value in values.items() if value}
    if usage is not None:
        given["gen_ai.usage.input_tokens"] = usage.prompt
        given["gen_ai.usage.output_tokens"] = usage.generated
        given["gen_ai.usage.cache_read.input_tokens"] = usage.cached
    return given


def _error_type(record: RequestRecord) -> str:
    return str(record.status) if record.status >= 400 else str(record.end)


class _ChosenIds(IdGenerator):
    """IDs that were chosen when the request came, as the engine was told them."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        """Trace ID of the next span."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """ID of the next span."""
        return self.span_id


class _EndedSpans(SpanProcessor):
    """Spans that have ended and were not taken yet."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span."""
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        """All spans, which are not kept any longer."""
        spans, self._spans = self._spans, []
        return spans


class _LastMessage(logging.Handler):
    """Latest message of the library, which would log the same one again with each batch.

    Attributes:
        text: the message.
    """

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.text = record.getMessage()[:200]
