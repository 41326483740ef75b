"""Counters of the data path, and their Prometheus metrics.

Counting is plain integer arithmetic on one thread; metrics are made from it at each scrape. docs/telemetry.md lists all
metrics. Names after the prefix follow vLLM's, buckets follow OpenTelemetry's conventions for generative AI.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tunesmith_contract.agent import served_name

from .evidence import ErrorRow, VersionEvidence

#: Upper bounds in seconds of ``gen_ai.server.request.duration``, ``gen_ai.server.time_to_first_token`` and
#: ``gen_ai.server.time_per_output_token`` in OpenTelemetry's semantic conventions.
DURATION_BUCKETS = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

#: Versions that are no longer served but still in the reports to the operator.
PAST_VERSIONS = 64
#: Time for which metrics still name a version that is no longer served: a few scrapes see its last requests.
PAST_SECONDS = 300.0

PREFIX = "tunesmith_agent_"

#: Names in vLLM's pull request 54830.
_ADAPTER_LOADED = "vllm:lora_adapter_loaded"
_ADAPTERS_LOADED = "vllm:num_cpu_loaded_lora_adapters"


class End(StrEnum):
    """End of a request, as metrics, traces and access logs name it."""

    ANSWERED = "answered"
    #: A 5xx answer, or one that broke off.
    ERROR = "error"
    #: The client left after a long wait for a token.
    ABANDONED = "abandoned"
    #: The client left earlier.
    DISCONNECTED = "disconnected"
    ENGINE_LOST = "engine_lost"
    #: Refused before it was sent to the engine, or by an engine that lacks the version.
    REFUSED = "refused"


#: Most requests end so; a member by its name in a class takes three times as long.
ANSWERED = End.ANSWERED


class Usage(NamedTuple):
    """Tokens of one request, as the engine counts them.

    Attributes:
        cached: those of ``prompt`` that came from the engine's cache.
    """

    prompt: int
    generated: int
    cached: int


class Histogram:
    """Counts per bucket and a sum."""

    __slots__ = ("_buckets", "counts", "total")

    def __init__(self, buckets: tuple[float, ...] = DURATION_BUCKETS) -> None:
        self._buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._buckets, seconds)] += 1
        self.total += seconds

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str], zeros: int = 0) -> None:
        """Add the values counted so far to a family, under the values of its labels; nothing if there are none.

        Args:
            zeros: number of further values that are 0.
        """
        if not any(self.counts):
            return
        bounds = (*map(str, self._buckets), "+Inf")
        counts = accumulate((self.counts[0] + zeros, *self.counts[1:]))
        family.add_metric(labels, list(zip(bounds, counts, strict=True)), self.total)


class VersionStats:
    """Counters of one version since the agent started.

    Attributes:
        name: the version's name in the engine, and in metrics.
        errors: 5xx answers and broken streams.
        disconnects: clients that left before the end.
        abandoned: those of them that had waited long for a token.
        engine_lost: requests that found no engine.
        error_row: errors since the last success.
        evidence: the requests by the end that counts in a rollout, for the operator.
        on_error: called with these stats after each error.
        on_idle: called when the last request in progress has ended.
        last_used: time of the latest request, by the monotonic clock; 0 before the first one.
        left_at: time at which the version was no longer served, by the monotonic clock; None while it is.
        hits: requests that found the version in the engine.
        waiting: requests that wait until the engine holds the version.
        waits: requests that have waited, by what came of it: ``served``, ``moved`` to another version, ``timed_out``,
            ``left`` by the client, or ``full``: too many waited already.
        loads: loads into the engine.
        evictions: times that it made room in the engine for others.
        queued: seconds that requests waited, without those that did not wait.
        without_usage: requests that the engine began to answer and whose tokens are unknown.
    """

    #: Seconds after which a request counts half as one of late.
    HALF_LIFE = 600.0

    __slots__ = (
        "_recent", "_recent_at", "_recent_requests", "abandoned", "alias", "by_status", "cached_tokens",
        "digest", "disconnects", "duration", "engine_lost", "error_row", "errors", "evictions", "evidence",
        "first_token", "generation_tokens", "hits", "in_flight", "last_used", "left_at", "loads", "name", "on_error",
        "on_idle", "per_token", "prompt_tokens", "queued", "requests", "waiting", "waits", "without_usage",
    )  # fmt: skip

    def __init__(self, alias: str, digest: str) -> None:
        self.alias = alias
        self.digest = digest
        self.name = served_name(alias, digest) if digest else alias
        self.requests = self.errors = self.disconnects = self.in_flight = 0
        self.abandoned = self.engine_lost = self.hits = self.waiting = self.loads = self.evictions = 0
        self.prompt_tokens = self.generation_tokens = self.cached_tokens = self.without_usage = 0
        self.last_used = 0.0
        self.left_at: float | None = None
        self.evidence = VersionEvidence()
        self.error_row = ErrorRow()
        self.by_status: dict[int, int] = {}
        self.waits: dict[str, int] = {}
        self.duration = Histogram()
        self.first_token = Histogram(FIRST_TOKEN_BUCKETS)
        self.per_token = Histogram(TOKEN_BUCKETS)
        self.queued = Histogram()
        self.on_error: Callable[[VersionStats], None] | None = None
        self.on_idle: Callable[[], None] | None = None
        self._recent = self._recent_at = 0.0
        self._recent_requests = 0

    def recent_requests(self, now: float) -> int:
        """Requests of late: each counts half after ``HALF_LIFE`` seconds.

        Args:
            now: time by the loop's clock.
        """
        fading = 0.5 ** ((now - self._recent_at) / self.HALF_LIFE)
        self._recent = self._recent * fading + self.requests - self._recent_requests
        self._recent_at, self._recent_requests = now, self.requests
        return round(self._recent)

    def begin(self) -> None:
        """Count a request that is sent to this version."""
        self.in_flight += 1
        self.last_used = time.monotonic()

    def finish(self, status: int, begun: float, now: float, key: int | None, *, broken: bool) -> End:
        """Count a request that was answered, or whose answer broke off.

        Args:
            begun, now: times of the request and of the end of the answer, by the loop's clock.
            key: sticky key of the client, if it is known.
        """
        self.requests += 1
        self.by_status[status] = self.by_status.get(status, 0) + 1
        self.duration.observe(now - begun)
        if broken or status >= 500:
            end = End.ERROR
            self.errors += 1
            self.evidence.count_failure(key, now)
            self.error_row.add(key)
            if self.on_error is not None:
                self.on_error(self)
        else:
            end = ANSWERED
            self.error_row.end()
            self.evidence.count_answer(key)
        self._request_ended()
        return end

    def count_tokens(self, usage: Usage | None, begun: float, first: float, now: float) -> None:
        """Count the tokens of a request that the engine began to answer.

        Args:
            usage: tokens; None if they are unknown.
            begun, now: times of the request and of the end of the answer, by the loop's clock.
            first: time of the first token; 0 if it is unknown, as the answer came in one piece.
        """
        if first:
            self.first_token.observe(first - begun)
        if usage is None:
            self.without_usage += 1
            return
        self.prompt_tokens += usage.prompt
        self.generation_tokens += usage.generated
        self.cached_tokens += usage.cached
        if first and usage.generated > 1:
            self.per_token.observe((now - first) / (usage.generated - 1))

    def count_disconnect(self, now: float, key: int | None, *, abandoned: bool) -> End:
        """Count a client that left before the end.

        Args:
            now: time by the loop's clock.
            key: sticky key of the client, if it is known.
            abandoned: it had waited long for a token, which tells against the version; otherwise the request is neither
                a success nor an error.
        """
        self.disconnects += 1
        if abandoned:
            self.abandoned += 1
            self.evidence.count_abandoned(key, now)
        self._request_ended()
        return End.ABANDONED if abandoned else End.DISCONNECTED

    def count_engine_lost(self) -> None:
        """Count a request that found no engine."""
        self.engine_lost += 1
        self.evidence.engine_lost += 1
        self._request_ended()

    def count_refused(self) -> None:
        """Count a request whose version the engine does not have."""
        self.evidence.refused += 1
        self._request_ended()

    def count_refused_waiting(self) -> None:
        """Count a request that this version was chosen for, and that was refused before it was sent."""
        self.evidence.refused += 1

    def count_wait(self, result: str, seconds: float) -> None:
        """Count the end of a wait; ``waits`` lists the results."""
        self.waits[result] = self.waits.get(result, 0) + 1
        self.queued.observe(seconds)

    def ends(self) -> Iterator[tuple[End, int]]:
        """Number of requests by their end; each request has one."""
        yield End.ANSWERED, self.requests - self.errors
        yield End.ERROR, self.errors
        yield End.ABANDONED, self.abandoned
        yield End.DISCONNECTED, self.disconnects - self.abandoned
        yield End.ENGINE_LOST, self.engine_lost
        yield End.REFUSED, self.evidence.refused

    def _request_ended(self) -> None:
        self.in_flight -= 1
        if not self.in_flight and self.on_idle is not None:
            self.on_idle()


@dataclass(frozen=True, slots=True)
class ConnectionGauges:
    """State of the server for clients at the time of a scrape; see ``ConnectionCounts``."""

    open: int = 0
    idle_closed: int = 0
    slow_closed: int = 0
    dropped: int = 0
    buffered_bytes: int = 0


_NO_CONNECTIONS = ConnectionGauges()


@dataclass
class ResidencyStats:
    """What the engine and the pod's disk hold.

    Attributes:
        resident_names: versions that the engine holds, by their names in it.
        cache_bytes: bytes of artifacts on the pod's disk.
    """

    resident_names: set[str] = field(default_factory=set)
    cache_bytes: int = 0


@dataclass
class ExportCounts:
    """Lines of the access log, or spans, by what became of them.

    Attributes:
        written: passed on.
        dropped: left out, as too many waited.
        failed: left out, as nobody took them.
    """

    written: int = 0
    dropped: int = 0
    failed: int = 0


class HopStats:
    """Counters of requests that this pod forwards to other pods, and of those that it gets from them.

    Only the pod that sends a request to its engine counts it for the version.

    Attributes:
        results: forwarded requests, by what came of each: ``answered``, ``not_held`` by the other pod, ``unreachable``
            where it did not ask for the body in time, ``broken`` off, or ``left`` by the client. One request may be
            forwarded several times.
        received: requests of other pods, by what came of each: ``taken``, ``not_held``, or ``forged``.
        consent_seconds: time until the other pod asked for the body: what a hop adds.
        in_flight: forwarded requests that are in progress.
    """

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.received: dict[str, int] = {}
        self.consent_seconds = Histogram()
        self.in_flight = 0

    def begin(self) -> None:
        """Count a request that is forwarded."""
        self.in_flight += 1

    def end(self, result: str) -> None:
        """Count the end of one that was forwarded; ``results`` lists them."""
        self.in_flight -= 1
        self.results[result] = self.results.get(result, 0) + 1

    def count_received(self, result: str) -> None:
        """Count a request of another pod."""
        self.received[result] = self.received.get(result, 0) + 1


@dataclass
class AgentMetrics:
    """All counters of the agent; versions no longer served stay in ``versions``, so that counters never fall."""

    versions: dict[tuple[str, str], VersionStats] = field(default_factory=dict)
    refusals: dict[tuple[int, str], int] = field(default_factory=dict)
    loads: dict[tuple[str, str], int] = field(default_factory=dict)
    load_seconds: Histogram = field(default_factory=Histogram)
    proofs: dict[tuple[str, str], int] = field(default_factory=dict)
    base_noise: float = 0.0
    engine_failures: int = 0
    generation: int = 0
    engine_up: bool = False
    engine_hangs: bool = False
    operator_connected: bool = False
    breakers_open: int = 0
    residency: ResidencyStats = field(default_factory=ResidencyStats)
    hops: HopStats = field(default_factory=HopStats)
    access_log: ExportCounts = field(default_factory=ExportCounts)
    spans: ExportCounts = field(default_factory=ExportCounts)

    def stats(self, alias: str, digest: str) -> VersionStats:
        """Counters of one version, created at first use; it is served from now on."""
        key = (alias, digest)
        if key not in self.versions:
            self.versions[key] = VersionStats(alias, digest)
        stats = self.versions[key]
        stats.left_at = None
        return stats

    def forget_versions(self, keep: Container[tuple[str, str]]) -> None:
        """Note which versions are no longer served, and drop the oldest of many; the base model stays."""
        past = [key for key, stats in self.versions.items() if key not in keep and stats.digest]
        now = time.monotonic()
        for key in past:
            stats = self.versions[key]
            stats.left_at = now if stats.left_at is None else stats.left_at
        for key in past[:-PAST_VERSIONS]:
            del self.versions[key]
        aliases = {alias for alias, _ in self.versions}
        for counts in (self.loads, self.proofs):
            for alias, result in tuple(counts):
                if alias not in aliases:
                    del counts[alias, result]

    def shown_versions(self) -> list[VersionStats]:
        """Versions that are served, or were until a moment ago."""
        oldest = time.monotonic() - PAST_SECONDS
        versions = tuple(self.versions.values())
        return [stats for stats in versions if stats.left_at is None or stats.left_at > oldest]

    def count_refusal(self, status: int, code: str) -> None:
        """Count an error answer of the agent itself, by its status and OpenAI's code."""
        self.refusals[status, code] = self.refusals.get((status, code), 0) + 1

    def count_load(self, alias: str, result: str, seconds: float) -> None:
        """Count an attempt to load and prove a version; ``result`` is ``Active`` or the reason of the failure."""
        self.loads[alias, result] = self.loads.get((alias, result), 0) + 1
        self.load_seconds.observe(seconds)

    def count_proof(self, alias: str, result: str, base_noise: float) -> None:
        """Count a measurement of a version's probes.

        Args:
            alias: alias of the version.
            result: ``Proved``, ``Unproven`` or the reason of the failure.
            base_noise: root mean square of the base model's difference from the trainer's, in nats per token.
        """
        self.proofs[alias, result] = self.proofs.get((alias, result), 0) + 1
        self.base_noise = base_noise

    def render(self, connections: ConnectionGauges = _NO_CONNECTIONS) -> bytes:
        """All metrics in Prometheus' text format, version 0.0.4.

        It takes a while for many versions, so it may run in another thread while requests are counted.
        """
        return generate_latest(_Collector(self, connections))

    def render_residency(self, engine: bytes) -> bytes:
        """What the engine holds, under the names that vLLM proposes for its own metrics.

        Args:
            engine: metrics of the engine; nothing is added where they have these names.
        """
        if _ADAPTER_LOADED.encode() in engine:
            return b""
        return generate_latest(_ResidencyCollector(self.residency.resident_names))


