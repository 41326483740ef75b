"""Loading, proof, rollout and draining of versions, with an engine that can fail and restart."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine

from tunesmith_agent.control.desired_state import Source
from tunesmith_contract.agent import (
    VERSION_HEADER,
    DesiredAlias,
    DesiredState,
    LoadState,
    Version,
    served_name,
)
from tunesmith_contract.layout import MANIFEST_FILE


async def ask(running: Running, model: str, key: str = "") -> tuple[int, str]:
    """Status, and which version answered."""
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{running.url}/v1/chat/completions", json=body, headers={"x-tunesmith-key": key}
        ) as answer,
    ):
        return answer.status, answer.headers.get(VERSION_HEADER, "")


async def ready(running: Running) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"{running.monitoring_url}/readyz") as answer:
        return answer.status, await answer.text()


def truncate(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"")


def forge_manifest(folder: Path) -> None:
    path = folder / MANIFEST_FILE
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("spoil", "reason"), [(truncate, "ArtifactDamaged"), (forge_manifest, "ArtifactChanged")]
)
async def test_bytes_that_do_not_match_the_digest_never_reach_the_engine(
    agent: Running, storage: Storage, spoil: Callable[[Path], None], reason: str
) -> None:
    version = storage.commit()
    spoil(storage.folder(version))
    agent.want(DesiredAlias(name="a", stable=version))
    assert await agent.failed(version) == reason
    assert agent.engine.loads == []


@pytest.mark.parametrize(
    ("log_prob", "proven"),
    [(-1.0, -1.2), (-2.0, -1.0), (-0.5, -1.96)],
    ids=["another adapter", "inactive adapter", "far from a small effect"],
)
async def test_adapter_that_is_not_proven_gets_no_request(
    agent: Running, storage: Storage, log_prob: float, proven: float
) -> None:
    version = storage.commit(log_prob, proven=proven)
    agent.want(DesiredAlias(name="a", stable=version))
    assert await agent.failed(version) == "ProofFailed"
    assert len(agent.engine.salts) == 3
    assert agent.engine.adapters == {}
    assert (await ask(agent, "a"))[0] == 503
    assert (await ready(agent))[0] == 200
    assert b'proofs_total{alias="a",result="ProofFailed"} 3.0' in agent.agent.metrics.render()


async def test_engine_that_does_not_know_token_ids_is_asked_for_whole_prompts(
    agent: Running, storage: Storage
) -> None:
    agent.engine.knows_token_ids = False
    good, bad = storage.commit(), storage.commit(-1.0, proven=-1.5)
    agent.want(DesiredAlias(name="good", stable=good), DesiredAlias(name="bad", stable=bad))
    await agent.active(good)
    assert await agent.failed(bad) == "ProofFailed"


async def test_failed_proof_is_measured_anew_before_it_is_final(agent: Running, storage: Storage) -> None:
    version = storage.commit()
    agent.engine.ignored_measurements = 2
    agent.want(DesiredAlias(name="a", stable=version))
    await agent.active(version)
    assert agent.reason(version) == ""
    assert len(agent.engine.loads) == 1
    assert len(set(agent.engine.salts)) == 3


async def test_failed_proof_is_not_reported_while_it_is_tried_again(
    engine: FakeEngine, storage: Storage
) -> None:
    """The operator would reject the version for good."""
    engine.ignored_measurements = 1
    async with running_agent(engine, storage.root, proof_pause_seconds=3600) as running:
        version = storage.commit()
        running.want(DesiredAlias(name="a", stable=version))
        metrics = running.agent.metrics
        await running.until(lambda: running.state(version) is LoadState.PROVING)
        async with asyncio.timeout(running.seconds):
            while not metrics.proofs:
                await running.agent.engine.adapters()
        assert metrics.proofs == {("a", "ProofFailed"): 1}
        assert running.state(version) is LoadState.PROVING
        assert (await ready(running))[0] == 503


@pytest.mark.parametrize(
    ("log_prob", "proven"), [(-2.0, -2.0), (-1.99, -1.96)], ids=["no effect", "effect below the noise"]
)
async def test_adapter_too_weak_to_be_proved_is_served_and_says_so(
    agent: Running, storage: Storage, log_prob: float, proven: float
) -> None:
    version = storage.commit(log_prob, proven=proven)
    agent.want(DesiredAlias(name="a", stable=version))
    await agent.active(version)
    assert agent.reason(version) == "Unproven"
    assert "too small to be told from noise" in agent.agent.reconciler.report("b").versions[0].message
    assert (await ask(agent, "a"))[0] == 200


async def test_coarser_engine_needs_a_tolerance(engine: FakeEngine, storage: Storage) -> None:
    engine.base_log_prob -= 0.15
    version = storage.commit()
    async with running_agent(engine, storage.root) as running:
        running.want(DesiredAlias(name="a", stable=version))
        assert await running.failed(version) == "BaseModelMismatch"
        assert "raise engine.proof.tolerance" in running.agent.reconciler.report("b").versions[0].message
    async with running_agent(engine, storage.root, proof_tolerance=0.2) as running:
        running.want(DesiredAlias(name="a", stable=version))
        await running.active(version)


async def test_another_base_model_is_not_the_adapters_fault(agent: Running, storage: Storage) -> None:
    version = storage.commit()
    agent.engine.base_log_prob = -3.0
    agent.want(DesiredAlias(name="a", stable=version))
    assert await agent.failed(version) == "BaseModelMismatch"
    agent.engine.base_log_prob = -2.0
    await agent.active(version)


@pytest.mark.parametrize(
    "uri", ["ftp://host/x", "s3://B/x", "pvc://artifacts/../etc"], ids=["scheme", "bucket", "way out"]
)
async def test_address_that_names_no_storage(agent: Running, uri: str) -> None:
    version = Version(version=1, digest="sha256:" + "a" * 64, uri=uri)
    agent.want(DesiredAlias(name="a", stable=version))
    assert await agent.failed(version) == "InvalidUri"


async def test_artifact_that_comes_late_is_found(agent: Running, storage: Storage) -> None:
    version = storage.commit()
    folder = storage.folder(version)
    away = folder.rename(storage.root / "away")
    agent.want(DesiredAlias(name="a", stable=version))
    assert await agent.failed(version) == "ArtifactNotFound"
    shutil.move(away, folder)
    await agent.active(version)
    assert (await ask(agent, "a"))[0] == 200


async def test_engine_that_refuses_an_adapter_is_quoted(agent: Running, storage: Storage) -> None:
    version = storage.commit()
    agent.engine.load_error = "rank 64 is greater than max_lora_rank 16"
    agent.want(DesiredAlias(name="a", stable=version))
    assert await agent.failed(version) == "EngineRefused"
    report = agent.agent.reconciler.report("b")
    assert report.versions[0].message == agent.engine.load_error


async def test_weights_split_and_stick(agent: Running, storage: Storage) -> None:
    stable, candidate = storage.commit(), storage.commit(-0.5)
    agent.want(DesiredAlias(name="a", stable=stable, candidate=candidate, weight=30))
    await agent.active(stable, candidate)
    keys = [f"user-{number}" for number in range(40)]
    first = [(await ask(agent, "a", key))[1] for key in keys]
    assert set(first) == {served_name("a", stable.digest), served_name("a", candidate.digest)}
    assert [(await ask(agent, "a", key))[1] for key in keys] == first


async def test_candidate_that_is_not_active_here_gets_nothing(agent: Running, storage: Storage) -> None:
    stable, candidate = storage.commit(), storage.commit(-0.5, proven=-0.9)
    agent.want(DesiredAlias(name="a", stable=stable, candidate=candidate, weight=100))
    await agent.active(stable)
    await agent.failed(candidate)
    assert await ask(agent, "a") == (200, served_name("a", stable.digest))


async def test_first_version_serves_only_when_it_is_stable(agent: Running, storage: Storage) -> None:
    version = storage.commit()
    agent.want(DesiredAlias(name="a", candidate=version))
    await agent.active(version)
    assert (await ask(agent, "a"))[0] == 503
    agent.want(DesiredAlias(name="a", stable=version))
    assert (await ask(agent, "a"))[0] == 200


async def test_old_version_answers_until_the_new_one_can(agent: Running, storage: Storage) -> None:
    old, new = storage.commit(), storage.commit(-0.5)
    agent.want(DesiredAlias(name="a", stable=old))
    await agent.active(old)
    agent.engine.load_gate = asyncio.Event()
    agent.want(DesiredAlias(name="a", stable=new))
    await agent.until(lambda: agent.state(new) is LoadState.LOADING)
    assert await ask(agent, "a") == (200, served_name("a", old.digest))
    agent.engine.load_gate.set()
    await agent.active(new)
    assert await ask(agent, "a") == (200, served_name("a", new.digest))
    await agent.until(lambda: agent.state(old) is None)
    assert set(agent.engine.adapters) == {served_name("a", new.digest)}


async def test_drain_waits_for_requests_under_way(agent: Running, storage: Storage) -> None:
    version = storage.commit()
    agent.want(DesiredAlias(name="a", stable=version))
    await agent.active(version)
    agent.engine.hold = asyncio.Event()
    asking = asyncio.create_task(ask(agent, "a"))
    await agent.engine.arrived.wait()
    agent.want()
    await agent.until(lambda: agent.state(version) is LoadState.DRAINING)
    assert (await ask(agent, "a"))[0] == 404
    assert not agent.engine.unloaded.is_set()
    agent.engine.hold.set()
    assert (await asking)[0] == 200
    await agent.until(lambda: agent.state(version) is None)
    assert agent.engine.unloaded.is_set()


async def test_version_wanted_again_while_it_drains(agent: Running, storage: Storage) -> None:
    version = storage.commit()
    alias = DesiredAlias(name="a", stable=version)
    agent.want(alias)
    await agent.active(version)
    agent.engine.hold = asyncio.Event()
    asking = asyncio.create_task(ask(agent, "a"))
    await agent.engine.arrived.wait()
    agent.want()
    await agent.until(lambda: agent.state(version) is LoadState.DRAINING)
    agent.want(alias)
    await agent.active(version)
    assert agent.engine.loads == [served_name("a", version.digest)]
    agent.engine.hold.set()
    assert (await asking)[0] == 200


async def test_engine_restart_loads_and_proves_again(agent: Running, storage: Storage) -> None:
    version = storage.commit()
    agent.want(DesiredAlias(name="a", stable=version))
    await agent.active(version)
    await agent.engine.stop()
    await agent.until(lambda: not agent.agent.metrics.engine_up)
    assert (await ready(agent))[0] == 503
    assert (await ask(agent, "a"))[0] == 503
    await agent.engine.start()
    await agent.active(version)
    assert (await ask(agent, "a"))[0] == 200
    assert (await ready(agent))[0] == 200
    assert agent.engine.loads == [served_name("a", version.digest)] * 2


async def test_agent_restart_finds_what_is_loaded(engine: FakeEngine, storage: Storage) -> None:
    version = storage.commit()
    for _ in range(2):
        async with running_agent(engine, storage.root) as running:
            running.want(DesiredAlias(name="a", stable=version))
            await running.active(version)
    assert len(engine.loads) == 1


async def test_breaker_falls_back_until_something_else_is_wanted(agent: Running, storage: Storage) -> None:
    stable, candidate = storage.commit(), storage.commit(-0.5)
    alias = DesiredAlias(name="a", stable=stable, candidate=candidate, weight=100)
    agent.want(alias)
    await agent.active(stable, candidate)
    bad = served_name("a", candidate.digest)
    agent.engine.fail_with[bad] = 500
    answers = [await ask(agent, "a", f"client {number}") for number in range(6)]
    assert answers == [(500, bad)] * 5 + [(200, served_name("a", stable.digest))]
    assert agent.reason(candidate) == "BreakerOpen"
    agent.want(alias, DesiredAlias(name="other"))
    assert (await ask(agent, "a"))[0] == 200
    agent.want(alias.model_copy(update={"weight": 99}))
    agent.engine.fail_with.clear()
    assert agent.reason(candidate) == ""


@pytest.mark.parametrize(("clients", "errors"), [(3, 9), (2, 20), (1, 20)])
async def test_a_breaker_waits_for_errors_of_three_clients_which_reject_a_version(
    agent: Running, storage: Storage, clients: int, errors: int
) -> None:
    stable, candidate = storage.commit(), storage.commit(-0.5)
    agent.want(DesiredAlias(name="a", stable=stable, candidate=candidate, weight=100))
    await agent.active(stable, candidate)
    agent.engine.fail_with[served_name("a", candidate.digest)] = 500
    statuses = [(await ask(agent, "a", f"client {number // 3 % clients}"))[0] for number in range(errors + 1)]
    assert statuses == [500] * errors + [200]


async def test_an_answer_begins_a_new_row_of_errors(agent: Running, storage: Storage) -> None:
    stable, candidate = storage.commit(), storage.commit(-0.5)
    agent.want(DesiredAlias(name="a", stable=stable, candidate=candidate, weight=100))
    await agent.active(stable, candidate)
    for _ in range(3):
        agent.engine.fail_with[served_name("a", candidate.digest)] = 500
        assert {(await ask(agent, "a", f"client {number}"))[0] for number in range(4)} == {500}
        agent.engine.fail_with.clear()
        assert await ask(agent, "a", "client") == (200, served_name("a", candidate.digest))


async def test_stable_errors_open_no_breaker(agent: Running, expenses: Version) -> None:
    agent.engine.fail_with[served_name("expenses", expenses.digest)] = 500
    assert {(await ask(agent, "expenses"))[0] for _ in range(8)} == {500}


async def test_ready_waits_for_every_stable_version(engine: FakeEngine, storage: Storage) -> None:
    version = storage.commit()
    engine.load_gate = asyncio.Event()
    async with running_agent(engine, storage.root) as running:
        assert await ready(running) == (503, "No desired state has come yet.\n")
        running.want(DesiredAlias(name="a", stable=version))
        assert await ready(running) == (503, "Loading: a.\n")
        engine.load_gate.set()
        await running.active(version)
        assert await ready(running) == (200, "ready\n")
        engine.load_gate.clear()
        running.want(
            DesiredAlias(name="a", stable=version), DesiredAlias(name="b", stable=storage.commit(-0.5))
        )
        assert (await ready(running))[0] == 200


async def test_a_pod_that_joins_in_a_step_is_ready_with_the_candidates_that_have_weight(
    engine: FakeEngine, storage: Storage
) -> None:
    """Conversations that the candidate answers elsewhere must not come back to the stable version here."""
    stable, candidate = storage.commit(), storage.commit(-0.5)
    engine.hang_probes_of = served_name("a", candidate.digest)
    step = DesiredAlias(name="a", stable=stable, candidate=candidate, weight=50)
    async with running_agent(engine, storage.root) as running:
        running.want(step)
        await running.until(lambda: running.state(candidate) is LoadState.PROVING)
        await running.active(stable)
        assert await ready(running) == (503, "Loading: a.\n")
        running.want(step.model_copy(update={"weight": 0}))
        assert (await ready(running))[0] == 200


async def test_a_pod_is_ready_once_the_candidate_is_active(agent: Running, storage: Storage) -> None:
    stable, candidate = storage.commit(), storage.commit(-0.5)
    agent.want(DesiredAlias(name="a", stable=stable, candidate=candidate, weight=50))
    assert await ready(agent) == (503, "Loading: a.\n")
    await agent.active(stable, candidate)
    assert (await ready(agent))[0] == 200


async def test_ready_waits_for_the_operators_word_for_a_while(engine: FakeEngine, storage: Storage) -> None:
    """Until then no candidate has weight here, and what was rolled back meanwhile might answer."""
    stable, candidate = storage.commit(), storage.commit(-0.5)
    alias = DesiredAlias(name="a", stable=stable, candidate=candidate, weight=50)
    state = DesiredState(generation=7, aliases=(alias,)).to_json()
    (storage.root / "state.json").write_text(state)
    operator: dict[str, Any] = {"operator_url": "http://127.0.0.1:9"}
    async with running_agent(engine, storage.root, **operator) as running:
        await running.active(stable, candidate)
        assert await ready(running) == (503, "The operator has not confirmed the desired state yet.\n")
        assert running.agent.store.offer(state, Source.OPERATOR)
        assert (await ready(running))[0] == 200
    # Here the candidate has no weight yet, elsewhere it has: the longer wait is for that.
    async with running_agent(engine, storage.root, confirm_seconds=0, **operator) as running:
        await running.active(stable, candidate)
        assert (await ready(running))[0] == 503
    quick: dict[str, Any] = {"confirm_seconds": 0, "withheld_seconds": 0, **operator}
    async with running_agent(engine, storage.root, **quick) as running:
        await running.active(stable, candidate)
        assert (await ready(running))[0] == 200
    at_rest = DesiredState(generation=8, aliases=(DesiredAlias(name="a", stable=stable),))
    (storage.root / "state.json").write_text(at_rest.to_json())
    async with running_agent(engine, storage.root, confirm_seconds=0, **operator) as running:
        await running.active(stable)
        assert (await ready(running))[0] == 200


async def test_a_restarted_agent_and_its_clients_wait_for_the_operators_word(
    engine: FakeEngine, storage: Storage, tmp_path: Path
) -> None:
    """What it kept may have been rolled back while it was away."""
    version = storage.commit()
    state = DesiredState(generation=7, aliases=(DesiredAlias(name="a", stable=version),)).to_json()
    settings: dict[str, Any] = {"operator_url": "http://127.0.0.1:9", "state_dir": tmp_path / "state"}
    async with running_agent(engine, storage.root, **settings) as running:
        running.agent.store.offer(state, Source.OPERATOR)
        await running.active(version)
    async with running_agent(engine, storage.root, **settings) as running:
        asking = asyncio.create_task(ask(running, "a"))
        await running.active(version)
        assert (await ready(running))[0] == 503
        assert not asking.done()
        # It is no news, and yet the word that was waited for.
        assert not running.agent.store.offer(state, Source.OPERATOR)
        assert (await ready(running))[0] == 200
        assert await asking == (200, served_name("a", version.digest))


async def test_clients_of_a_restarted_agent_wait_for_a_while_only(
    engine: FakeEngine, storage: Storage, tmp_path: Path
) -> None:
    """They come because nobody has told them yet that the agent was away."""
    state_dir = tmp_path / "state"
    async with running_agent(engine, storage.root, state_dir=state_dir) as running:
        running.want(DesiredAlias(name="a", stable=storage.commit()))
    engine.load_gate = asyncio.Event()
    async with running_agent(engine, storage.root, state_dir=state_dir, wait_seconds=0.1) as running:
        assert (await ask(running, "a"))[0] == 503


async def test_ready_does_not_wait_for_ever(engine: FakeEngine, storage: Storage) -> None:
    engine.load_gate = asyncio.Event()
    async with running_agent(engine, storage.root, settle_seconds=0) as running:
        running.want(DesiredAlias(name="a", stable=storage.commit()))
        assert (await ready(running))[0] == 200


async def test_higher_generation_wins_whoever_brings_it(agent: Running, storage: Storage) -> None:
    version, store = storage.commit(), agent.agent.store
    newer = DesiredState(generation=7, aliases=(DesiredAlias(name="a", stable=version),))
    (storage.root / "desired.json").write_text(newer.to_json())
    await agent.active(version)
    assert not store.offer(DesiredState(generation=6).to_json(), Source.OPERATOR)
    assert not store.offer('{"generation": 9, "aliases": 3}', Source.OPERATOR)
    assert store.offer(DesiredState(generation=8).to_json(), Source.OPERATOR)
    await agent.until(lambda: agent.state(version) is None)
