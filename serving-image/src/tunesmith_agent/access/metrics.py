"""Prometheus metrics of clients with keys."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunesmith_agent.metrics import PREFIX

from .access import Access
from .entries import Budget


class ClientSample(NamedTuple):
    """Counts of one client at one time; see ``ClientCounts``."""

    name: str
    requests: int
    prompt_tokens: int
    answer_tokens: int
    refusals: tuple[tuple[str, int], ...]
    budget: Budget | None
    used: int


class AccessSample(NamedTuple):
    """Counts of all clients at one time."""

    clients: tuple[ClientSample, ...]
    faults: int


def sample_access(access: Access) -> AccessSample:
    """Counts as they are now, which another thread may render."""
    clients = (
        ClientSample(
            client.name,
            client.counts.requests,
            client.counts.prompt_tokens,
            client.counts.answer_tokens,
            tuple(client.counts.refusals.items()),
            client.budget,
            client.used(),
        )
        for client in access.clients
    )
    return AccessSample(tuple(clients), access.fault_count)


def render_access(sample: AccessSample) -> bytes:
    """All metrics of clients in Prometheus' text format."""
    return generate_latest(_Collector(sample))


class _Collector(Collector):
    """Metric families made from a sample."""

    def __init__(self, sample: AccessSample) -> None:
        self._sample = sample

    def collect(self) -> Iterator[Metric]:
        """All families; the order is the order of the output."""
        requests = _counter("client_requests", "Requests of a client that were sent to the engine.", "client")
        tokens = _counter("client_tokens", "Tokens of a client's prompts and answers.", "client", "kind")
        refusals = _counter("client_refusals", "Requests beyond a client's limits.", "client", "limit")
        text = "Tokens that a client may use in the current period."
        budgets = GaugeMetricFamily(PREFIX + "client_budget_tokens", text, labels=("client", "period"))
        text = "Tokens of its budget that a client has used on all pods, as far as this one knows."
        used = GaugeMetricFamily(PREFIX + "client_budget_used_tokens", text, labels=("client", "period"))
        for client in self._sample.clients:
            requests.add_metric((client.name,), client.requests)
            tokens.add_metric((client.name, "prompt"), client.prompt_tokens)
            tokens.add_metric((client.name, "answer"), client.answer_tokens)
            for limit, count in client.refusals:
                refusals.add_metric((client.name, limit), count)
            if client.budget is not None:
                budgets.add_metric((client.name, client.budget.period), client.budget.tokens)
                used.add_metric((client.name, client.budget.period), client.used)
        yield from (requests, tokens, refusals, budgets, used)
        text = "Entries of the Secret with keys that can't be used."
        yield GaugeMetricFamily(PREFIX + "client_faults", text, value=self._sample.faults)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)
