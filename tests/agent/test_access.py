"""Requests of clients with keys: who gets in, limits, what the engine and logs see, restarts, a full engine."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.wire import ASK, MODELS, Answer, connect, once, post, until

from tunesmith_agent.access import access
from tunesmith_agent.access.access import Access
from tunesmith_agent.access.entries import digest_of
from tunesmith_agent.control import engine_queue
from tunesmith_agent.control.desired_state import Source
from tunesmith_agent.control.engine_queue import EngineQueue
from tunesmith_agent.control.operator_link import _read_usage
from tunesmith_agent.engine import metrics as engine_metrics
from tunesmith_agent.telemetry.access_log import AccessLogs
from tunesmith_contract.agent import (
    CountedTokens,
    DesiredAlias,
    DesiredState,
    UsageOfOthers,
)

ADA, BEN, NEW = "sk-ada-0123456789", "sk-ben-0123456789", "sk-new-0123456789"


class Secret:
    """A mounted Secret, whose files kubelet replaces all at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writes = 0
        folder.mkdir()

    def write(self, **entries: Any) -> None:
        """Replace all entries."""
        self.writes += 1
        data = self.folder / f"..{self.writes}"
        data.mkdir()
        for name, entry in entries.items():
            (data / name).write_text(entry if isinstance(entry, str) else json.dumps(entry))
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data") / name)
        link = self.folder / "..new"
        link.symlink_to(data.name)
        os.replace(link, self.folder / "..data")
        for path in self.folder.glob("[!.]*"):
            if path.name not in entries:
                path.unlink()


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    return Secret(tmp_path / "keys")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "POLL_SECONDS", 0.01)


@pytest.fixture
async def guarded(engine: FakeEngine, storage: Storage, secret: Secret) -> AsyncIterator[Running]:
    """An agent with two clients, of which one may ask for ``expenses`` alone."""
    secret.write(ada={"key": ADA, "adapters": ["expenses"]}, ben={"key": BEN})
    async with running_agent(engine, storage.root, keys_dir=str(secret.folder)) as running:
        versions = storage.commit(), storage.commit()
        running.want(
            DesiredAlias(name="expenses", stable=versions[0]), DesiredAlias(name="sql", stable=versions[1])
        )
        await running.active(*versions)
        yield running


def with_key(key: str, body: dict[str, Any] = ASK, **members: Any) -> bytes:
    return post({**body, **members}, f"Authorization: Bearer {key}")


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["error"]["code"]


def access_of(running: Running) -> Access:
    assert running.agent.access is not None
    return running.agent.access


@pytest.mark.parametrize(
    "header",
    [
        "X-Y: z",
        "Authorization: Bearer ",
        f"Authorization: Bearer {ADA}x",
        f"Authorization: Basic {ADA}",
        f"Api-Key: {ADA}",
    ],
)
async def test_without_a_known_key_nothing_is_answered(guarded: Running, header: str) -> None:
    answer = await once(guarded, post(ASK, header))
    assert code(answer) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "bearer"
    assert code(await once(guarded, MODELS.replace(b"Host: x", f"Host: x\r\n{header}".encode())))[0] == 401
    assert not guarded.engine.requests


async def test_a_kept_connection_gets_in_for_as_long_as_its_key_is_known(
    guarded: Running, secret: Secret
) -> None:
    async with connect(guarded) as wire:
        for _ in range(3):
            assert (await wire.ask(with_key(ADA))).status == 200
        secret.write(ada={"key": NEW}, ben={"key": BEN})
        await until(
            lambda: access_of(guarded)._by_digest.keys() == {digest_of(NEW.encode()), digest_of(BEN.encode())}
        )
        for _ in range(3):
            assert code(await wire.ask(with_key(ADA))) == (401, "invalid_api_key")
            assert (await wire.ask(with_key(BEN))).status == 200
        secret.write(ada={"key": ADA}, cleo={"key": BEN})
        await until(lambda: access_of(guarded).find("cleo") is not None)
        assert (await wire.ask(with_key(ADA))).status == (await wire.ask(with_key(BEN))).status == 200
        assert {client.name: client.counts.requests for client in access_of(guarded).clients} == {
            "ada": 4,
            "cleo": 1,
        }


