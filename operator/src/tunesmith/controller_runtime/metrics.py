"""Prometheus metrics of the operator."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_RECONCILE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics of one operator process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.api_calls = Counter(
            "tunesmith_api_calls",
            "Calls to the API server; code is the HTTP status, or error when there was none",
            ("verb", "kind", "code"),
            registry=self.registry,
        )
        self.reconciles = Counter(
            "tunesmith_reconciles",
            "Reconciles by outcome: done, invalid, refused, retried, failed",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "tunesmith_reconcile_seconds",
            "Duration of one reconcile",
            ("kind",),
            buckets=_RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.first_child_seconds = Histogram(
            "tunesmith_first_child_seconds",
            "Time from the first event of a new resource to its first child",
            ("kind",),
            buckets=_RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "tunesmith_queue_depth", "Resources that wait for a worker", registry=self.registry
        )
        self.watch_silence_seconds = Gauge(
            "tunesmith_watch_silence_seconds",
            "Time since the API server's last answer to a watch",
            ("kind", "namespace"),
            registry=self.registry,
        )
        self.leader = Gauge("tunesmith_leader", "1 on the replica that leads", registry=self.registry)
        self.agents = Gauge("tunesmith_agents_connected", "Connected serving agents", registry=self.registry)
        self.events_dropped = Counter(
            "tunesmith_events_dropped",
            "Kubernetes events that could not be published",
            registry=self.registry,
        )
