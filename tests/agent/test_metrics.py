"""Output of /metrics, read by Prometheus' own parser, and its list in the documentation."""

import re
from pathlib import Path

import aiohttp
import pytest
from agents.agent_harness import Running, Storage
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tunesmith_agent import metrics as metrics_module
from tunesmith_agent.access.entries import Budget, Period
from tunesmith_agent.access.metrics import AccessSample, ClientSample, render_access
from tunesmith_agent.metrics import AgentMetrics, ExportCounts, Usage
from tunesmith_contract.agent import DesiredAlias, Version

DOCUMENT = Path(__file__).parents[2] / "docs/telemetry.md"


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Value by name, alias and end or result, where it has them."""
    return {
        (sample.name, *(sample.labels[label] for label in ("alias", "end", "result") if label in sample.labels)):
            sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels or sample.labels["le"] == "+Inf"
    }  # fmt: skip


async def scrape(agent: Running) -> str:
    """The text that Prometheus gets."""
    async with aiohttp.ClientSession(agent.monitoring_url) as session, session.get("/metrics") as answer:
        return await answer.text()


async def test_requests_and_the_engines_own_metrics(agent: Running, expenses: Version) -> None:
    async with aiohttp.ClientSession(agent.url) as session:
        for model in ("expenses", "nobody"):
            body: dict[str, object] = {"model": model, "messages": []}
            async with session.post("/v1/chat/completions", json=body):
                pass
    text = await scrape(agent)
    values = samples(text)
    assert values["tunesmith_agent_requests_total", "expenses", "answered"] == 1
    assert values["tunesmith_agent_requests_total", "expenses", "error"] == 0
    assert values["tunesmith_agent_request_duration_seconds_bucket", "expenses"] == 1
    assert values["tunesmith_agent_num_requests_running", "expenses"] == 0
    assert values["tunesmith_agent_prompt_tokens_total", "expenses"] == 40
    assert values["tunesmith_agent_prompt_tokens_cached_total", "expenses"] == 32
    assert values["tunesmith_agent_generation_tokens_total", "expenses"] == 3
    assert values["tunesmith_agent_residency_hits_total", "expenses"] == 1
    assert values["tunesmith_agent_resident", "expenses"] == 1
    assert values["tunesmith_agent_refusals_total",] == 1
    assert values["tunesmith_agent_loads_total", "expenses", "Active"] == 1
    assert values["tunesmith_agent_generation",] == 1
    assert values["vllm:num_requests_running",] == 0
    assert f'vllm:lora_adapter_loaded{{adapter_name="expenses@{expenses.digest[7:19]}"' in text


async def test_one_family_per_name_as_the_parser_wants_it(agent: Running, expenses: Version) -> None:
    families = list(text_string_to_metric_families(await scrape(agent)))
    names = [family.name for family in families]
    assert sorted(set(names)) == sorted(names)
    assert all(family.documentation for family in families if family.name.startswith("tunesmith_"))


async def test_metrics_without_the_engine(agent: Running) -> None:
    await agent.engine.stop()
    await agent.until(lambda: not agent.agent.metrics.engine_up)
    assert samples(await scrape(agent))["tunesmith_agent_engine_up",] == 0


def test_labels_are_escaped() -> None:
    metrics, name = AgentMetrics(), 'a"b\\c\nd'
    metrics.stats(name, "sha256:d").errors = 3
    assert samples(metrics.render().decode())["tunesmith_agent_requests_total", name, "error"] == 3


async def test_versions_that_left_are_not_named_for_ever(
    agent: Running, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = storage.commit(), storage.commit()
    agent.want(
        DesiredAlias(name="expenses", stable=first), DesiredAlias(name="gone", stable=storage.commit())
    )
    await agent.active(first)
    agent.want(DesiredAlias(name="expenses", stable=second))
    await agent.until(lambda: len(agent.agent.reconciler.report("boot").versions) == 1)
    assert first.digest[7:19] in await scrape(agent)
    monkeypatch.setattr(metrics_module, "PAST_SECONDS", 0.0)
    metrics = agent.agent.metrics
    assert {stats.digest for stats in metrics.shown_versions()} == {"", second.digest}
    # Its counters go on where they were, should it come back, so that the operator's differences stay right.
    assert ("expenses", first.digest) in metrics.versions


def test_many_versions_are_bounded() -> None:
    metrics = AgentMetrics()
    for number in range(1000):
        metrics.stats(f"alias-{number}", f"sha256:{number}")
        metrics.count_load(f"alias-{number}", "Active", 1.0)
        metrics.count_proof(f"alias-{number}", "Proved", 0.0)
        metrics.forget_versions(())
    assert len(metrics.versions) == len(metrics.loads) == len(metrics.proofs) == metrics_module.PAST_VERSIONS


def test_requests_that_did_not_wait_count_in_the_queue_time() -> None:
    metrics = AgentMetrics()
    stats = metrics.stats("a", "sha256:" + "0" * 64)
    stats.hits = 9
    stats.count_wait("served", 2.0)
    values = samples(metrics.render().decode())
    assert values["tunesmith_agent_request_queue_time_seconds_count", "a"] == 10
    assert values["tunesmith_agent_request_queue_time_seconds_sum", "a"] == 2


def test_tokens_of_a_stream() -> None:
    metrics = AgentMetrics()
    stats = metrics.stats("a", "sha256:" + "0" * 64)
    stats.count_tokens(Usage(10, 5, 8), begun=100.0, first=100.05, now=100.45)
    stats.count_tokens(Usage(10, 5, 0), begun=100.0, first=0.0, now=100.45)
    stats.count_tokens(None, begun=100.0, first=0.0, now=101.0)
    values = samples(metrics.render().decode())
    assert values["tunesmith_agent_prompt_tokens_total", "a"] == 20
    assert values["tunesmith_agent_requests_without_usage_total", "a"] == 1
    assert values["tunesmith_agent_time_to_first_token_seconds_sum", "a"] == pytest.approx(0.05)
    assert values["tunesmith_agent_time_per_output_token_seconds_sum", "a"] == pytest.approx(0.1)
    assert values["tunesmith_agent_time_per_output_token_seconds_count", "a"] == 1


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels by name, from the tables in the documentation."""
    row = re.compile(r"^\| `(tunesmith_agent_\w+|vllm:\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
    return {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in row.findall(DOCUMENT.read_text())
    }


def published() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels by name, of metrics in which everything has happened once."""
    metrics = AgentMetrics(access_log=ExportCounts(1, 1, 1))
    stats = metrics.stats("a", "sha256:" + "0" * 64)
    stats.begin()
    stats.finish(200, 0.0, 1.0, None, broken=False)
    stats.count_wait("served", 1.0)
    stats.count_tokens(Usage(1, 2, 0), 0.0, 0.5, 1.0)
    metrics.count_refusal(404, "model_not_found")
    metrics.count_load("a", "Active", 1.0)
    metrics.count_proof("a", "Proved", 0.0)
    metrics.residency.resident_names.add(stats.name)
    metrics.hops.in_flight += 1
    metrics.hops.end("answered")
    metrics.hops.count_received("taken")
    client = ClientSample("ada", 1, 1, 1, (("budget", 1),), Budget(tokens=1, period=Period.DAY), 1)
    clients = render_access(AccessSample((client,), 0))
    text = (metrics.render() + clients + metrics.render_residency(b"")).decode()
    return {
        full_name(family): (family.type, labels(family)) for family in text_string_to_metric_families(text)
    }


def full_name(family: Metric) -> str:
    """Name as queries have it."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def labels(family: Metric) -> frozenset[str]:
    """Labels of a family, without those of buckets."""
    return frozenset(label for sample in family.samples for label in sample.labels) - {"le"}


def test_each_metric_has_its_row_in_the_documentation() -> None:
    assert documented() == published()