async def test_the_key_lets_in_and_goes_no_further(
    guarded: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for scheme in ("Bearer", "bearer", "BEARER "):
        assert (await once(guarded, post(ASK, f"Authorization: {scheme} {ADA}"))).status == 200
    seen = json.dumps([guarded.engine.headers, guarded.engine.requests])
    reports = guarded.agent.make_report().to_json()
    kept = [path.read_text() for path in guarded.agent.settings.state_dir.glob("*")]
    assert not any(ADA in text for text in (seen, reports, caplog.text, *kept))
    assert "authorization" not in guarded.engine.headers[0]


async def test_the_access_log_names_the_client(
    engine: FakeEngine, storage: Storage, secret: Secret, capfd: pytest.CaptureFixture[str]
) -> None:
    secret.write(ada={"key": ADA})
    settings: dict[str, Any] = {"keys_dir": str(secret.folder), "access_logs": AccessLogs.ALL}
    async with running_agent(engine, storage.root, **settings) as running:
        running.want()
        assert (await once(running, with_key(ADA, model="base"))).status == 200
        assert (await once(running, with_key(BEN, model="base"))).status == 401
    text = capfd.readouterr().out
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [(line["client"], line["status"]) for line in lines] == [("ada", 200), (None, 401)]
    assert ADA not in text and BEN not in text


async def test_a_client_sees_its_adapters_alone(guarded: Running) -> None:
    listed = await once(
        guarded, MODELS.replace(b"Host: x", f"Host: x\r\nAuthorization: Bearer {ADA}".encode())
    )
    names = [model["id"] for model in json.loads(listed.body)["data"]]
    assert all(name.partition("@")[0] == "expenses" for name in names) and len(names) == 2
    for model in (
        "sql",
        "base",
        next(name for name in guarded.agent.proxy.table.routes if name[:4] == "sql@"),
    ):
        answer = await once(guarded, with_key(ADA, model=model))
        assert code(answer) == (404, "model_not_found")
        assert "use expenses, expenses@" in answer.message and "base" not in answer.message.split("use", 1)[1]
    assert (await once(guarded, with_key(ADA, model=names[1]))).status == 200
    assert [(await once(guarded, with_key(BEN, model=model))).status for model in ("sql", "base")] == [
        200,
        200,
    ]


async def test_openai_clients_read_refusals(guarded: Running, secret: Secret) -> None:
    async with openai.AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="not known here"):
            await client.models.list()
    secret.write(ada={"key": ADA, "requestsPerMinute": 1})
    await until(lambda: len(access_of(guarded).clients) == 1)
    access_of(guarded).follow(DesiredState(generation=0, pods=1), "")
    async with openai.AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key=ADA, max_retries=0) as client:
        asked: Any = {"model": "expenses", "messages": [{"role": "user", "content": "x"}]}
        raw = await client.chat.completions.with_raw_response.create(**asked)
        assert (raw.headers["x-ratelimit-limit-requests"], raw.headers["x-ratelimit-remaining-requests"]) == (
            "1",
            "0",
        )
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**asked)
    assert int(refused.value.response.headers["retry-after"]) in (59, 60)
    assert refused.value.code == "rate_limit_exceeded"


async def test_keys_change_without_a_restart(guarded: Running, secret: Secret) -> None:
    assert (await once(guarded, with_key(NEW))).status == 401
    secret.write(ada={"keys": [ADA, NEW]}, ben="sk-ben-in-the-wrong-form")
    await until(lambda: access_of(guarded).fault_count == 1)
    assert [(await once(guarded, with_key(key))).status for key in (ADA, NEW, BEN)] == [200, 200, 401]
    report = guarded.agent.make_report().access
    assert report is not None and (report.clients, report.fault_count) == (1, 1)
    assert report.faults[0].client == "ben" and "no JSON object" in report.faults[0].message
    assert "wrong-form" not in report.to_json()
    secret.write()
    await until(lambda: not access_of(guarded).clients)
    assert (await once(guarded, with_key(NEW))).status == 401


async def test_without_a_secret_all_are_refused(engine: FakeEngine, storage: Storage, secret: Secret) -> None:
    async with running_agent(engine, storage.root, keys_dir=str(secret.folder)) as running:
        running.want()
        assert (await once(running, with_key(ADA, model="base"))).status == 401
        report = running.agent.make_report().access
        assert report is not None and (report.clients, report.fault_count) == (0, 0)
        secret.write(ada={"key": ADA})
        await until(lambda: len(access_of(running).clients) == 1)
        assert (await once(running, with_key(ADA, model="base"))).status == 200


