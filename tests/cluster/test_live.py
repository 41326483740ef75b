"""What pods tell wakes their resource; agents get the newest desired state, never an older one."""

import asyncio
from datetime import UTC, datetime

import pytest
from agents.first_release import FirstDesiredState

from tunesmith.cluster.live import (
    AGENT_SECONDS,
    CHANGE_SECONDS,
    ENDED_SECONDS,
    PROGRESS_SECONDS,
    STEPS_SECONDS,
    AgentHub,
    Connection,
    Progress,
    ProgressBoard,
)
from tunesmith_contract.agent import (
    FEATURES,
    PREVIOUS,
    AccessReport,
    AgentReport,
    ClientUsage,
    CountedTokens,
    DesiredAlias,
    DesiredState,
    SentState,
    UsageOfOthers,
    Version,
    VersionCounters,
)
from tunesmith_contract.progress import ProgressMetric, TrainerStatus

DIGEST = "sha256:" + "0" * 64
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def build_report(
    generation: int = 1, requests: int = 0, pod: str = "p", boot: str = "b", features: tuple[str, ...] = ()
) -> AgentReport:
    counters = (VersionCounters(alias="a", digest=DIGEST, requests=requests),)
    return AgentReport(
        pod_name=pod,
        pod_uid=pod,
        boot_id=boot,
        features=features,
        engine_ready=True,
        applied_generation=generation,
        counters=counters,
    )


async def states(connection: Connection) -> list[DesiredState]:
    """What is to be sent now."""
    sent = []
    while True:
        try:
            async with asyncio.timeout(0.01):
                message = await connection.next()
                assert isinstance(message, DesiredState)
                sent.append(message)
        except TimeoutError:
            return sent


async def generations(connection: Connection) -> list[int]:
    return [state.generation for state in await states(connection)]


def progress(percent: int | None, **metrics: str) -> Progress:
    told = tuple(ProgressMetric(name=name, value=value) for name, value in metrics.items())
    status = TrainerStatus(last_updated_time=NOW, progress_percentage=percent, metrics=told)
    return Progress("pod", "pod-uid", {"stage": "train"}, NOW, status)


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [
        (progress(1, loss="2.0"), progress(1, loss="1.9", current_step="8"), PROGRESS_SECONDS),
        (progress(1, loss="2.0"), progress(1, loss="1.9"), STEPS_SECONDS),
        (progress(1, loss="2.0"), progress(2, loss="1.9"), PROGRESS_SECONDS),
        (progress(1, loss="2.0"), progress(1, loss="2.0", checkpoint_step="10"), PROGRESS_SECONDS),
        (progress(1, checkpoint_step="10"), progress(1, checkpoint_step="20"), PROGRESS_SECONDS),
        (progress(None, part="reading"), progress(None, part="cleaning"), PROGRESS_SECONDS),
        (progress(None, generated_rows="5"), progress(None, generated_rows="9"), STEPS_SECONDS),
        (progress(3, trial_1="running"), progress(3, trial_1="pruned"), PROGRESS_SECONDS),
    ],
)
def test_steps_alone_wake_a_job_less_often_than_a_percent_or_an_event(
    before: Progress, after: Progress, seconds: float
) -> None:
    woken: list[tuple[str, float]] = []
    board = ProgressBoard(lambda uid, seconds: woken.append((uid, seconds)))
    board.put("job", before)
    board.put("job", after)
    assert woken == [("job", PROGRESS_SECONDS), ("job", seconds)]
    assert board.latest("job") == after


async def test_agents_get_the_newest_state_only_once() -> None:
    hub = AgentHub(lambda uid, seconds: None)
    early = hub.connect("ad", "pod-1")
    hub.report("ad", build_report(pod="pod-1"), NOW)
    for generation in (3, 5, 4):
        hub.push("ad", DesiredState(generation=generation))
    late = hub.connect("ad", "pod-2")
    hub.report("ad", build_report(pod="pod-2"), NOW)
    hub.push("another", DesiredState(generation=9))
    assert await generations(early) == [5]
    assert await generations(late) == [5]
    hub.push("ad", DesiredState(generation=6))
    assert await generations(early) == [6]


async def test_all_agents_that_reported_are_sent_the_latest_state_before_an_operator_ends() -> None:
    hub = AgentHub(lambda uid, seconds: None)
    await hub.flush()
    slow, left = hub.connect("ad", "slow"), hub.connect("ad", "left")
    hub.connect("ad", "silent")
    for pod in ("slow", "left"):
        hub.report("ad", build_report(pod=pod), NOW)
    hub.push("ad", DesiredState(generation=1))
    flushing = asyncio.create_task(hub.flush())
    sender = asyncio.create_task(slow.next())
    await asyncio.sleep(0)
    await sender
    await asyncio.sleep(0)
    assert not flushing.done(), "it was taken, but not sent"
    sender = asyncio.create_task(slow.next())
    await asyncio.sleep(0)
    assert not flushing.done(), "the other one has not taken it"
    hub.disconnect("ad", "left", left)
    await flushing
    sender.cancel()


