"""Several pods that hold different adapters: each request is answered by a pod that has its version."""

import asyncio
import socket
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.wire import ASK, connect, post, until

from tunesmith_agent.control.desired_state import Source
from tunesmith_agent.control.operator_link import read_peer_key
from tunesmith_agent.http.address import TcpAddress
from tunesmith_agent.peers.signing import Signed
from tunesmith_agent.proxying import hops
from tunesmith_agent.telemetry import access_log
from tunesmith_agent.telemetry.access_log import AccessLogs
from tunesmith_agent.telemetry.record import RequestRecord
from tunesmith_contract.agent import (
    FORWARDED_HEADER,
    FORWARDED_KEY_HEADER,
    STICKINESS_HEADER,
    VERSION_HEADER,
    DesiredAlias,
    DesiredState,
    LoadState,
    Peer,
    SentState,
    Version,
    rendezvous_score,
    served_name,
)

KEY = "5e" * 32
IPV6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the kernel has no IPv6")
CHAT = "/v1/chat/completions"


@dataclass
class Answer:
    """What a client got."""

    status: int
    version: str
    body: str


@dataclass
class Fleet:
    """Agents of several pods, each with an engine of its own."""

    storage: Storage
    stack: AsyncExitStack
    host: str = "127.0.0.1"
    pods: dict[str, Running] = field(default_factory=dict)
    aliases: list[DesiredAlias] = field(default_factory=list)
    gone: list[Peer] = field(default_factory=list)
    generation: int = 0
    state: DesiredState | None = None

    async def start(self, name: str, slots: int = 2, **settings: Any) -> Running:
        """Start a pod, which reads the state of all pods at once."""
        engine = FakeEngine()
        await engine.start()
        self.stack.push_async_callback(engine.stop)
        values = {"adapter_slots": slots, "wait_seconds": 5, "pod_name": name, **settings}
        running = await self.stack.enter_async_context(
            running_agent(engine, self.storage.root, seconds=20, **values)
        )
        running.agent.use_peer_key(KEY)
        if self.state is not None:
            assert running.agent.store.offer(self.state.to_json(), Source.OPERATOR)
        self.pods[name] = running
        return running

    async def serve(self, count: int) -> list[Version]:
        """Versions of the aliases ``v0``, ``v1``, … on all pods."""
        versions = [self.storage.commit() for _ in range(count)]
        self.aliases = [DesiredAlias(name=f"v{index}", stable=each) for index, each in enumerate(versions)]
        self.publish({})
        for pod in self.pods.values():
            await pod.active(*versions)
        return versions

    def publish(self, homes: Mapping[str, Collection[str]], pods: Collection[str] | None = None) -> None:
        """Push the aliases and the peers to all pods, or to some."""
        self.generation += 1
        peers = [
            Peer(
                name=name,
                host=self.host,
                port=pod.port,
                homes=tuple(sorted(alias for alias, names in homes.items() if name in names)),
            )
            for name, pod in self.pods.items()
        ]
        state = self.state = DesiredState(
            generation=self.generation,
            aliases=tuple(self.aliases),
            peers=tuple(sorted([*peers, *self.gone], key=lambda peer: peer.name)),
        )
        for name, pod in self.pods.items():
            if pods is None or name in pods:
                assert pod.agent.store.offer(state.to_json(), Source.OPERATOR)

    def answered(self) -> dict[str, int]:
        """Requests that the engine of each pod got."""
        return {name: len(pod.engine.requests) for name, pod in self.pods.items()}

    def results(self) -> dict[str, dict[str, int]]:
        """Requests that each pod handed on, by result."""
        return {name: dict(pod.agent.metrics.hops.results) for name, pod in self.pods.items()}


@asynccontextmanager
async def new_fleet(storage: Storage) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        yield Fleet(storage, stack)


@pytest.fixture
async def fleet(storage: Storage) -> AsyncIterator[Fleet]:
    """Three pods, ``a``, ``b`` and ``c``, with two slots each."""
    async with new_fleet(storage) as fleet:
        for name in "abc":
            await fleet.start(name)
        yield fleet