class _Collector(Collector):
    """Metric families made from the counters at the time of a scrape."""

    def __init__(self, metrics: AgentMetrics, connections: ConnectionGauges) -> None:
        self._metrics = metrics
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        """All families; the order is the order of the output."""
        yield from self._version_families()
        metrics = self._metrics
        refusals = _counter("refusals", "Requests that the agent itself refused.", "status", "code")
        for (status, code), count in tuple(metrics.refusals.items()):
            refusals.add_metric((str(status), code), count)
        yield refusals
        loads = _counter("loads", "Attempts to load and prove a version, by result.", "alias", "result")
        for key, count in tuple(metrics.loads.items()):
            loads.add_metric(key, count)
        yield loads
        proofs = _counter("proofs", "Measurements of a version's probes, by result.", "alias", "result")
        for key, count in tuple(metrics.proofs.items()):
            proofs.add_metric(key, count)
        yield proofs
        load_seconds = _histogram("load_seconds", "Time of an attempt to load.")
        metrics.load_seconds.add_to(load_seconds, ())
        yield load_seconds
        engine_failures = _counter("engine_failures", "Requests that never reached the engine.")
        engine_failures.add_metric((), metrics.engine_failures)
        yield engine_failures
        yield from self._connection_families()
        for name, text, value in (
            ("generation", "Generation of the desired state that is applied.", metrics.generation),
            ("engine_up", "1 while the engine accepts connections.", metrics.engine_up),
            ("engine_hangs", "1 while the engine generates nothing.", metrics.engine_hangs),
            ("operator_connected", "1 while the operator is connected.", metrics.operator_connected),
            ("base_noise", "Difference of base model and manifest, nats per token.", metrics.base_noise),
            ("breakers_open", "Candidates that this pod sends no requests to.", metrics.breakers_open),
        ):
            yield GaugeMetricFamily(PREFIX + name, text, value=value)
        yield from _hop_families(metrics.hops)
        text = "Bytes of artifacts on the pod's disk."
        yield GaugeMetricFamily(PREFIX + "artifact_cache_bytes", text, value=metrics.residency.cache_bytes)
        yield from self._export_families()

    def _export_families(self) -> Iterator[Metric]:
        for name, text, counts in (
            ("access_log_lines", "Lines of the access log, by result.", self._metrics.access_log),
            ("trace_spans", "Spans of traces, by result.", self._metrics.spans),
        ):
            family = _counter(name, text, "result")
            family.add_metric(("written",), counts.written)
            family.add_metric(("dropped",), counts.dropped)
            family.add_metric(("failed",), counts.failed)
            yield family

    def _connection_families(self) -> Iterator[Metric]:
        connections = self._connections
        closed = _counter("connections_closed", "Connections closed for lack of room, by kind.", "kind")
        closed.add_metric(("idle",), connections.idle_closed)
        closed.add_metric(("slow",), connections.slow_closed)
        closed.add_metric(("new",), connections.dropped)
        yield closed
        yield GaugeMetricFamily(PREFIX + "connections", "Connections of clients.", value=connections.open)
        text = "Bytes of requests in memory."
        yield GaugeMetricFamily(PREFIX + "buffered_bytes", text, value=connections.buffered_bytes)

    def _version_families(self) -> Iterator[Metric]:
        versions = [((stats.alias, stats.name), stats) for stats in self._metrics.shown_versions()]
        yield from _request_families(versions)
        yield from _token_families(versions)
        yield from _residency_families(versions, self._metrics.residency.resident_names)


