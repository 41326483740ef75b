"""Counters of the data path, and their text form for Prometheus.

Counting is plain integer arithmetic on one thread; text is made when somebody asks for it.
"""

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field

#: Upper bounds in seconds: from a small model's first token to a long answer.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

#: Versions that are served no more but still told of.
PAST_VERSIONS = 64

PREFIX = "tunesmith_agent_"


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


class VersionStats:
    """What one version answered since the agent started.

    Attributes:
        errors: 5xx answers and streams that broke.
        consecutive_errors: errors since the last good answer.
        on_error: called after each error with these stats; a breaker may act on it.
    """

    __slots__ = (
        "alias", "by_status", "consecutive_errors", "digest", "disconnects", "duration", "errors",
        "first_byte", "in_flight", "on_error", "on_idle", "requests",
    )  # fmt: skip

    def __init__(self, alias: str, digest: str) -> None:
        self.alias = alias
        self.digest = digest
        self.requests = self.errors = self.disconnects = self.in_flight = self.consecutive_errors = 0
        self.by_status: dict[int, int] = {}
        self.duration = Histogram()
        self.first_byte = Histogram()
        self.on_error: Callable[[VersionStats], None] | None = None
        self.on_idle: Callable[[], None] | None = None

    def begin(self) -> None:
        """A request goes to this version."""
        self.in_flight += 1

    def finish(self, status: int, seconds: float, first_byte: float, broken: bool) -> None:
        """A request was answered, or its answer broke off.

        Args:
            seconds: from the request to the end of the answer.
            first_byte: from the request to the head of the answer, in seconds.
        """
        self.requests += 1
        self.by_status[status] = self.by_status.get(status, 0) + 1
        self.duration.observe(seconds)
        self.first_byte.observe(first_byte)
        if broken or status >= 500:
            self.errors += 1
            self.consecutive_errors += 1
            if self.on_error is not None:
                self.on_error(self)
        else:
            self.consecutive_errors = 0
        self._leave()

    def give_up(self) -> None:
        """The client left before the end, which says nothing of the version."""
        self.disconnects += 1
        self._leave()

    def withdraw(self) -> None:
        """The request never reached the engine."""
        self._leave()

    def _leave(self) -> None:
        self.in_flight -= 1
        if not self.in_flight and self.on_idle is not None:
            self.on_idle()


@dataclass
class AgentMetrics:
    """Everything the agent counts; ``versions`` keeps what is no longer served: counters never fall."""

    versions: dict[tuple[str, str], VersionStats] = field(default_factory=dict)
    refusals: dict[int, int] = field(default_factory=dict)
    loads: dict[tuple[str, str], int] = field(default_factory=dict)
    load_seconds: Histogram = field(default_factory=Histogram)
    engine_failures: int = 0
    generation: int = 0
    engine_up: bool = False
    operator_connected: bool = False
    breakers_open: int = 0

    def stats(self, alias: str, digest: str) -> VersionStats:
        """The stats of one version, made when first asked for."""
        key = (alias, digest)
        if key not in self.versions:
            self.versions[key] = VersionStats(alias, digest)
        return self.versions[key]

    def forget_versions(self, keep: Container[tuple[str, str]]) -> None:
        """Drop the oldest versions that are served no more, when there are many; the base model stays."""
        past = [key for key, stats in self.versions.items() if key not in keep and stats.digest]
        for key in past[:-PAST_VERSIONS]:
            del self.versions[key]

    def count_refusal(self, status: int) -> None:
        """The agent itself said no."""
        self.refusals[status] = self.refusals.get(status, 0) + 1

    def count_load(self, alias: str, result: str, seconds: float) -> None:
        """One attempt to load and prove a version ended; ``result`` is ``Active`` or the reason why not."""
        self.loads[alias, result] = self.loads.get((alias, result), 0) + 1
        self.load_seconds.observe(seconds)

    def render(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return "".join(_render(self)).encode()


def escape_label(value: str) -> str:
    """A label's value as the text format wants it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _labels(**labels: object) -> str:
    return ",".join(f'{name}="{escape_label(str(value))}"' for name, value in labels.items())


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {text}\n# TYPE {PREFIX}{name} {kind}\n"
    for labels, value in samples:
        yield f"{PREFIX}{name}{{{labels}}} {value}\n" if labels else f"{PREFIX}{name} {value}\n"


def _histogram(name: str, text: str, series: Iterable[tuple[str, Histogram]]) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {text}\n# TYPE {PREFIX}{name} histogram\n"
    for labels, histogram in series:
        comma = f"{labels}," if labels else ""
        braces = f"{{{labels}}}" if labels else ""
        count = 0
        for bound, number in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
            count += number
            yield f'{PREFIX}{name}_bucket{{{comma}le="{bound}"}} {count}\n'
        yield f"{PREFIX}{name}_sum{braces} {histogram.total}\n{PREFIX}{name}_count{braces} {count}\n"


def _render(metrics: AgentMetrics) -> Iterator[str]:
    versions = [
        (_labels(alias=stats.alias, digest=stats.digest), stats) for stats in metrics.versions.values()
    ]
    yield from _family(
        "requests_total",
        "counter",
        "Requests answered, by version and status.",
        (
            (f'{labels},status="{status}"', count)
            for labels, stats in versions
            for status, count in stats.by_status.items()
        ),
    )
    errors = ((labels, stats.errors) for labels, stats in versions)
    yield from _family("errors_total", "counter", "Answers with a 5xx status, and broken streams.", errors)
    disconnects = ((labels, stats.disconnects) for labels, stats in versions)
    yield from _family("disconnects_total", "counter", "Clients that left before the end.", disconnects)
    in_flight = ((labels, stats.in_flight) for labels, stats in versions)
    yield from _family("in_flight_requests", "gauge", "Requests under way.", in_flight)
    duration = ((labels, stats.duration) for labels, stats in versions)
    yield from _histogram("request_seconds", "Time to the end of the answer.", duration)
    first_byte = ((labels, stats.first_byte) for labels, stats in versions)
    yield from _histogram("first_byte_seconds", "Time to the head of the answer.", first_byte)
    refusals = ((_labels(status=status), count) for status, count in metrics.refusals.items())
    yield from _family("refusals_total", "counter", "Requests that the agent itself refused.", refusals)
    loads = ((_labels(alias=alias, result=result), count) for (alias, result), count in metrics.loads.items())
    yield from _family("loads_total", "counter", "Attempts to load and prove a version, by result.", loads)
    yield from _histogram("load_seconds", "Time of an attempt to load.", [("", metrics.load_seconds)])
    yield from _render_gauges(metrics)


def _render_gauges(metrics: AgentMetrics) -> Iterator[str]:
    failures = [("", float(metrics.engine_failures))]
    yield from _family(
        "engine_failures_total", "counter", "Requests that never reached the engine.", failures
    )
    for name, text, value in (
        ("generation", "Generation of the desired state that is applied.", metrics.generation),
        ("engine_up", "Whether the engine answers.", int(metrics.engine_up)),
        ("operator_connected", "Whether the operator is connected.", int(metrics.operator_connected)),
        ("breakers_open", "Candidates that this pod stopped sending requests to.", metrics.breakers_open),
    ):
        yield from _family(name, "gauge", text, [("", value)])