async def ask(pod: Running, model: str, key: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    """One chat completion."""
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    sent = {**(headers or {}), **({STICKINESS_HEADER: key} if key else {})}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{pod.url}{CHAT}", json=body, headers=sent) as answer,
    ):
        return Answer(answer.status, answer.headers.get(VERSION_HEADER, ""), await answer.text())


def home_of(key: str, names: Sequence[str]) -> str:
    """Pod that a sticky key picks."""
    return max(names, key=lambda name: rendezvous_score(key.encode(), name.encode()))


async def test_a_request_is_answered_by_a_home_of_its_alias(fleet: Fleet) -> None:
    versions = await fleet.serve(6)
    fleet.publish({f"v{index}": "abc"[index % 3] for index in range(6)})
    before = {name: len(pod.engine.loads) for name, pod in fleet.pods.items()}
    for pod in fleet.pods.values():
        for index, version in enumerate(versions):
            answer = await ask(pod, f"v{index}", key="someone")
            assert (answer.status, answer.version) == (200, served_name(f"v{index}", version.digest))
    assert fleet.answered() == {"a": 6, "b": 6, "c": 6}
    assert fleet.results() == {name: {"answered": 4} for name in "abc"}
    # Two aliases on each pod stay in its two slots.
    assert all(len(pod.engine.loads) - before[name] <= 2 for name, pod in fleet.pods.items())
    text = fleet.pods["a"].agent.metrics.render().decode()
    assert 'tunesmith_agent_forwarded_total{result="answered"} 4.0' in text
    assert 'tunesmith_agent_received_from_pods_total{result="taken"} 4.0' in text
    assert "tunesmith_agent_hop_seconds_count 4.0" in text


@IPV6
async def test_requests_are_forwarded_to_pods_with_addresses_of_ipv6(storage: Storage) -> None:
    async with new_fleet(storage) as fleet:
        fleet.host = "::1"
        for name in "ab":
            await fleet.start(name, host="")
        (version,) = await fleet.serve(1)
        fleet.publish({"v0": "b"})
        answer = await ask(fleet.pods["a"], "v0")
        assert (answer.status, answer.version) == (200, served_name("v0", version.digest))
        assert fleet.answered() == {"a": 0, "b": 1}


@IPV6
async def test_without_a_host_an_agent_is_reached_by_both_families(
    engine: FakeEngine, tmp_path: Path
) -> None:
    async with running_agent(engine, tmp_path, host="") as running:
        for host in ("127.0.0.1", "::1"):
            for port, path in ((running.port, "/v1/models"), (running.monitoring_port, "/healthz")):
                url = f"{TcpAddress(host, port).url}{path}"
                async with aiohttp.ClientSession() as session, session.get(url) as answer:
                    assert answer.status == 200, url


async def test_a_conversation_stays_on_one_pod_wherever_it_arrives(fleet: Fleet) -> None:
    await fleet.serve(3)
    fleet.publish({"v0": "ab", "v1": "bc", "v2": "ca"})
    for key in ("k1", "k2", "k3", "k4", "k5", "k6"):
        before = fleet.answered()
        for pod in fleet.pods.values():
            assert (await ask(pod, "v0", key)).status == 200
        after = fleet.answered()
        assert {name: after[name] - before[name] for name in after if after[name] > before[name]} == {
            home_of(key, "ab"): 3
        }
    assert fleet.answered()["c"] == 0
    # The pod that answers counts the client, and one that comes by way of others is the same client.
    for name in "ab":
        counters = fleet.pods[name].agent.reconciler.report("boot").counters
        [counted] = [each for each in counters if each.alias == "v0"]
        assert counted.requests == fleet.answered()[name]
        assert counted.keys == fleet.answered()[name] // 3
    counters = fleet.pods["c"].agent.reconciler.report("boot").counters
    assert sum(each.requests for each in counters) == 0


