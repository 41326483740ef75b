"""What pods tell wakes their resource; agents get the newest desired state, never an older one."""

import asyncio
from datetime import UTC, datetime

from tunesmith.cluster.live import AGENT_SECONDS, CHANGE_SECONDS, AgentHub, Connection
from tunesmith_contract.agent import AgentReport, DesiredState, VersionCounters

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def build_report(generation: int = 1, requests: int = 0) -> AgentReport:
    counters = (VersionCounters(alias="a", digest="sha256:" + "0" * 64, requests=requests),)
    return AgentReport(
        pod_name="p",
        pod_uid="p",
        boot_id="b",
        engine_ready=True,
        applied_generation=generation,
        counters=counters,
    )


async def generations(connection: Connection) -> list[int]:
    """What is to be sent now."""
    sent = []
    while True:
        try:
            async with asyncio.timeout(0.01):
                sent.append((await connection.next()).generation)
        except TimeoutError:
            return sent


async def test_agents_get_the_newest_state_only_once() -> None:
    hub = AgentHub(lambda uid, seconds: None)
    early = hub.connect("ad", "pod-1")
    for generation in (3, 5, 4):
        hub.push("ad", DesiredState(generation=generation))
    late = hub.connect("ad", "pod-2")
    hub.push("another", DesiredState(generation=9))
    assert await generations(early) == [5]
    assert await generations(late) == [5]
    hub.push("ad", DesiredState(generation=6))
    assert await generations(early) == [6]


def test_counters_alone_wake_the_resource_less_often() -> None:
    woken: list[tuple[str, float]] = []
    hub = AgentHub(lambda uid, seconds: woken.append((uid, seconds)))
    for report in (build_report(), build_report(requests=7), build_report(generation=2, requests=9)):
        hub.report("ad", report, NOW)
    assert woken == [("ad", CHANGE_SECONDS), ("ad", AGENT_SECONDS), ("ad", CHANGE_SECONDS)]


def test_an_old_connections_end_does_not_disconnect_its_successor() -> None:
    hub = AgentHub(lambda uid, seconds: None)
    old, new = hub.connect("ad", "p"), hub.connect("ad", "p")
    hub.report("ad", build_report(), NOW)
    hub.disconnect("ad", "p", old)
    assert [state.connected for state in hub.states("ad")] == [True]
    hub.disconnect("ad", "p", new)
    assert [state.connected for state in hub.states("ad")] == [False]
    hub.keep_only("ad", frozenset())
    assert hub.states("ad") == ()
