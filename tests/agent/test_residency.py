"""More versions than the engine has slots: loads on demand, and waits that are bounded."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from tenacity import wait_random

from tunesmith_agent.artifacts import claims
from tunesmith_agent.control import reconciler, residency
from tunesmith_agent.proxying import waiting
from tunesmith_contract.agent import (
    VERSION_HEADER,
    DesiredAlias,
    LoadState,
    Version,
    served_name,
)
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_storage.remote import Entry


async def ask(running: Running, model: str) -> tuple[int, str]:
    """Status, and which version answered."""
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/v1/chat/completions", json=body) as answer,
    ):
        return answer.status, answer.headers.get(VERSION_HEADER, "")


def residents(running: Running) -> set[str]:
    return set(running.agent.metrics.residency.resident_names)


@pytest.fixture
async def small(engine: FakeEngine, storage: Storage) -> AsyncIterator[Running]:
    """An agent whose engine has two slots."""
    async with running_agent(engine, storage.root, adapter_slots=2, wait_seconds=5) as running:
        yield running


async def serve(running: Running, storage: Storage, count: int) -> list[Version]:
    """Versions of the aliases ``v0``, ``v1``, … that were all proven."""
    versions = [storage.commit() for _ in range(count)]
    running.want(*(DesiredAlias(name=f"v{index}", stable=each) for index, each in enumerate(versions)))
    await running.active(*versions)
    return versions


async def test_every_version_answers_however_few_slots_there_are(small: Running, storage: Storage) -> None:
    versions = await serve(small, storage, 6)
    assert len(small.engine.adapters) <= 2
    for _ in range(2):
        for index, version in enumerate(versions):
            assert await ask(small, f"v{index}") == (200, served_name(f"v{index}", version.digest))
            assert len(small.engine.adapters) <= 2
    assert small.engine.most_adapters == 2
    stats = tuple(small.agent.metrics.versions.values())
    assert sum(each.waits.get("served", 0) for each in stats) >= 8
    assert sum(each.evictions for each in stats) >= 10
    text = small.agent.metrics.render().decode()
    assert "tunesmith_agent_residency_evictions_total" in text


async def test_many_requests_at_once_are_all_answered(small: Running, storage: Storage) -> None:
    versions = await serve(small, storage, 5)
    asked = [index % 5 for index in range(60)]
    answers = await asyncio.gather(*(ask(small, f"v{index}") for index in asked))
    expected = [(200, served_name(f"v{index}", versions[index].digest)) for index in asked]
    assert answers == expected
    assert small.engine.most_adapters == 2
    assert small.engine.unloads_in_use == 0


async def test_a_version_with_a_request_in_progress_is_never_unloaded(
    small: Running, storage: Storage
) -> None:
    versions = await serve(small, storage, 3)
    small.engine.hold = asyncio.Event()
    streams = [asyncio.create_task(ask(small, f"v{index}")) for index in range(2)]
    await small.until(lambda: len(small.engine.requests) == 2)
    third = asyncio.create_task(ask(small, "v2"))
    waiting_room = small.agent.proxy.waiting_room
    await small.until(lambda: waiting_room.waiting > 0)
    await small.agent.reconciler.step()
    assert residents(small) == {served_name(f"v{index}", versions[index].digest) for index in range(2)}
    small.engine.hold.set()
    assert [status for status, _ in await asyncio.gather(*streams)] == [200, 200]
    assert await third == (200, served_name("v2", versions[2].digest))
    assert small.engine.unloads_in_use == 0


async def test_a_new_version_gets_a_slot_though_no_other_one_is_ever_idle(
    small: Running, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residency, "PATIENCE_SECONDS", 0.05)
    versions = await serve(small, storage, 2)
    small.engine.hold = asyncio.Event()
    busy = [asyncio.create_task(ask(small, f"v{index}")) for index in range(2)]
    await small.until(lambda: len(small.engine.requests) == 2)
    third = storage.commit()
    known = [DesiredAlias(name=f"v{index}", stable=each) for index, each in enumerate(versions)]
    small.want(*known, DesiredAlias(name="v2", stable=third))
    await small.until(lambda: any(each.evictions for each in small.agent.metrics.versions.values()))
    # Requests for the one that makes room wait from now on, so that it becomes idle.
    busy += [asyncio.create_task(ask(small, f"v{index}")) for index in range(2)]
    small.engine.hold.set()
    await small.active(third)
    assert [status for status, _ in await asyncio.gather(*busy)] == [200] * 4
    assert small.engine.unloads_in_use == 0


async def test_a_request_waits_no_longer_than_it_may(engine: FakeEngine, storage: Storage) -> None:
    async with running_agent(engine, storage.root, adapter_slots=1, wait_seconds=0.05) as running:
        _, second = await serve(running, storage, 2)
        assert (await ask(running, "v0"))[0] == 200
        engine.hold = asyncio.Event()
        first = asyncio.create_task(ask(running, "v0"))
        await running.until(lambda: len(engine.requests) == 2)
        body = {"model": "v1", "messages": []}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{running.url}/v1/chat/completions", json=body) as answer,
        ):
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert "not ready within 0.05 s" in await answer.text()
        engine.hold.set()
        assert (await first)[0] == 200
        stats = running.agent.metrics.stats("v1", second.digest)
        assert (stats.waits, stats.waiting) == ({"timed_out": 1}, 0)
        assert 0.04 < stats.queued.total < 5


async def test_a_client_that_leaves_while_it_waits_is_noticed(engine: FakeEngine, storage: Storage) -> None:
    async with running_agent(engine, storage.root, adapter_slots=1) as running:
        _, waited_for = await serve(running, storage, 2)
        assert (await ask(running, "v0"))[0] == 200
        engine.hold = asyncio.Event()
        first = asyncio.create_task(ask(running, "v0"))
        await running.until(lambda: len(engine.requests) == 2)
        second = asyncio.create_task(ask(running, "v1"))
        room = running.agent.proxy.waiting_room
        await running.until(lambda: room.waiting > 0)
        second.cancel()
        await running.until(lambda: room.waiting == 0)
        stats = running.agent.metrics.stats("v1", waited_for.digest)
        assert (room.bytes, stats.waits, stats.waiting) == (0, {"left": 1}, 0)
        engine.hold.set()
        await first


async def test_waiting_requests_are_bounded(
    engine: FakeEngine, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MAX_REQUESTS", 1)
    async with running_agent(engine, storage.root, adapter_slots=1) as running:
        await serve(running, storage, 2)
        assert (await ask(running, "v0"))[0] == 200
        engine.hold = asyncio.Event()
        first = asyncio.create_task(ask(running, "v0"))
        await running.until(lambda: len(engine.requests) == 2)
        others = [asyncio.create_task(ask(running, "v1")) for _ in range(2)]
        done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[0] for task in done] == [429]
        engine.hold.set()
        await first
        assert sorted([(await task)[0] for task in others]) == [200, 429]


async def test_requests_that_wait_go_to_the_new_version_if_theirs_is_gone(
    engine: FakeEngine, storage: Storage
) -> None:
    async with running_agent(engine, storage.root, adapter_slots=1) as running:
        old, other = await serve(running, storage, 2)
        assert (await ask(running, "v1"))[0] == 200
        engine.hold = asyncio.Event()
        busy = asyncio.create_task(ask(running, "v1"))
        await running.until(lambda: len(engine.requests) == 2)
        asking = asyncio.create_task(ask(running, "v0"))
        room = running.agent.proxy.waiting_room
        await running.until(lambda: room.waiting > 0)
        running.want(DesiredAlias(name="v1", stable=other))
        assert (await asking)[0] == 503
        engine.hold.set()
        assert (await busy)[0] == 200
        await running.until(lambda: running.state(old) is None)


async def test_a_load_on_demand_that_fails_is_tried_again(small: Running, storage: Storage) -> None:
    versions = await serve(small, storage, 3)
    for index in (1, 2):
        assert (await ask(small, f"v{index}"))[0] == 200
    small.engine.fail_loads = 1
    assert await ask(small, "v0") == (200, served_name("v0", versions[0].digest))


async def test_an_engine_restart_proves_what_was_not_loaded_as_well(small: Running, storage: Storage) -> None:
    versions = await serve(small, storage, 3)
    proofs = len(small.engine.salts)
    await small.engine.restart()
    await small.until(lambda: len(small.engine.salts) >= proofs + 3)
    await small.active(*versions)
    for index in range(3):
        assert (await ask(small, f"v{index}"))[0] == 200


async def test_adapters_that_nobody_wants_are_unloaded(engine: FakeEngine, storage: Storage) -> None:
    kept, gone = storage.commit(), storage.commit()
    async with running_agent(engine, storage.root) as running:
        running.want(DesiredAlias(name="a", stable=kept), DesiredAlias(name="b", stable=gone))
        await running.active(kept, gone)
    async with running_agent(engine, storage.root) as running:
        running.want(DesiredAlias(name="a", stable=kept))
        await running.active(kept)
        await asyncio.wait_for(engine.unloaded.wait(), 5)
        assert set(engine.adapters) == {served_name("a", kept.digest)}
        assert engine.loads.count(served_name("a", kept.digest)) == 1


async def test_a_drain_lasts_as_long_as_the_request(engine: FakeEngine, storage: Storage) -> None:
    version = storage.commit()
    async with running_agent(engine, storage.root, drain_seconds=0) as running:
        running.want(DesiredAlias(name="a", stable=version))
        await running.active(version)
        engine.hold = asyncio.Event()
        asking = asyncio.create_task(ask(running, "a"))
        await engine.arrived.wait()
        running.want()
        await running.until(lambda: running.state(version) is LoadState.DRAINING)
        for _ in range(3):
            await running.agent.reconciler.step()
        assert not engine.unloaded.is_set()
        engine.hold.set()
        assert (await asking)[0] == 200
        await running.until(lambda: running.state(version) is None)


async def test_a_store_that_hangs_delays_nobody_else(
    engine: FakeEngine, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = [storage.commit() for _ in range(3)], storage.commit()
    go_on = threading.Event()
    read = claims.ClaimFolder.read

    def hang(folder: claims.ClaimFolder, entry: Entry, offset: int = 0) -> object:
        if any(version.uri == str(folder.uri) for version in bad) and entry.path.endswith("safetensors"):
            go_on.wait(20)
        return read(folder, entry, offset)

    monkeypatch.setattr(claims.ClaimFolder, "read", hang)
    monkeypatch.setattr(reconciler, "LOAD_RETRY_WAIT", wait_random(0.01, 0.05))
    try:
        async with running_agent(engine, storage.root, stall_seconds=0.1) as running:
            hanging = [DesiredAlias(name=f"bad{index}", stable=each) for index, each in enumerate(bad)]
            running.want(*hanging, DesiredAlias(name="good", stable=good))
            await running.active(good)
            assert (await ask(running, "good"))[0] == 200
            for version in bad:
                assert await running.failed(version) == "StorageStalled"
            await running.until(
                lambda: sum(thread.name == "artifact" for thread in threading.enumerate()) == 3
            )
            for _ in range(5):
                await running.agent.reconciler.step()
            assert sum(thread.name == "artifact" for thread in threading.enumerate()) == 3
            go_on.set()
            await running.active(*bad)
    finally:
        go_on.set()


async def test_a_store_that_is_slow_is_waited_for(
    engine: FakeEngine, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the whole takes: a store hangs that sends nothing."""
    version, pause = storage.commit(), threading.Event()
    read = claims.ClaimFolder.read

    def trickle(folder: claims.ClaimFolder, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        data = b"".join(read(folder, entry, offset))
        size = len(data) if entry.path == MANIFEST_FILE else 1
        for start in range(0, len(data), size):
            pause.wait(0.02)
            yield data[start : start + size]

    monkeypatch.setattr(claims.ClaimFolder, "read", trickle)
    async with running_agent(engine, storage.root, stall_seconds=0.25) as running:
        began = asyncio.get_running_loop().time()
        running.want(DesiredAlias(name="a", stable=version))
        await running.active(version)
        assert asyncio.get_running_loop().time() - began > 2 * 0.25
        assert running.agent.metrics.loads == {("a", "Active"): 1}


async def test_another_address_is_read_as_soon_as_the_first_read_has_ended(
    engine: FakeEngine, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = storage.commit()
    elsewhere = version.model_copy(update={"uri": "pvc://artifacts/moved"})
    shutil.copytree(storage.folder(version), storage.folder(elsewhere))
    go_on = threading.Event()
    read = claims.ClaimFolder.read

    def hang(folder: claims.ClaimFolder, entry: Entry, offset: int = 0) -> object:
        if str(folder.uri) == version.uri:
            go_on.wait(20)
        return read(folder, entry, offset)

    monkeypatch.setattr(claims.ClaimFolder, "read", hang)
    try:
        async with running_agent(engine, storage.root) as running:
            running.want(DesiredAlias(name="a", stable=version))
            await running.until(lambda: any(each.name == "artifact" for each in threading.enumerate()))
            running.want(DesiredAlias(name="a", stable=elsewhere))
            for _ in range(3):
                await running.agent.reconciler.step()
            assert running.state(version) is LoadState.FETCHING
            go_on.set()
            await running.active(version)
    finally:
        go_on.set()


async def test_an_adapter_that_hangs_in_its_proof_delays_others_for_a_while_only(
    engine: FakeEngine, storage: Storage
) -> None:
    bad, good = storage.commit(), storage.commit()
    engine.hang_probes_of = served_name("bad", bad.digest)
    async with running_agent(engine, storage.root, proof_seconds=0.2) as running:
        running.want(DesiredAlias(name="bad", stable=bad), DesiredAlias(name="good", stable=good))
        await running.active(good)
        assert await running.failed(bad) == "ProofTimedOut"
        engine.hang_probes_of = ""
        await running.active(bad)


async def test_a_version_that_can_not_be_served_fails_for_good_before_it_is_copied(
    engine: FakeEngine, storage: Storage, tmp_path: Path
) -> None:
    version = storage.commit()
    async with running_agent(engine, storage.root, max_rank=4, cache_dir=tmp_path / "cache") as running:
        running.want(DesiredAlias(name="a", stable=version))
        assert await running.failed(version) == "RankTooHigh"
        (loaded,) = running.agent.reconciler.report("boot").versions
        assert loaded.permanent
        assert "set engine.maxRank to 8 or more" in loaded.message
        assert list((tmp_path / "cache").iterdir()) == []


async def test_residency_is_published_under_the_names_that_vllm_proposes(
    agent: Running, expenses: Version
) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{agent.monitoring_url}/metrics") as answer:
        text = await answer.text()
    name = served_name("expenses", expenses.digest)
    assert f'vllm:lora_adapter_loaded{{adapter_name="{name}",level="cpu",pinned="false"}} 1.0' in text
    assert "vllm:num_cpu_loaded_lora_adapters 1.0" in text
    engine = b'vllm:lora_adapter_loaded{adapter_name="x",level="gpu",pinned="false"} 1'
    assert agent.agent.metrics.render_residency(engine) == b""
