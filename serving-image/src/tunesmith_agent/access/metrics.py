"""Prometheus metrics of clients with keys."""

from collections.abc import Iterator

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunesmith_agent.metrics import PREFIX

from .access import Access


def render_access(access: Access) -> bytes:
    """All metrics of clients in Prometheus' text format."""
    return generate_latest(_Collector(access))


class _Collector(Collector):
    """Metric families made from the counts of clients at the time of a scrape."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def collect(self) -> Iterator[Metric]:
        """All families; the order is the order of the output."""
        requests = _counter("client_requests", "Requests of a client that were sent to the engine.", "client")
        tokens = _counter("client_tokens", "Tokens of a client's prompts and answers.", "client", "kind")
        refusals = _counter("client_refusals", "Requests beyond a client's limits.", "client", "limit")
        text = "Tokens that a client may use in the current period."
        budgets = GaugeMetricFamily(PREFIX + "client_budget_tokens", text, labels=("client", "period"))
        text = "Tokens of its budget that a client has used on all pods, as far as this one knows."
        used = GaugeMetricFamily(PREFIX + "client_budget_used_tokens", text, labels=("client", "period"))
        for client in self._access.clients:
            counts = client.counts
            requests.add_metric((client.name,), counts.requests)
            tokens.add_metric((client.name, "prompt"), counts.prompt_tokens)
            tokens.add_metric((client.name, "answer"), counts.answer_tokens)
            for limit, count in counts.refusals.items():
                refusals.add_metric((client.name, limit), count)
            if client.budget is not None:
                budgets.add_metric((client.name, client.budget.period), client.budget.tokens)
                used.add_metric((client.name, client.budget.period), client.used())
        yield from (requests, tokens, refusals, budgets, used)
        text = "Entries of the Secret with keys that can't be used."
        yield GaugeMetricFamily(PREFIX + "client_faults", text, value=self._access.fault_count)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)