async def test_where_all_adapters_fit_nothing_is_handed_on(storage: Storage) -> None:
    async with new_fleet(storage) as fleet:
        for name in "ab":
            await fleet.start(name, slots=8)
        await fleet.serve(3)
        fleet.publish({})
        for pod in fleet.pods.values():
            assert all(route.homes is None for route in pod.agent.proxy.table.routes.values())
            for index in range(3):
                assert (await ask(pod, f"v{index}", "key")).status == 200
        assert fleet.answered() == {"a": 3, "b": 3}
        assert fleet.results() == {"a": {}, "b": {}}


async def test_a_pod_without_the_key_answers_all_by_itself(fleet: Fleet) -> None:
    await fleet.serve(3)
    fleet.pods["a"].agent.directory.use_key(b"")
    fleet.publish({"v0": "b", "v1": "b", "v2": "c"})
    for index in range(3):
        assert (await ask(fleet.pods["a"], f"v{index}", "key")).status == 200
    assert fleet.answered() == {"a": 3, "b": 0, "c": 0}


async def test_a_new_pod_flips_no_conversation_and_fails_no_request(storage: Storage) -> None:
    """A pod that lacks versions hands requests for them on, the candidate's as well."""
    async with new_fleet(storage) as fleet:
        await fleet.start("a", slots=8)
        stable, candidate = storage.commit(), storage.commit()
        fleet.aliases = [DesiredAlias(name="sql", stable=stable, candidate=candidate, weight=50)]
        fleet.publish({})
        await fleet.pods["a"].active(stable, candidate)
        keys = [f"key-{index}" for index in range(20)]
        chosen = {key: (await ask(fleet.pods["a"], "sql", key)).version for key in keys}
        assert len(set(chosen.values())) == 2
        new = await fleet.start("b", slots=8)
        new.engine.load_gate = asyncio.Event()
        fleet.publish({})
        await new.until(lambda: new.state(stable) is LoadState.LOADING)
        assert {key: (await ask(new, "sql", key)).version for key in keys} == chosen
        assert fleet.answered()["b"] == 0
        assert (await ask(new, served_name("sql", stable.digest))).status == 200
        new.engine.load_gate.set()
        await new.active(stable, candidate)
        assert {key: (await ask(new, "sql", key)).version for key in keys} == chosen
        assert fleet.answered()["b"] == len(keys)


@pytest.mark.parametrize("weight", [0, 50])
async def test_a_new_pod_is_ready_with_the_candidates_that_get_requests(
    agent: Running, storage: Storage, weight: int
) -> None:
    stable, candidate = storage.commit(), storage.commit()
    agent.engine.hang_probes_of = served_name("sql", candidate.digest)
    agent.want(DesiredAlias(name="sql", stable=stable, candidate=candidate, weight=weight))
    await agent.active(stable)
    assert ("sql" in agent.agent.reconciler.not_ready_reason()) == bool(weight)


async def test_a_request_goes_one_hop_and_no_further(fleet: Fleet) -> None:
    """A pod that does not hold the version says so to the first one, which tries the next home."""
    versions = await fleet.serve(3)
    homes = {"v0": "bc"}
    fleet.publish({**homes, "v1": "a", "v2": "a"})
    key = next(f"k{index}" for index in range(100) if home_of(f"k{index}", "bc") == "b")
    b = fleet.pods["b"]
    b.engine.load_error = "no"
    await b.engine.restart()
    await b.until(lambda: b.state(versions[0]) is LoadState.FAILED)
    answer = await ask(fleet.pods["a"], "v0", key)
    assert (answer.status, fleet.answered()) == (200, {"a": 0, "b": 0, "c": 1})
    assert fleet.results() == {"a": {"not_held": 1, "answered": 1}, "b": {}, "c": {}}
    assert b.agent.metrics.hops.received == {"not_held": 1}
    # For a moment it is not asked for this version again, but for others.
    assert (await ask(fleet.pods["a"], "v0", key)).status == 200
    assert fleet.results()["a"] == {"not_held": 1, "answered": 2}
    assert fleet.pods["a"].agent.directory.find("b", "another") is not None


