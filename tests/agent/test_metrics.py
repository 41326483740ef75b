"""Output of /metrics, read by Prometheus' own parser."""

import aiohttp
from agents.agent_harness import Running
from prometheus_client.parser import text_string_to_metric_families

from tunesmith_agent.metrics import AgentMetrics
from tunesmith_contract.agent import Version


def samples(text: str) -> dict[tuple[str, str], float]:
    """Value by name and alias."""
    return {
        (sample.name, sample.labels.get("alias", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels or sample.labels["le"] == "+Inf"
    }


async def test_requests_and_the_engines_own_metrics(agent: Running, expenses: Version) -> None:
    async with aiohttp.ClientSession(agent.url) as session:
        for model in ("expenses", "nobody"):
            body: dict[str, object] = {"model": model, "messages": []}
            async with session.post("/v1/chat/completions", json=body):
                pass
        async with session.get(f"{agent.monitoring_url}/metrics") as answer:
            values = samples(await answer.text())
    assert values["tunesmith_agent_requests_total", "expenses"] == 1
    assert values["tunesmith_agent_request_seconds_bucket", "expenses"] == 1
    assert values["tunesmith_agent_in_flight_requests", "expenses"] == 0
    assert values["tunesmith_agent_refusals_total", ""] == 1
    assert values["tunesmith_agent_loads_total", "expenses"] == 1
    assert values["tunesmith_agent_generation", ""] == 1
    assert values["vllm:num_requests_running", ""] == 0


async def test_metrics_without_the_engine(agent: Running) -> None:
    await agent.engine.stop()
    await agent.until(lambda: not agent.agent.metrics.engine_up)
    async with aiohttp.ClientSession(agent.monitoring_url) as session, session.get("/metrics") as answer:
        assert samples(await answer.text())["tunesmith_agent_engine_up", ""] == 0


def test_labels_are_escaped() -> None:
    metrics, name = AgentMetrics(), 'a"b\\c\nd'
    metrics.stats(name, "d").errors = 3
    assert samples(metrics.render().decode())["tunesmith_agent_errors_total", name] == 3