async def test_agents_that_answer_for_each_other_get_a_key_of_their_deployment() -> None:
    hub = AgentHub(lambda uid, seconds: None)
    hub.peer_secret = "secret of the installation"
    keys = {}
    for owner, pod, features in (
        ("one", "a", FEATURES),
        ("one", "b", FEATURES),
        ("other", "c", FEATURES),
        ("one", "old", (PREVIOUS,)),
    ):
        connection = hub.connect(owner, pod)
        hub.report(owner, build_report(pod=pod, features=features), NOW)
        hub.push(owner, DesiredState(generation=1))
        [state] = await states(connection)
        keys[pod] = state.peer_key if isinstance(state, SentState) else None
    assert keys["a"] and keys["a"] == keys["b"]
    assert keys["c"] and keys["c"] != keys["a"]
    assert keys["old"] is None
    assert "secret" not in str(keys)
    hub.peer_secret = ""
    connection = hub.connect("one", "d")
    hub.report("one", build_report(pod="d", features=FEATURES), NOW)
    assert not isinstance((await states(connection))[0], SentState)


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


async def test_who_was_told_nothing_is_known() -> None:
    """A new operator does not know what an earlier one has sent."""
    hub = AgentHub(lambda uid, seconds: None)
    connection = hub.connect("ad", "p")
    hub.report("ad", build_report(), NOW)
    assert [state.told for state in hub.states("ad")] == [False]
    hub.push("ad", DesiredState(generation=1))
    assert await generations(connection) == [1]
    assert [state.told for state in hub.states("ad")] == [True]


def test_a_hub_says_for_how_long_agents_could_connect() -> None:
    time = [100.0]
    hub = AgentHub(lambda uid, seconds: None, lambda: time[0])
    time[0] = 107.5
    assert hub.seconds == 7.5


async def test_agents_get_the_state_in_the_form_that_they_understand_once_they_have_told_it() -> None:
    version = Version(version=1, digest=DIGEST, uri="pvc://a/b")
    state = DesiredState(
        generation=2, aliases=(DesiredAlias(name="a", previous=version, rejected=(DIGEST,)),)
    )
    hub = AgentHub(lambda uid, seconds: None)

    async def told(pod: str, features: tuple[str, ...]) -> list[DesiredState]:
        connection = hub.connect("ad", pod)
        assert await states(connection) == []
        hub.report("ad", build_report(pod=pod, features=features), NOW)
        return await states(connection)

    hub.push("ad", state)
    assert await told("new", FEATURES) == [state]
    (old,) = await told("old", ())
    assert FirstDesiredState.model_validate_json(old.to_json()).aliases[0].name == "a"


async def test_an_agent_is_told_once_what_the_others_counted() -> None:
    hub = AgentHub(lambda uid, seconds: None)
    connection = hub.connect("ad", "p")
    one, two = (
        UsageOfOthers(counted_by_others=(CountedTokens(client="ada", period="2030-01", tokens=tokens),))
        for tokens in (1, 2)
    )
    hub.tell("ad", {"p": one, "another": one})
    hub.tell("ad", {"p": two})
    hub.tell("unknown", {"p": one})
    async with asyncio.timeout(5):
        assert await connection.next() == two
    assert await states(connection) == []


def test_tokens_alone_wake_the_resource_less_often() -> None:
    woken: list[float] = []
    hub = AgentHub(lambda uid, seconds: woken.append(seconds))
    for tokens, faults in ((1, 0), (2, 0), (3, 1)):
        usage = ClientUsage(client="ada", period="2030-01", tokens=tokens, budget=9)
        access = AccessReport(run="r", usage=(usage,), fault_count=faults)
        hub.report("ad", build_report().model_copy(update={"access": access}), NOW)
    assert woken == [CHANGE_SECONDS, AGENT_SECONDS, CHANGE_SECONDS]


def test_last_words_of_an_agent_are_kept_for_a_while() -> None:
    time = [0.0]
    hub = AgentHub(lambda uid, seconds: None, lambda: time[0])
    for boot, requests in (("first", 7), ("second", 1)):
        hub.report("ad", build_report(boot=boot, requests=requests), NOW)
    assert [(state.report.boot_id, state.ended) for state in hub.states("ad")] == [
        ("first", True),
        ("second", False),
    ]
    hub.keep_only("ad", frozenset())
    assert [(state.report.boot_id, state.ended) for state in hub.states("ad")] == [
        ("first", True),
        ("second", True),
    ]
    time[0] = ENDED_SECONDS
    hub.keep_only("ad", frozenset())
    assert hub.states("ad") == ()
