"""Access log and traces: what they say of each request, and what they never say."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.collector import Collector, attributes, running_collector
from agents.fake_engine import FakeEngine
from agents.wire import ASK, MODELS, connect, once, post

from tunesmith_agent.metrics import End, ExportCounts
from tunesmith_agent.settings import parse_settings
from tunesmith_agent.telemetry import access_log, telemetry
from tunesmith_agent.telemetry.access_log import AccessLogs
from tunesmith_agent.telemetry.background import BackgroundQueue
from tunesmith_agent.telemetry.record import RequestRecord
from tunesmith_agent.telemetry.spans import SpanWriter
from tunesmith_agent.telemetry.trace_context import (
    begin_trace,
    join_trace,
    parse_traceparent,
    unrecorded_trace,
)
from tunesmith_contract.agent import DesiredAlias, Version, served_name

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "SwordfishMarker"
STREAMED = {**ASK, "stream": True}


@pytest.fixture(autouse=True)
def quick_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads look often."""
    monkeypatch.setattr(telemetry, "_SECONDS", 0.01)
    monkeypatch.setattr(access_log, "_SECONDS", 0.01)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lines of access logs, as they are written."""
    written: list[dict[str, Any]] = []

    def write(records: list[RequestRecord]) -> bool:
        written.extend(json.loads(access_log._line(record)) for record in records)
        return True

    monkeypatch.setattr(access_log, "_write", write)
    return written


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


@asynccontextmanager
async def serving(
    engine: FakeEngine, storage: Storage, **settings: Any
) -> AsyncIterator[tuple[Running, str]]:
    """An agent that serves ``expenses``, and the name of its version."""
    async with running_agent(
        engine, storage.root, **{"access_logs": AccessLogs.ERRORS} | settings
    ) as running:
        version = storage.commit()
        running.want(DesiredAlias(name="expenses", stable=version))
        await running.active(version)
        yield running, served_name("expenses", version.digest)


def stable_of(running: Running) -> Version:
    """The version of ``expenses``."""
    state = running.agent.store.current
    assert state is not None and state.aliases[0].stable is not None
    return state.aliases[0].stable


# -- IDs and trace context


async def test_each_answer_has_an_id_which_the_engine_gets_too(agent: Running, expenses: Version) -> None:
    given = await once(agent, post(ASK, "X-Request-Id: mine-1"))
    made = await once(agent, post(ASK))
    long = await once(agent, post(ASK, f"X-Request-Id: {'x' * 200}"))
    assert given.headers["x-request-id"] == "mine-1"
    assert len({made.headers["x-request-id"], long.headers["x-request-id"], "mine-1", "x" * 200}) == 4
    ids = [headers["x-request-id"] for headers in agent.engine.headers]
    assert ids == [answer.headers["x-request-id"] for answer in (given, made, long)]
    async with connect(agent) as wire:
        first, second = await wire.ask(MODELS), await wire.ask(post({"model": "nobody"}))
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_the_trace_context_passes_while_no_traces_are_sent(agent: Running, expenses: Version) -> None:
    value = f"00-{TRACE}-{PARENT}-01"
    await once(agent, post(ASK, f"traceparent: {value}", "tracestate: a=b"))
    headers = agent.engine.headers[0]
    assert (headers["traceparent"], headers["tracestate"]) == (value, "a=b")


def test_contexts() -> None:
    context = parse_traceparent(f"00-{TRACE}-{PARENT}-01".encode())
    assert context is not None
    assert (context.trace_id, context.parent_id, context.is_sampled) == (
        TRACE.encode(),
        PARENT.encode(),
        True,
    )
    for wrong in (
        f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-more", f"00-{TRACE.upper()}-{PARENT}-01", "", "00-1-2-3",
    ):  # fmt: skip
        assert parse_traceparent(wrong.encode()) is None
    assert parse_traceparent(f"01-{TRACE}-{PARENT}-01-more".encode()) is not None


def test_contexts_of_new_and_joined_traces() -> None:
    new = begin_trace()
    parsed = parse_traceparent(new.to_header())
    assert parsed is not None and (parsed.trace_id, parsed.is_sampled) == (new.trace_id, True)
    unrecorded = parse_traceparent(unrecorded_trace())
    assert unrecorded is not None and not unrecorded.is_sampled
    joined = join_trace(parsed)
    assert (joined.trace_id, joined.parent_id, joined.is_sampled) == (new.trace_id, new.span_id, True)
    assert joined.span_id not in (new.span_id, b"")


# -- access log


async def test_lines_of_answers_refusals_and_errors(
    engine: FakeEngine, storage: Storage, lines: list[dict[str, Any]]
) -> None:
    async with serving(engine, storage, access_logs=AccessLogs.ALL) as (running, name):
        await once(running, post(ASK, "X-Request-Id: mine", f"traceparent: 00-{TRACE}-{PARENT}-00"))
        await once(running, post({"model": SECRET}))
        await once(running, post(path=f"/v1/{SECRET}"))
        await once(running, MODELS)
        engine.fail_with[name] = 500
        await once(running, post())
    fields = ("method", "path", "alias", "version", "status", "end")
    chat = "/v1/chat/completions"
    assert [tuple(line[field] for field in fields) for line in lines] == [
        ("POST", chat, "expenses", name, 200, "answered"),
        ("POST", chat, None, None, 404, "refused"),
        ("POST", None, None, None, 404, "refused"),
        ("GET", "/v1/models", None, None, 200, "answered"),
        ("POST", chat, "expenses", name, 500, "error"),
    ]
    assert (lines[0]["request_id"], lines[0]["trace_id"]) == ("mine", TRACE)
    assert (lines[0]["prompt_tokens"], lines[0]["prompt_tokens_cached"], lines[0]["generation_tokens"]) == (
        40,
        32,
        3,
    )
    assert 0 <= lines[0]["duration_ms"] < 10_000
    assert SECRET not in json.dumps(lines)


async def test_errors_alone(engine: FakeEngine, storage: Storage, lines: list[dict[str, Any]]) -> None:
    async with serving(engine, storage) as (running, _):
        await once(running, post())
        await once(running, post({"model": "nobody"}))
    assert [line["status"] for line in lines] == [404]


async def test_ends_that_clients_and_engines_make(
    engine: FakeEngine, storage: Storage, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(engine, storage) as (running, name):
        engine.hold = asyncio.Event()
        async with connect(running) as wire:
            wire.writer.write(post())
            await engine.arrived.wait()
        await engine.left.wait()
        engine.hold = None
        engine.pieces.put_nowait(b"data: one\n\n")
        engine.pieces.put_nowait(b"break")
        async with connect(running) as wire:
            wire.writer.write(post(STREAMED))
            await wire.reader.read()
        running.cut_off(monkeypatch)
        await once(running, post())
        counted = dict(running.agent.metrics.stats("expenses", stable_of(running).digest).ends())
    assert [(line["status"], line["end"]) for line in lines] == [
        (None, "disconnected"), (200, "error"), (503, "engine_lost"),
    ]  # fmt: skip
    assert {line["version"] for line in lines} == {name}
    assert lines[1]["first_token_ms"] is not None
    assert (counted[End.DISCONNECTED], counted[End.ERROR], counted[End.ENGINE_LOST]) == (1, 1, 1)


async def test_a_stream_with_an_error_of_the_engine_is_an_error_of_its_version(
    engine: FakeEngine, storage: Storage, lines: list[dict[str, Any]]
) -> None:
    """The engine has sent 200 by then, and ends the stream as if it were whole."""
    async with serving(engine, storage) as (running, _):
        for piece in (b"data: one\n\n", b'data: {"error": {"message": "x", "code": 500}}\n\n', None):
            engine.pieces.put_nowait(piece)
        answer = await once(running, post(STREAMED))
        assert answer.status == 200 and b'"code": 500' in answer.body
        stats = running.agent.metrics.stats("expenses", stable_of(running).digest)
        assert (stats.errors, stats.error_row.errors) == (1, 1)
    assert [(line["status"], line["end"]) for line in lines] == [(200, "error")]


async def test_events_before_the_first_token_are_not_taken_for_it(
    engine: FakeEngine, storage: Storage, lines: list[dict[str, Any]]
) -> None:
    async with serving(engine, storage, access_logs=AccessLogs.ALL) as (running, _):
        engine.pieces.put_nowait(b"event: response.created\ndata: {}\n\n")
        engine.pieces.put_nowait(None)
        asked = {"model": "expenses", "input": "x", "stream": True, "store": False}
        await once(running, post(asked, path="/v1/responses"))
    assert [(line["status"], line["first_token_ms"]) for line in lines] == [(200, None)]


async def test_no_log_and_no_thread(
    engine: FakeEngine, storage: Storage, lines: list[dict[str, Any]]
) -> None:
    before = threading.active_count()
    async with serving(engine, storage, access_logs=AccessLogs.NONE) as (running, _):
        await once(running, post({"model": "nobody"}))
        assert threading.active_count() == before
    assert lines == []


def test_lines_that_find_no_room_are_counted() -> None:
    counts, written, gate = ExportCounts(), [], threading.Event()

    def write(batch: list[int]) -> bool:
        gate.wait(10)
        written.extend(batch)
        return True

    queue: BackgroundQueue[int] = BackgroundQueue("test", write, counts, capacity=10, seconds=0.001)
    for number in range(15):
        queue.put(number)
    queue.start()
    gate.set()
    queue.stop(10)
    assert written == list(range(10))
    assert (counts.written, counts.dropped, counts.failed) == (10, 5, 0)


def test_a_writer_that_fails_once_writes_on(caplog: pytest.LogCaptureFixture) -> None:
    counts, written, failed = ExportCounts(), [], threading.Event()

    def write(batch: list[int]) -> bool:
        if 1 in batch:
            failed.set()
            raise RuntimeError("on purpose")
        written.extend(batch)
        return True

    queue: BackgroundQueue[int] = BackgroundQueue("test", write, counts, capacity=10, seconds=0.001)
    queue.start()
    queue.put(1)
    assert failed.wait(10)
    queue.put(2)
    queue.stop(10)
    assert (written, counts.written, counts.failed) == ([2], 1, 1)
    assert "could not be written" in caplog.text


def test_a_writer_that_hangs_keeps_nobody() -> None:
    gate = threading.Event()

    def write(batch: list[int]) -> bool:
        return gate.wait(30)

    queue: BackgroundQueue[int] = BackgroundQueue("test", write, ExportCounts(), capacity=1, seconds=0.001)
    queue.start()
    queue.put(1)
    queue.stop(0.01)
    queue.put(2)
    gate.set()


# -- traces


async def test_span_of_a_stream(engine: FakeEngine, storage: Storage, collector: Collector) -> None:
    choice = {"index": 0, "delta": {"content": SECRET}, "finish_reason": "length"}
    async with serving(
        engine, storage, traces_endpoint=collector.url, traces_ratio=0.0, pod_name="pod-1", deployment="d"
    ) as (running, name):
        engine.pieces.put_nowait(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())
        engine.pieces.put_nowait(None)
        value = f"00-{TRACE}-{PARENT}-01"
        answer = await once(running, post(STREAMED, f"traceparent: {value}", "X-Request-Id: mine"))
        assert b'"usage"' not in answer.body
    (span,) = collector.spans()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert engine.headers[0]["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert (span.name, span.kind, span.status.code) == ("chat expenses", span.SPAN_KIND_SERVER, 0)
    assert attributes(span.attributes) == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "expenses",
        "gen_ai.response.model": name,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 32,
        "tunesmith.request.end": "answered",
        "tunesmith.request.id": "mine",
    }
    assert [event.name for event in span.events] == ["first token"]
    assert span.start_time_unix_nano <= span.events[0].time_unix_nano <= span.end_time_unix_nano
    resource = collector.resource()
    assert (resource["service.name"], resource["k8s.pod.name"]) == ("tunesmith-serving", "pod-1")


async def test_wait_and_error_in_a_span(engine: FakeEngine, storage: Storage, collector: Collector) -> None:
    settings: dict[str, Any] = {"traces_endpoint": collector.url, "traces_ratio": 1.0, "adapter_slots": 1}
    async with serving(engine, storage, **settings) as (running, name):
        stable, other = stable_of(running), storage.commit()
        running.want(DesiredAlias(name="expenses", stable=stable), DesiredAlias(name="other", stable=other))
        await running.active(stable, other)
        await once(running, post({**ASK, "model": "other"}))
        engine.fail_with[name] = 500
        await once(running, post())
        counts = running.agent.metrics.spans
    waited = collector.spans()[1]
    assert [event.name for event in waited.events] == ["version loaded"]
    assert waited.status.code == waited.status.STATUS_CODE_ERROR
    assert attributes(waited.attributes)["error.type"] == "500"
    assert (counts.written, counts.dropped, counts.failed) == (2, 0, 0)


async def test_the_share_of_new_traces_and_the_clients_decision(
    engine: FakeEngine, storage: Storage, collector: Collector
) -> None:
    async with (
        serving(engine, storage, traces_endpoint=collector.url, traces_ratio=0.5) as (running, _),
        connect(running) as wire,
    ):
        for _ in range(100):
            await wire.ask(post())
        await wire.ask(post(ASK, f"traceparent: 00-{TRACE}-{PARENT}-00"))
    new = [span for span in collector.spans() if not span.parent_span_id]
    assert 20 < len(new) == len(collector.spans()) < 80
    assert len({span.trace_id for span in new}) == len(new)


async def test_unsampled_requests_have_no_span_and_the_engine_is_told(
    engine: FakeEngine, storage: Storage, collector: Collector
) -> None:
    async with serving(engine, storage, traces_endpoint=collector.url, traces_ratio=0.0) as (running, _):
        await once(running, post(ASK, "traceparent: nonsense", "tracestate: a=b"))
    assert engine.headers[0]["traceparent"].endswith("-00")
    assert "tracestate" not in engine.headers[0]
    assert collector.bodies == []


def test_a_collector_that_takes_nothing_is_said_once(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    record = RequestRecord(b"POST", "/v1/completions", b"id", begin_trace(), 0.0, lambda record: None)
    record.answer_began(200)
    record.answer_ended(1.0, complete=True)
    record.ended_at = 1_800_000_000_000_000_000
    writer = SpanWriter(collector.url, {})
    with caplog.at_level(logging.INFO):
        results = []
        for collector.status in (400, 400, 400, 200, 200):
            results.append(writer.write([record]))
    writer.close()
    assert results == [False, False, False, True, True]
    assert [entry.getMessage() for entry in caplog.records] == [
        "the collector takes no traces; they are left out until it does",
        "the collector takes traces again",
    ]
    assert "400" in caplog.records[0].__dict__["detail"]


async def test_an_absent_collector_holds_up_nobody(
    engine: FakeEngine, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_STOP_SECONDS", 0.05)
    monkeypatch.setattr(telemetry, "_SPANS", 4)
    async with asyncio.timeout(10):
        async with serving(
            engine, storage, traces_endpoint="http://127.0.0.1:9/v1/traces", traces_ratio=1.0
        ) as (running, _):
            for _ in range(20):
                assert (await once(running, post())).status == 200
            counts = running.agent.metrics.spans
            assert counts.written == 0
            assert counts.dropped >= 8


def test_the_library_is_not_loaded_while_no_traces_are_sent() -> None:
    code = "import sys, tunesmith_agent.app; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


# -- nothing of what clients or models write


async def test_nothing_sensitive_is_written_anywhere(
    engine: FakeEngine, storage: Storage, collector: Collector, lines: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A marker in everything that a client may send and a model may say, in requests that end in many ways."""
    full: dict[str, Any] = {
        "model": "expenses", "user": SECRET, "safety_identifier": SECRET, "prompt_cache_key": SECRET,
        "messages": [{"role": "user", "content": SECRET, "name": SECRET}], "metadata": {SECRET: SECRET},
        "tools": [{"type": "function", "function": {"name": SECRET}}], "stop": [SECRET],
    }  # fmt: skip
    headers = [
        f"Authorization: Bearer {SECRET}", f"x-tunesmith-key: {SECRET}", f"Cookie: a={SECRET}", f"User-Agent: {SECRET}",
        f"tracestate: a={SECRET}", f"baggage: user={SECRET}", f"traceparent: 00-{TRACE}-{PARENT}-01", f"x-{SECRET}: 1",
    ]  # fmt: skip
    said = {"choices": [{"index": 0, "delta": {"content": SECRET}, "finish_reason": SECRET}], SECRET: SECRET}
    requests = [
        post(full, *headers),
        post({**full, "model": SECRET}, *headers),
        post({**full, "stream": True}, *headers),
        post({**full, "prompt_logprobs": 1}, *headers),
        post(SECRET.encode(), *headers),
        post(full, *headers, path=f"/v1/{SECRET}?key={SECRET}"),
        post(full, *headers, path=f"/v1/completions?key={SECRET}"),
        post(full, f"X-Request-Id: {SECRET} {SECRET}", *headers),
        post(full, f"traceparent: {SECRET}"),
        f"{SECRET} / HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    ]
    settings = {"traces_endpoint": collector.url, "traces_ratio": 1.0, "access_logs": AccessLogs.ALL}
    with caplog.at_level(logging.DEBUG):
        async with serving(engine, storage, **settings) as (running, name):
            for piece in (b"data: %b\n\n" % json.dumps(said).encode(), None):
                engine.pieces.put_nowait(piece)
            for request in requests:
                await once(running, request)
            engine.fail_with[name] = 500
            await once(running, post(full, *headers))
            metrics = running.agent.metrics.render().decode()
    output = capfd.readouterr()
    seen = [
        json.dumps(lines),
        metrics,
        output.out,
        output.err,
        *(str(record.__dict__) for record in caplog.records),
    ]
    assert SECRET.lower() not in "\n".join(seen).lower()
    assert not any(SECRET.encode().lower() in body.lower() for body in collector.bodies)
    # All of it did reach the engine or its model's client: the test is not blind.
    assert SECRET in json.dumps(engine.requests)


def test_settings() -> None:
    environment = {
        "TUNESMITH_ACCESS_LOGS": "All", "TUNESMITH_TRACES_ENDPOINT": "http://c:4318/v1/traces",
        "TUNESMITH_TRACES_RATIO": "0.5", "POD_NAME": "p",
    }  # fmt: skip
    settings = parse_settings([], environment).to_telemetry()
    assert (settings.access_logs, settings.traces_ratio) == (AccessLogs.ALL, 0.5)
    assert settings.traces_endpoint == "http://c:4318/v1/traces"
    assert settings.resource == {"k8s.namespace.name": "default", "k8s.pod.name": "p"}