class _ResidencyCollector(Collector):
    """Metric families of the adapters that the engine holds."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def collect(self) -> Iterator[Metric]:
        """All families; the order is the order of the output."""
        labels = ("adapter_name", "level", "pinned")
        loaded = GaugeMetricFamily(_ADAPTER_LOADED, "1 for each loaded LoRA adapter.", labels=labels)
        for name in sorted(self._names):
            loaded.add_metric((name, "cpu", "false"), 1)
        yield loaded
        text = "Number of LoRA adapters in CPU memory."
        yield GaugeMetricFamily(_ADAPTERS_LOADED, text, value=len(self._names))


#: Values of the labels ``alias`` and ``version``, and the counters of that version.
_Labelled = Sequence[tuple[tuple[str, str], VersionStats]]
_LABELS = ("alias", "version")


def _request_families(versions: _Labelled) -> Iterator[Metric]:
    requests = _counter("requests", "Requests by their end.", *_LABELS, "end")
    responses = _counter("responses", "Answers by their status.", *_LABELS, "status")
    evidence = _counter("evidence", "Requests by the end that counts in a rollout.", *_LABELS, "end")
    running = GaugeMetricFamily(PREFIX + "num_requests_running", "Requests in the engine.", labels=_LABELS)
    duration = _histogram("request_duration_seconds", "Time to the end of the answer.", *_LABELS)
    for labels, stats in versions:
        for end, count in stats.ends():
            requests.add_metric((*labels, end), count)
        for status, count in tuple(stats.by_status.items()):
            responses.add_metric((*labels, str(status)), count)
        for name, count in _ends(stats.evidence):
            evidence.add_metric((*labels, name), count)
        running.add_metric(labels, stats.in_flight)
        stats.duration.add_to(duration, labels)
    yield from (requests, responses, evidence, running, duration)


def _token_families(versions: _Labelled) -> Iterator[Metric]:
    prompt = _counter("prompt_tokens", "Tokens of prompts.", *_LABELS)
    cached = _counter("prompt_tokens_cached", "Tokens of prompts from the engine's cache.", *_LABELS)
    generated = _counter("generation_tokens", "Tokens generated.", *_LABELS)
    unknown = _counter("requests_without_usage", "Answers whose tokens are unknown.", *_LABELS)
    first = _histogram("time_to_first_token_seconds", "Time to the first token of a stream.", *_LABELS)
    each = _histogram("time_per_output_token_seconds", "Time per further token of a stream.", *_LABELS)
    for labels, stats in versions:
        prompt.add_metric(labels, stats.prompt_tokens)
        cached.add_metric(labels, stats.cached_tokens)
        generated.add_metric(labels, stats.generation_tokens)
        unknown.add_metric(labels, stats.without_usage)
        stats.first_token.add_to(first, labels)
        stats.per_token.add_to(each, labels)
    yield from (prompt, cached, generated, unknown, first, each)


def _residency_families(versions: _Labelled, resident_names: Container[str]) -> Iterator[Metric]:
    text = "Requests that wait until their version is loaded."
    waiting = GaugeMetricFamily(PREFIX + "num_requests_waiting", text, labels=_LABELS)
    text = "Time that requests waited until their version was loaded."
    queued = _histogram("request_queue_time_seconds", text, *_LABELS)
    text = "1 while the engine holds the version."
    resident = GaugeMetricFamily(PREFIX + "resident", text, labels=_LABELS)
    hits = _counter("residency_hits", "Requests whose version the engine held.", *_LABELS)
    waits = _counter("residency_waits", "Requests that waited, by what came of it.", *_LABELS, "result")
    loads = _counter("residency_loads", "Loads into the engine.", *_LABELS)
    text = "Times that the version made room in the engine for others."
    evictions = _counter("residency_evictions", text, *_LABELS)
    for labels, stats in versions:
        if not stats.digest:
            continue
        waiting.add_metric(labels, stats.waiting)
        resident.add_metric(labels, stats.name in resident_names)
        stats.queued.add_to(queued, labels, zeros=stats.hits)
        hits.add_metric(labels, stats.hits)
        for result, count in tuple(stats.waits.items()):
            waits.add_metric((*labels, result), count)
        loads.add_metric(labels, stats.loads)
        evictions.add_metric(labels, stats.evictions)
    yield from (waiting, queued, resident, hits, waits, loads, evictions)


def _hop_families(stats: HopStats) -> Iterator[Metric]:
    for name, text, results in (
        ("forwarded", "Requests forwarded to other pods, by result.", stats.results),
        ("received_from_pods", "Requests of other pods, by result.", stats.received),
    ):
        family = _counter(name, text, "result")
        for result, count in tuple(results.items()):
            family.add_metric((result,), count)
        yield family
    seconds = _histogram("hop_seconds", "Time until another pod asked for the body of a request.")
    stats.consent_seconds.add_to(seconds, ())
    yield seconds


def _ends(evidence: VersionEvidence) -> Iterator[tuple[str, int]]:
    yield "answered", evidence.requests - evidence.errors - evidence.abandoned
    yield "error", evidence.errors
    yield "abandoned", evidence.abandoned
    yield "engine_lost", evidence.engine_lost
    yield "refused", evidence.refused


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)


def _histogram(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(PREFIX + name, text, labels=labels)