async def test_a_pod_that_has_never_read_the_keys_is_not_ready(
    engine: FakeEngine, storage: Storage, secret: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients get their answer from pods that know their keys, not a 401 from one that does not."""
    secret.write(ada={"key": ADA})
    ready = MODELS.replace(b"/v1/models", b"/readyz")

    def fail(folder: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as broken:
        broken.setattr(access, "read_entries", fail)
        async with running_agent(engine, storage.root, keys_dir=str(secret.folder)) as running:
            running.want()
            await running.until(lambda: not running.agent.reconciler.not_ready_reason())
            async with connect(running, port=running.monitoring_port) as wire:
                answer = await wire.ask(ready)
                assert (answer.status, b"keys" in answer.body) == (503, True)
                broken.undo()
                await until(lambda: len(access_of(running).clients) == 1)
                assert (await wire.ask(ready)).status == 200
                # Keys that can't be read again stay as they are.
                broken.setattr(access, "read_entries", fail)
                secret.write(ada={"key": ADA, "requestsPerMinute": 5})
                assert (await once(running, with_key(ADA, model="base"))).status == 200
                assert (await wire.ask(ready)).status == 200


async def test_limits_are_shared_by_the_pods_of_the_state(guarded: Running, secret: Secret) -> None:
    secret.write(ada={"key": ADA, "requestsPerMinute": 20})
    await until(lambda: len(access_of(guarded).clients) == 1)

    def tell(generation: int, pods: int | None) -> None:
        current = guarded.agent.store.current
        assert current is not None
        state = DesiredState(generation=generation, aliases=current.aliases, pods=pods)
        guarded.agent.store.offer(state.to_json(), Source.OPERATOR)

    tell(8, 10)
    assert [(await once(guarded, with_key(ADA))).status for _ in range(3)] == [200, 200, 429]
    tell(9, 4)
    refused = await once(guarded, with_key(ADA))
    assert "over 4 pods" in refused.message


async def test_a_stream_is_counted_without_the_client_seeing_it(guarded: Running) -> None:
    engine = guarded.engine
    engine.usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    pieces = [b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', b"data: [DONE]\n\n"]
    for piece in (*pieces, None, *pieces, None):
        engine.pieces.put_nowait(piece)
    hidden = await once(guarded, with_key(ADA, stream=True))
    assert hidden.body == b"".join(pieces)
    asked = await once(guarded, with_key(ADA, stream=True, stream_options={"include_usage": True}))
    assert b'"total_tokens":12' in asked.body
    assert (await once(guarded, with_key(ADA))).status == 200
    counts = access_of(guarded).clients[0].counts
    assert (counts.requests, counts.prompt_tokens, counts.answer_tokens) == (3, 21, 15)
    async with connect(guarded, port=guarded.monitoring_port) as wire:
        metrics = (await wire.ask(MODELS.replace(b"/v1/models", b"/metrics"))).body
    assert b'tunesmith_agent_client_tokens_total{client="ada",kind="answer"} 15.0' in metrics
    assert b'tunesmith_agent_client_requests_total{client="ada"} 3.0' in metrics


async def test_a_reservation_ends_with_its_request_however_that_ends(
    guarded: Running, secret: Secret
) -> None:
    secret.write(ada={"key": ADA, "budget": {"tokens": 10_000, "period": "Month"}})
    await until(lambda: access_of(guarded).clients[0].budget is not None)
    access_of(guarded).follow(DesiredState(generation=0, pods=1), "")
    client, engine = access_of(guarded).clients[0], guarded.engine
    name = next(name for name in guarded.agent.proxy.table.routes if name[:9] == "expenses@")
    engine.fail_with[name] = 500
    assert (await once(guarded, with_key(ADA, max_tokens=100))).status == 500
    engine.fail_with.clear()
    engine.drop = 1
    assert (await once(guarded, with_key(ADA, max_tokens=100))).status == 502
    assert (client.reserved, client.used()) == (0, 0)
    engine.hold, engine.arrived = asyncio.Event(), asyncio.Event()
    async with connect(guarded) as wire:
        wire.writer.write(with_key(ADA, max_tokens=100))
        await engine.arrived.wait()
        assert client.reserved > 100
        wire.writer.transport.abort()
        await until(lambda: client.reserved == 0)
    assert 100 < client.used() < 200
    engine.hold.set()
    await engine.stop()
    assert (await once(guarded, with_key(ADA, max_tokens=100))).status == 503
    assert client.reserved == 0 and client.used() < 200


async def test_budgets_outlive_the_agent(
    engine: FakeEngine, storage: Storage, secret: Secret, tmp_path: Path
) -> None:
    secret.write(ada={"key": ADA, "budget": {"tokens": 1000, "period": "Month"}})
    engine.usage = {"prompt_tokens": 300, "completion_tokens": 350, "total_tokens": 650}
    settings: dict[str, Any] = {"keys_dir": str(secret.folder), "state_dir": tmp_path / "state"}
    runs: list[str] = []
    for status in (200, 429):
        async with running_agent(engine, storage.root, **settings) as running:
            running.generation = len(runs)
            running.want()
            access_of(running).follow(DesiredState(generation=0, pods=1), "")
            answer = await once(running, with_key(ADA, model="base", max_tokens=400))
            assert answer.status == status, answer.body
            report = running.agent.make_report().access
            assert report is not None and report.usage[0].tokens == 650
            runs.append(report.run)
    assert runs[0] == runs[1]
    assert code(answer) == (429, "insufficient_quota")


async def test_the_operator_tells_what_others_have_used(guarded: Running, secret: Secret) -> None:
    secret.write(ada={"key": ADA, "budget": {"tokens": 1000, "period": "Month"}})
    await until(lambda: access_of(guarded).clients[0].budget is not None)
    report = guarded.agent.make_report().access
    assert report is not None and report.usage[0].others is None
    counted = CountedTokens(client="ada", period=report.usage[0].period, tokens=990)
    usage = _read_usage(UsageOfOthers(counted_by_others=(counted,)).to_json())
    assert usage is not None and _read_usage(DesiredState(generation=1).to_json()) is None
    access_of(guarded).learn(usage)
    assert code(await once(guarded, with_key(ADA, max_tokens=10))) == (429, "insufficient_quota")
    report = guarded.agent.make_report().access
    assert report is not None and report.usage[0].others == 990


# -- a full engine


@pytest.fixture
async def full(
    engine: FakeEngine, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    """An agent that lets one request wait in the engine, and looks often."""
    monkeypatch.setattr(engine_queue, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(engine_metrics, "KEPT_SECONDS", 0.0)
    async with running_agent(engine, storage.root, queue_requests=1) as running:
        version = storage.commit()
        running.want(DesiredAlias(name="expenses", stable=version))
        await running.active(version)
        yield running


async def test_a_full_engine_refuses_with_a_time(full: Running) -> None:
    engine = full.engine
    engine.hold = asyncio.Event()
    engine.waiting = 3
    async with connect(full) as wire:
        wire.writer.write(post())
        await engine.arrived.wait()
        await until(lambda: full.agent.engine_queue.retry_seconds() > 0)
        refused = await once(full, post())
        assert code(refused) == (429, "queue_full") and 1 <= int(refused.headers["retry-after"]) <= 60
        assert len(engine.requests) == 1
        engine.hold.set()
        assert (await wire.answer()).status == 200
    await until(lambda: full.agent.engine_queue.retry_seconds() == 0)
    assert (await once(full, post())).status == 200
    assert all(stats.evidence.refused == 0 for stats in full.agent.metrics.versions.values())


async def test_the_time_follows_the_rate_of_answers(guarded: Running) -> None:
    agent = guarded.agent
    queue = EngineQueue(agent.pool, agent.engine_metrics, 10)
    queue._waiting, queue._busy = 28, agent.pool.busy
    assert queue.retry_seconds() == 60
    for _ in range(40):
        queue.note_rate(2, 0.5)
    assert queue.retry_seconds() == 5
    agent.pool.busy -= 15
    assert queue.retry_seconds() == 2
    agent.pool.busy -= 5
    assert queue.retry_seconds() == 0
    agent.pool.busy += 20


async def test_after_a_quiet_night_the_longest_time_is_said(guarded: Running) -> None:
    """The rate has faded to the smallest number, and the burst has ended no request yet."""
    agent = guarded.agent
    queue = EngineQueue(agent.pool, agent.engine_metrics, 10)
    queue.note_rate(2, 0.5)
    for _ in range(10_000):
        queue.note_rate(0, 0.5)
    queue._waiting, queue._busy = 28, agent.pool.busy
    assert queue.retry_seconds() == 60


@pytest.mark.parametrize("count", ["NaN", "+Inf", "-1.0", "none", "1e3"])
async def test_an_agent_outlives_numbers_that_are_none(full: Running, count: str) -> None:
    full.engine.waiting = count
    full.engine.hold = asyncio.Event()
    async with connect(full) as wire:
        wire.writer.write(post())
        await full.engine.arrived.wait()
        reads = full.engine.metric_reads
        await until(lambda: full.engine.metric_reads > reads + 2)
        assert not full.done.done()
        assert (await once(full, post())).status == 429 if count == "1e3" else True
        full.engine.hold.set()
        assert (await wire.answer()).status == 200
    assert await full.agent.engine_metrics.tokens() == 0


async def test_an_engine_with_room_is_not_asked(guarded: Running) -> None:
    reads = guarded.engine.metric_reads
    await guarded.agent.engine_queue.look()
    assert guarded.engine.metric_reads == reads
