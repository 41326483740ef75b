"""Counters of the data path, and their Prometheus metrics.

Counting is plain integer arithmetic on one thread; metrics are made from it at each scrape.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .evidence import VersionEvidence

#: Upper bounds in seconds: from a small model's first token to a long answer.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

#: Versions that are no longer served but still reported.
PAST_VERSIONS = 64

PREFIX = "tunesmith_agent_"

#: Names in vLLM's pull request 54830.
_ADAPTER_LOADED = "vllm:lora_adapter_loaded"
_ADAPTERS_LOADED = "vllm:num_cpu_loaded_lora_adapters"


class Histogram:
    """Counts per bucket and a sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add the values counted so far to a family, under the values of its labels."""
        bounds = (*map(str, BUCKETS), "+Inf")
        family.add_metric(labels, list(zip(bounds, accumulate(self.counts), strict=True)), self.total)


class RequestCounters(Protocol):
    """Counters of requests that are sent on, each from ``begin`` to one of the ends; see ``VersionStats``."""

    def begin(self) -> None:
        """Count a request that is sent."""

    def finish(
        self, status: int, begun: float, head: float, now: float, key: int | None, *, broken: bool
    ) -> None:
        """Count a request that was answered, or whose answer broke off."""

    def count_disconnect(self, now: float, key: int | None, *, abandoned: bool) -> None:
        """Count a client that left before the end."""

    def count_engine_lost(self) -> None:
        """Count a request that found nobody."""

    def count_refused(self) -> None:
        """Count a request whose version is not there."""


class VersionStats:
    """Counters of one version since the agent started.

    Attributes:
        errors: 5xx answers and broken streams.
        consecutive_errors: errors since the last success.
        evidence: the requests by their end, for the operator.
        on_error: called with these stats after each error.
        on_idle: called when the last request in progress has ended.
        last_used: time of the latest request, by the monotonic clock; 0 before the first one.
    """

    #: Seconds after which a request counts half as one of late.
    HALF_LIFE = 600.0

    __slots__ = (
        "_recent", "_recent_at", "_recent_requests", "alias", "by_status", "consecutive_errors", "digest",
        "disconnects", "duration", "errors", "evidence", "first_byte", "in_flight", "last_used", "on_error", "on_idle",
        "requests",
    )  # fmt: skip

    def __init__(self, alias: str, digest: str) -> None:
        self.alias = alias
        self.digest = digest
        self.requests = self.errors = self.disconnects = self.in_flight = self.consecutive_errors = 0
        self.last_used = 0.0
        self.evidence = VersionEvidence()
        self.by_status: dict[int, int] = {}
        self.duration = Histogram()
        self.first_byte = Histogram()
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

    def finish(
        self, status: int, begun: float, head: float, now: float, key: int | None, *, broken: bool
    ) -> None:
        """Count a request that was answered, or whose answer broke off.

        Args:
            begun, head, now: times of the request, of the head and of the end of the answer, by the loop's clock.
            key: sticky key of the client, if it is known.
        """
        self.requests += 1
        self.by_status[status] = self.by_status.get(status, 0) + 1
        self.duration.observe(now - begun)
        self.first_byte.observe(head - begun)
        if broken or status >= 500:
            self.errors += 1
            self.evidence.count_failure(key, now)
            self.consecutive_errors += 1
            if self.on_error is not None:
                self.on_error(self)
        else:
            self.consecutive_errors = 0
            self.evidence.count_answer(key)
        self._request_ended()

    def count_disconnect(self, now: float, key: int | None, *, abandoned: bool) -> None:
        """Count a client that left before the end.

        Args:
            now: time by the loop's clock.
            key: sticky key of the client, if it is known.
            abandoned: it had waited long for a token, which tells against the version; otherwise the request is neither
                a success nor an error.
        """
        self.disconnects += 1
        if abandoned:
            self.evidence.count_abandoned(key, now)
        self._request_ended()

    def count_engine_lost(self) -> None:
        """Count a request that found no engine."""
        self.evidence.engine_lost += 1
        self._request_ended()

    def count_refused(self) -> None:
        """Count a request whose version the engine does not have."""
        self.evidence.refused += 1
        self._request_ended()

    def count_refused_waiting(self) -> None:
        """Count a request that this version was chosen for, and that was refused before it was sent."""
        self.evidence.refused += 1

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
    """Counters of what the engine and the pod's disk hold.

    Attributes:
        hits: requests whose version the engine held.
        waits: requests that waited for their version, by what came of it: ``served``, ``moved`` to another version,
            ``timed_out``, ``left`` by the client, or ``full``: too many waited already.
        loads: loads into the engine.
        evictions: versions that made room in the engine for others.
        resident_names: versions that the engine holds, by their names in it.
        cache_bytes: bytes of artifacts on the pod's disk.
    """

    hits: int = 0
    waits: dict[str, int] = field(default_factory=dict)
    loads: int = 0
    evictions: int = 0
    resident_names: set[str] = field(default_factory=set)
    cache_bytes: int = 0

    def count_wait(self, result: str) -> None:
        """Count the end of a wait."""
        self.waits[result] = self.waits.get(result, 0) + 1


class HopStats:
    """Counters of requests that this pod hands on to other pods, and of those that it gets from them.

    Only the pod that sends a request to its engine counts it for the version.

    Attributes:
        results: requests handed on, by what came of each: ``answered``, ``not_held`` by the other pod, ``unreachable``
            where it did not ask for the body in time, ``broken`` off, or ``left`` by the client. One request may be
            handed on several times.
        received: requests of other pods, by what came of each: ``taken``, ``not_held``, or ``forged``.
        consent_seconds: time until the other pod asked for the body: what a hop adds.
        in_flight: requests handed on that are in progress.
    """

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.received: dict[str, int] = {}
        self.consent_seconds = Histogram()
        self.in_flight = 0

    def begin(self) -> None:
        """Count a request that is handed on."""
        self.in_flight += 1

    def finish(
        self, status: int, begun: float, head: float, now: float, key: int | None, *, broken: bool
    ) -> None:
        """Count one that was answered, with any status, or whose answer broke off."""
        self._end("broken" if broken else "answered")

    def count_disconnect(self, now: float, key: int | None, *, abandoned: bool) -> None:
        """Count one whose client left: the other pod counts it for the version."""
        self._end("left")

    def count_engine_lost(self) -> None:
        """Count one that the other pod did not ask for."""
        self._end("unreachable")

    def count_refused(self) -> None:
        """Count one that the other pod could not answer."""
        self._end("not_held")

    def count_received(self, result: str) -> None:
        """Count a request of another pod."""
        self.received[result] = self.received.get(result, 0) + 1

    def _end(self, result: str) -> None:
        self.in_flight -= 1
        self.results[result] = self.results.get(result, 0) + 1


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

    def stats(self, alias: str, digest: str) -> VersionStats:
        """Counters of one version, created at first use."""
        key = (alias, digest)
        if key not in self.versions:
            self.versions[key] = VersionStats(alias, digest)
        return self.versions[key]

    def forget_versions(self, keep: Container[tuple[str, str]]) -> None:
        """Drop the oldest versions outside ``keep``, when there are many; the base model stays."""
        past = [key for key, stats in self.versions.items() if key not in keep and stats.digest]
        for key in past[:-PAST_VERSIONS]:
            del self.versions[key]

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
        """All metrics in Prometheus' text format, version 0.0.4."""
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
        for (status, code), count in metrics.refusals.items():
            refusals.add_metric((str(status), code), count)
        yield refusals
        loads = _counter("loads", "Attempts to load and prove a version, by result.", "alias", "result")
        for key, count in metrics.loads.items():
            loads.add_metric(key, count)
        yield loads
        proofs = _counter("proofs", "Measurements of a version's probes, by result.", "alias", "result")
        for key, count in metrics.proofs.items():
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
        yield from _residency_families(metrics.residency)
        yield from _hop_families(metrics.hops)

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
        labels = ("alias", "digest")
        requests = _counter("requests", "Requests answered, by version and status.", *labels, "status")
        errors = _counter("errors", "Answers with a 5xx status, and broken streams.", *labels)
        disconnects = _counter("disconnects", "Clients that left before the end.", *labels)
        ends = _counter("evidence", "Requests by the end that counts in a rollout.", *labels, "end")
        in_flight = GaugeMetricFamily(PREFIX + "in_flight_requests", "Requests in progress.", labels=labels)
        duration = _histogram("request_seconds", "Time to the end of the answer.", *labels)
        first_byte = _histogram("first_byte_seconds", "Time to the head of the answer.", *labels)
        for key, stats in self._metrics.versions.items():
            for status, count in stats.by_status.items():
                requests.add_metric((*key, str(status)), count)
            errors.add_metric(key, stats.errors)
            disconnects.add_metric(key, stats.disconnects)
            for end, count in _ends(stats.evidence):
                ends.add_metric((*key, end), count)
            in_flight.add_metric(key, stats.in_flight)
            stats.duration.add_to(duration, key)
            stats.first_byte.add_to(first_byte, key)
        yield from (requests, errors, disconnects, ends, in_flight, duration, first_byte)


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


def _residency_families(stats: ResidencyStats) -> Iterator[Metric]:
    waits = _counter("residency_waits", "Requests that waited until their version was loaded.", "result")
    for result, count in stats.waits.items():
        waits.add_metric((result,), count)
    yield waits
    for name, text, value in (
        ("residency_hits", "Requests whose version the engine held.", stats.hits),
        ("residency_loads", "Loads of versions into the engine.", stats.loads),
        ("residency_evictions", "Versions that made room in the engine for others.", stats.evictions),
    ):
        family = _counter(name, text)
        family.add_metric((), value)
        yield family
    text = "Bytes of artifacts on the pod's disk."
    yield GaugeMetricFamily(PREFIX + "artifact_cache_bytes", text, value=stats.cache_bytes)


def _hop_families(stats: HopStats) -> Iterator[Metric]:
    for name, text, results in (
        ("handed_on", "Requests handed on to other pods, by result.", stats.results),
        ("received_from_pods", "Requests of other pods, by result.", stats.received),
    ):
        family = _counter(name, text, "result")
        for result, count in results.items():
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