async def test_where_no_home_answers_the_pod_loads_the_version_itself(fleet: Fleet) -> None:
    versions = await fleet.serve(3)
    fleet.publish({"v0": "b", "v1": "a", "v2": "a"})
    await ask(fleet.pods["a"], "v1", "k")
    await ask(fleet.pods["a"], "v2", "k")
    b = fleet.pods["b"]
    b.stop.set()
    await b.done
    answer = await ask(fleet.pods["a"], "v0", "key")
    assert (answer.status, answer.version) == (200, served_name("v0", versions[0].digest))
    assert fleet.results()["a"] == {"unreachable": 1}
    assert fleet.pods["a"].engine.most_adapters == 2
    # For a moment it is not asked again.
    await ask(fleet.pods["a"], "v0", "key")
    assert fleet.results()["a"] == {"unreachable": 1}


async def test_a_pod_that_hangs_is_left_for_the_next_home(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections, as the kernel of a stopped process does, and never asks for the body."""
    monkeypatch.setattr(hops, "ANSWER_SECONDS", 0.05)
    await fleet.serve(3)
    taken: list[bytes] = []

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.read(65536))
        taken.append(await reader.read(65536))
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        fleet.gone = [Peer(name="hangs", host="127.0.0.1", port=port, homes=("v0",))]
        fleet.publish({"v0": "b", "v1": "a", "v2": "a"})
        key = next(f"k{index}" for index in range(100) if home_of(f"k{index}", ["hangs", "b"]) == "hangs")
        answer = await ask(fleet.pods["a"], "v0", key)
        assert (answer.status, fleet.answered()["b"]) == (200, 1)
        assert fleet.results()["a"] == {"unreachable": 1, "answered": 1}
        await asyncio.sleep(0)
    assert b"content-length" in taken[0]
    assert b"messages" not in b"".join(taken), "the body was sent though nobody asked for it"


async def test_a_pod_that_dies_in_the_middle_ends_the_answer_and_is_not_asked_twice(fleet: Fleet) -> None:
    await fleet.serve(3)
    fleet.publish({"v0": "b", "v1": "a", "v2": "a"})
    b = fleet.pods["b"]
    body = {"model": "v0", "messages": [], "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{fleet.pods['a'].url}{CHAT}", json=body) as answer,
    ):
        b.engine.pieces.put_nowait(b"data: 1\n\n")
        assert await answer.content.readany() == b"data: 1\n\n"
        await b.agent.server.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read()
    assert fleet.results()["a"] == {"broken": 1}
    assert fleet.answered() == {"a": 0, "b": 1, "c": 0}


async def test_a_stream_comes_through_piece_by_piece(fleet: Fleet) -> None:
    versions = await fleet.serve(3)
    fleet.publish({"v0": "b", "v1": "a", "v2": "a"})
    body = {"model": "v0", "messages": [], "stream": True}
    engine = fleet.pods["b"].engine
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{fleet.pods['a'].url}{CHAT}", json=body) as answer,
    ):
        for piece in (b"data: 1\n\n", b"data: 2\n\n"):
            engine.pieces.put_nowait(piece)
            assert await answer.content.readany() == piece
        engine.pieces.put_nowait(None)
        assert await answer.content.read() == b""
        assert answer.headers[VERSION_HEADER] == served_name("v0", versions[0].digest)
        assert answer.headers["content-type"].startswith("text/event-stream")


async def test_what_a_client_did_not_ask_for_is_left_out_on_the_way_through_another_pod(fleet: Fleet) -> None:
    """The pod that answers asks its engine for counts of tokens, and both pods know the request by one name."""
    versions = await fleet.serve(3)
    fleet.publish({"v0": "b", "v1": "a", "v2": "a"})
    a, b = fleet.pods["a"], fleet.pods["b"]
    for piece in (b'data: {"choices":[{}]}\n\n', None):
        b.engine.pieces.put_nowait(piece)
    body = {"model": "v0", "messages": [], "stream": True}
    headers = {"x-request-id": "mine"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{a.url}{CHAT}", json=body, headers=headers) as answer,
    ):
        assert await answer.read() == b'data: {"choices":[{}]}\n\n'
        assert answer.headers.getall("x-request-id") == ["mine"]
    assert b.engine.headers[-1]["x-request-id"] == "mine"
    stats = {
        name: pod.agent.metrics.stats("v0", versions[0].digest).generation_tokens
        for name, pod in fleet.pods.items()
    }
    assert stats == {"a": 0, "b": b.engine.usage["completion_tokens"], "c": 0}


async def test_a_client_that_leaves_ends_the_work_on_the_other_pod(fleet: Fleet) -> None:
    await fleet.serve(3)
    fleet.publish({"v0": "b", "v1": "a", "v2": "a"})
    b = fleet.pods["b"]
    b.engine.hold = asyncio.Event()
    request = asyncio.create_task(ask(fleet.pods["a"], "v0"))
    await b.engine.arrived.wait()
    await b.until(lambda: len(b.engine.requests) == 1)
    request.cancel()
    await asyncio.wait_for(b.engine.left.wait(), 10)
    assert fleet.results()["a"] == {"left": 1}


async def test_forged_requests_are_refused(fleet: Fleet) -> None:
    versions = await fleet.serve(3)
    fleet.publish({"v0": "b", "v1": "a", "v2": "a"})
    b = fleet.pods["b"]
    name = served_name("v0", versions[0].digest)
    for code in ("", "1", "0" * 64):
        answer = await ask(b, name, headers={FORWARDED_HEADER: code})
        assert answer.status == 403
        assert "leave it out" in answer.body
    # A code of another body, another pod or another key is none.
    body = b'{"model":"%b","messages":[]}' % name.encode()
    signed = Signed("b", CHAT.encode(), b"7", b"", body)
    codes = {
        "right": signed.code(KEY.encode()),
        "other body": replace(signed, body=body + b" ").code(KEY.encode()),
        "other pod": replace(signed, pod="c").code(KEY.encode()),
        "other path": replace(signed, path=b"/v1/completions").code(KEY.encode()),
        "other sticky key": replace(signed, sticky=b"8").code(KEY.encode()),
        "other client": replace(signed, client=b"ada").code(KEY.encode()),
        "other alias": replace(signed, alias=b"v1").code(KEY.encode()),
        "other key": signed.code(b"x"),
    }
    statuses = {}
    async with aiohttp.ClientSession() as session:
        for case, mac in codes.items():
            headers = {
                FORWARDED_HEADER: mac.decode(),
                FORWARDED_KEY_HEADER: "7",
                "content-type": "application/json",
            }
            async with session.post(f"{b.url}{CHAT}", data=body, headers=headers) as response:
                statuses[case] = response.status
    assert statuses == {case: 200 if case == "right" else 403 for case in codes}
    # Without a key of its own a pod takes no request of another one.
    b.agent.directory.use_key(b"")
    answer = await ask(b, name, headers={FORWARDED_HEADER: signed.code(b"").decode()})
    assert answer.status == 403
    assert len(b.engine.requests) == 1


async def test_the_pod_that_answers_holds_clients_to_their_limits(storage: Storage, tmp_path: Path) -> None:
    keys = tmp_path / "keys", tmp_path / "later keys"
    for folder in keys:
        folder.mkdir()
    (keys[0] / "ada").write_text('{"key": "sk-0123456789abcdef", "requestsPerMinute": 2}')
    headers = {"Authorization": "Bearer sk-0123456789abcdef"}
    async with new_fleet(storage) as fleet:
        for name in "ab":
            await fleet.start(name, keys_dir=str(keys[0]))
        await fleet.start("c", keys_dir=str(keys[1]))
        await fleet.serve(2)
        fleet.publish({"v0": "b", "v1": "c"})
        a, b = fleet.pods["a"].agent.access, fleet.pods["b"].agent.access
        assert a is not None and b is not None
        for access in (a, b):
            access.follow(DesiredState(generation=0, pods=1), "")
        assert (await ask(fleet.pods["a"], "v0")).status == 401
        assert [(await ask(fleet.pods["a"], "v0", headers=headers)).status for _ in range(3)] == [
            200,
            200,
            429,
        ]
        assert (b.clients[0].counts.requests, b.clients[0].counts.refusals) == (2, {"requests": 1})
        assert fleet.answered() == {"a": 0, "b": 2, "c": 0}
        # A pod that does not know the client leaves the request to others.
        assert (await ask(fleet.pods["a"], "v1", headers=headers)).status == 200
        assert a.clients[0].counts.requests == 1
        assert fleet.answered() == {"a": 1, "b": 2, "c": 0}
        seen = [header for pod in fleet.pods.values() for header in pod.engine.headers]
        assert not any("0123456789" in value for header in seen for value in header.values())


async def test_pods_that_disagree_on_the_key_answer_all_the_same(fleet: Fleet) -> None:
    await fleet.serve(3)
    fleet.publish({"v0": "b", "v1": "a", "v2": "a"})
    fleet.pods["b"].agent.use_peer_key("another")
    assert (await ask(fleet.pods["a"], "v0")).status == 200
    assert fleet.answered() == {"a": 1, "b": 0, "c": 0}


async def test_no_request_fails_while_pods_come_and_go(storage: Storage) -> None:
    """Eight aliases, two slots, three pods: one goes, one comes, states arrive at different times."""
    async with new_fleet(storage) as fleet:
        for name in "abc":
            # Those who have looked up the pod that goes still reach it for a moment.
            await fleet.start(name, lame_duck_seconds=0.2)
        versions = await fleet.serve(8)
        homes = {f"v{index}": ["abc"[index % 3], "abc"[(index + 1) % 3]] for index in range(8)}
        fleet.publish(homes)
        answers: list[Answer] = []
        more, over = asyncio.Event(), asyncio.Event()

        async def client(number: int) -> None:
            count = 0
            while not over.is_set():
                pod = list(fleet.pods.values())[(number + count) % len(fleet.pods)]
                index = (number * 3 + count) % 8
                answer = await ask(pod, f"v{index}", f"client-{number}")
                assert answer.version in (served_name(f"v{index}", versions[index].digest), "")
                answers.append(answer)
                more.set()
                count += 1

        async def after(count: int) -> None:
            target = len(answers) + count
            while len(answers) < target:
                more.clear()
                await more.wait()

        clients = [asyncio.create_task(client(number)) for number in range(6)]
        await after(40)
        # One pod is gone before anybody is told.
        gone = fleet.pods.pop("b")
        gone.stop.set()
        await after(30)
        await fleet.start("d")
        rehomed = {name: ["d" if pod == "b" else pod for pod in pods] for name, pods in homes.items()}
        fleet.publish(rehomed, ["a"])
        await after(20)
        fleet.publish(rehomed)
        await after(40)
        await fleet.pods["d"].active(*versions)
        await after(40)
        over.set()
        await asyncio.gather(*clients)
        assert {answer.status for answer in answers} == {200}, [a for a in answers if a.status != 200][:3]
        assert fleet.answered()["d"] > 0


def test_the_key_comes_with_a_state_and_is_in_no_file_and_no_text() -> None:
    state = SentState(generation=1, peer_key=KEY)
    assert read_peer_key(state.to_json()) == KEY
    assert read_peer_key(DesiredState(generation=1).to_json()) == ""
    assert read_peer_key("{") == ""
    assert KEY not in repr(state)
    assert KEY not in DesiredState.model_validate_json(state.to_json()).to_json()


async def test_the_key_is_not_kept_on_disk(fleet: Fleet) -> None:
    pod = fleet.pods["a"]
    assert pod.agent.store.offer(SentState(generation=9, peer_key=KEY).to_json(), Source.OPERATOR)
    for path in pod.agent.settings.state_dir.rglob("*"):
        assert KEY not in path.read_text()


async def test_a_peer_that_is_told_to_go_finishes_what_it_has(fleet: Fleet) -> None:
    await fleet.serve(3)
    fleet.publish({"v0": "b", "v1": "a", "v2": "a"})
    b = fleet.pods["b"]
    b.engine.hold = asyncio.Event()
    request = asyncio.create_task(ask(fleet.pods["a"], "v0"))
    await b.until(lambda: len(b.engine.requests) == 1)
    del fleet.pods["b"]
    fleet.publish({"v0": "c", "v1": "a", "v2": "a"})
    assert fleet.pods["a"].agent.directory.find("b", "any") is None
    b.engine.hold.set()
    assert (await request).status == 200
    assert (await ask(fleet.pods["a"], "v0")).status == 200
    assert fleet.answered()["c"] == 1


async def test_requests_without_a_key_stay_where_they_are_if_they_can(fleet: Fleet) -> None:
    await fleet.serve(3)
    fleet.publish({"v0": "ab", "v1": "ab", "v2": "c"})
    body = {"model": "v0"}
    async with aiohttp.ClientSession() as session:
        for name in "ab":
            async with session.post(f"{fleet.pods[name].url}/v1/completions", json=body) as answer:
                assert answer.status == 200
    assert fleet.answered() == {"a": 1, "b": 1, "c": 0}


async def test_while_its_engine_is_gone_a_pod_has_others_answer(storage: Storage) -> None:
    """First nobody knows that the engine is gone: nothing was sent, so another pod may be asked."""
    async with new_fleet(storage) as fleet:
        for name in "ab":
            await fleet.start(name, slots=8)
        [version] = await fleet.serve(1)
        fleet.publish({})
        a = fleet.pods["a"]
        await a.engine.stop()
        answers = [await ask(a, model) for model in ("v0", "v0", "base", served_name("v0", version.digest))]
        await a.until(lambda: not a.agent.metrics.engine_up)
        answers += [await ask(a, model) for model in ("v0", "base", served_name("v0", version.digest))]
        assert {answer.status for answer in answers} == {200}
        assert fleet.answered() == {"a": 0, "b": 7}
        assert {answer.version for answer in answers} == {"base", served_name("v0", version.digest)}
        assert all("stream_options" not in request for request in fleet.pods["b"].engine.requests)
        # Also where it is the only home of the alias.
        fleet.publish({"v0": "a"})
        assert (await ask(a, "v0")).status == 200
        assert fleet.answered()["b"] == 8


async def test_the_access_log_says_how_a_request_ended_that_found_no_engine_at_first(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[int, str]] = []

    def write(records: list[RequestRecord]) -> bool:
        lines.extend((record.status, str(record.end)) for record in records)
        return True

    monkeypatch.setattr(access_log, "_write", write)
    async with new_fleet(storage) as fleet:
        a = await fleet.start("a", slots=8, access_logs=AccessLogs.ALL)
        b = await fleet.start("b", slots=8)
        await fleet.serve(1)
        fleet.publish({})
        a.cut_off(monkeypatch)
        assert (await ask(a, "v0")).status == 200
        b.engine.hold, b.engine.arrived = asyncio.Event(), asyncio.Event()
        async with connect(a) as wire:
            wire.writer.write(post({**ASK, "model": "v0"}))
            await b.engine.arrived.wait()
        await b.engine.left.wait()
        b.cut_off(monkeypatch)
        assert (await ask(a, "v0")).status == 503
    assert lines == [(200, "answered"), (0, "disconnected"), (503, "engine_lost")]


async def test_a_request_that_has_waited_is_not_sent_to_an_engine_that_hangs(fleet: Fleet) -> None:
    await fleet.serve(1)
    b = fleet.pods["b"]
    [pinned] = [target for name, route in b.agent.proxy.table.routes.items()
                if name.startswith("v0@") and (target := route.stable)]  # fmt: skip
    assert pinned.gate is not None
    pinned.gate.is_open = False
    pinned.gate.on_wait = None
    async with connect(b) as wire:
        wire.writer.write(post({**ASK, "model": "v0"}))
        await until(lambda: b.agent.proxy.waiting_room.waiting == 1)
        b.agent.proxy.engine_hangs = True
        pinned.gate.is_open = True
        pinned.gate.release()
        assert (await wire.answer()).status == 200
    assert fleet.answered()["b"] == 0


async def test_while_its_engine_hangs_a_pod_has_others_answer(fleet: Fleet) -> None:
    await fleet.serve(3)
    fleet.publish({"v0": "a", "v1": "b", "v2": "c"})
    a = fleet.pods["a"]
    a.agent.proxy.engine_hangs = True
    for model in ("v0", "v1", "v2", "base"):
        assert (await ask(a, model, "key")).status == 200
    assert fleet.answered()["a"] == 0
    # It takes none from others either.
    assert (await ask(fleet.pods["b"], "v0", "key")).status == 200
    assert fleet.answered()["a"] == 0
    # The next home is asked before others.
    fleet.publish({"v0": "ac", "v1": "b", "v2": "c"})
    before = fleet.answered()["c"]
    for index in range(5):
        assert (await ask(a, "v0", f"key-{index}")).status == 200
    assert fleet.answered()["c"] == before + 5
    fleet.publish({}, ["a"])
    a.agent.directory.use_key(b"")
    assert (await ask(a, "v0", "key")).status == 503


async def test_an_open_breaker_holds_for_requests_of_other_pods_too(storage: Storage) -> None:
    """The pod that answers has seen the errors; a client that names the version still gets it."""
    async with new_fleet(storage) as fleet:
        for name in "ab":
            await fleet.start(name, slots=8)
        stable, candidate = storage.commit(), storage.commit()
        fleet.aliases = [DesiredAlias(name="sql", stable=stable, candidate=candidate, weight=100)]
        fleet.publish({"sql": "b"})
        for pod in fleet.pods.values():
            await pod.active(stable, candidate)
        a, b = fleet.pods["a"], fleet.pods["b"]
        name = served_name("sql", candidate.digest)
        b.engine.fail_with = {name: 500}
        statuses = [(await ask(a, "sql", f"key-{index}")).status for index in range(8)]
        assert statuses == [500] * 5 + [200] * 3
        assert (await ask(a, "sql", "key")).version == served_name("sql", stable.digest)
        assert (await ask(a, name, "key")).status == 500
        # Also by the header.
        assert (await ask(a, "sql", "key", {VERSION_HEADER: name})).status == 500
        assert (await ask(a, "sql", "key", {VERSION_HEADER: name.partition("@")[2]})).status == 500
        assert a.engine.requests == []


async def test_a_home_whose_waiting_room_is_full_leaves_requests_to_the_next_one(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = await fleet.serve(3)
    fleet.publish({"v0": "b", "v1": "b", "v2": "b"})
    b = fleet.pods["b"]
    for index in range(3):
        assert (await ask(fleet.pods["a"], f"v{index}")).status == 200
    absent = next(
        f"v{index}"
        for index, version in enumerate(versions)
        if served_name(f"v{index}", version.digest) not in b.engine.adapters
    )
    monkeypatch.setattr(b.agent.proxy.waiting_room, "has_room", lambda size: False)
    assert (await ask(fleet.pods["a"], absent)).status == 200
    assert fleet.results()["a"]["not_held"] == 1
    assert fleet.answered() == {"a": 1, "b": 3, "c": 0}


async def test_a_pod_says_what_it_was_asked_of_late(agent: Running, expenses: Version) -> None:
    for _ in range(5):
        await ask(agent, "expenses")
    [counters] = agent.agent.reconciler.report("boot").counters
    assert (counters.requests, counters.recent) == (5, 5)
    stats = agent.agent.metrics.stats("expenses", expenses.digest)
    now = asyncio.get_running_loop().time()
    assert stats.recent_requests(now + 600) == 2
    assert stats.recent_requests(now + 6000) == 0
