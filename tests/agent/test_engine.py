"""Against the real engine on a CPU: tiny random models of three architectures with PEFT adapters."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from agents.agent_harness import Running, running_agent
from engines.engine_process import (
    ENGINE_PYTHON,
    ENGINE_SECONDS,
    EngineProcess,
    make_versions,
    running_engine,
)

from tunesmith_agent.engine.log_probs import build_prompt_requests, parse_prompt_log_probs
from tunesmith_contract.agent import (
    STICKINESS_HEADER,
    VERSION_HEADER,
    DesiredAlias,
    LoadState,
    Version,
    served_name,
)
from tunesmith_contract.artifact import Probe

#: Each takes one of two versions for the other.
ROLLOUTS = 2
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not ENGINE_PYTHON, reason="TUNESMITH_ENGINE_PYTHON names no engine"),
    pytest.mark.timeout(2 * ENGINE_SECONDS),
]


async def say(client: openai.AsyncOpenAI, model: str) -> tuple[str, str]:
    """What a model says, and which version said it."""
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": "Item 5?"}], temperature=0, max_tokens=12
    )
    return raw.parse().choices[0].message.content or "", raw.headers[VERSION_HEADER]


async def say_streamed(client: openai.AsyncOpenAI, model: str) -> str:
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Item 5?"}],
        temperature=0,
        max_tokens=12,
        stream=True,
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


@pytest.mark.parametrize(
    ("architecture", "refused"),
    [
        ("llama", ["wrong", "inactive", "unmatched"]),
        pytest.param("qwen2", [], marks=pytest.mark.long),
        pytest.param("mistral", [], marks=pytest.mark.long),
    ],
)
async def test_proves_and_serves(architecture: str, refused: list[str], tmp_path: Path) -> None:
    """Each architecture serves what is proved; that others are refused does not depend on it."""
    versions = await asyncio.to_thread(make_versions, tmp_path, "probed_adapters.py", architecture)
    async with running_engine(tmp_path / "model") as engine:
        async with (
            running_agent(
                engine,
                tmp_path / "mnt",
                seconds=ENGINE_SECONDS,
                engine_silence_seconds=0.5,
                engine_token_seconds=5,
            ) as running,
            openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client,
        ):
            running.want(*(DesiredAlias(name=name, stable=versions[name]) for name in ("right", *refused)))
            await running.active(versions["right"])
            for name in refused:
                assert await running.failed(versions[name]) == "ProofFailed"
                with pytest.raises(openai.InternalServerError, match="ProofFailed"):
                    await say(client, name)
            await check_whole_prompts(running, engine.socket)
            if architecture == "llama":
                await check_hang(running, engine)
            await check_answers(running, client, versions["right"])
            if architecture == "llama":
                await check_rollouts(running, versions["right"], versions["other"])
        # Only now: an agent unloads what it does not know.
        await check_one_slot(engine, tmp_path / "mnt", versions["right"])


async def check_rollouts(running: Running, right: Version, other: Version) -> None:
    """Clients ask on while versions come and go: all are answered, each by the version that the answer names."""
    client = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
    names = {version.digest: served_name("alias", version.digest) for version in (right, other)}
    answers: list[tuple[int, str, str]] = []
    stop = asyncio.Event()

    async def ask(conversation: int) -> None:
        while not stop.is_set():
            answers.append((conversation, *await say_as(client, "alias", f"key-{conversation}")))

    async with client, asyncio.TaskGroup() as group:
        running.want(DesiredAlias(name="alias", stable=right))
        await running.until(lambda: names[right.digest] in running.agent.metrics.residency.resident_names)
        await running.active(right)
        expected = {names[right.digest]: (await say(client, "alias"))[0]}
        for conversation in range(6):
            group.create_task(ask(conversation))
        stable, candidate = right, other
        for _ in range(ROLLOUTS):
            step = DesiredAlias(name="alias", stable=stable, candidate=candidate)
            running.want(step)
            await running.active(stable, candidate)
            expected[names[candidate.digest]] = (await say(client, names[candidate.digest]))[0]
            for weight in (50, 0, 50):
                running.want(step.model_copy(update={"weight": weight}))
                await until_more(answers, 12)
            stable, candidate = candidate, stable
            running.want(DesiredAlias(name="alias", stable=stable, previous=candidate))
            await until_more(answers, 12)
            assert {version for _, version, _ in answers[-6:]} == {names[stable.digest]}
        stop.set()
    running.want()
    await running.until(lambda: running.state(right) is None and running.state(other) is None)
    assert len(set(expected.values())) == 2
    assert all(text == expected[version] for _, version, text in answers)
    assert {version for _, version, _ in answers} == set(expected)


async def until_more(answers: list[tuple[int, str, str]], count: int) -> None:
    """Wait for so many more answers."""
    enough = len(answers) + count
    async with asyncio.timeout(ENGINE_SECONDS):
        while True:
            if len(answers) >= enough:
                return
            await asyncio.sleep(0.02)


async def say_as(client: openai.AsyncOpenAI, model: str, key: str) -> tuple[str, str]:
    """Which version answers a client, streamed, and what it says."""
    raw = await client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": "Item 5?"}],
        temperature=0,
        max_tokens=12,
        stream=True,
        extra_headers={STICKINESS_HEADER: key},
    )
    chunks = [chunk async for chunk in raw.parse()]
    return raw.headers[VERSION_HEADER], "".join(
        each.choices[0].delta.content or "" for each in chunks if each.choices
    )


async def check_one_slot(engine: Any, storage: Path, right: Version) -> None:
    """Two names share one slot: each request loads its adapter again, and the answers stay the same."""
    async with (
        running_agent(engine, storage, seconds=ENGINE_SECONDS, adapter_slots=1) as running,
        openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client,
    ):
        running.want(*(DesiredAlias(name=name, stable=right) for name in ("one", "two")))
        await running.active(right)
        await running.until(
            lambda: all(
                each.state is LoadState.ACTIVE for each in running.agent.reconciler.report("b").versions
            )
        )
        said = {name: [(await say(client, name))[0] for _ in range(2)] for name in ("one", "two", "one")}
        assert len({text for texts in said.values() for text in texts}) == 1
        assert len(await running.agent.engine.adapters()) == 1
        assert sum(stats.evictions for stats in running.agent.metrics.versions.values()) >= 2


async def check_whole_prompts(running: Running, socket: str) -> None:
    """The way of measuring for older engines gives the same numbers, one by one: on CPUs this one can't batch them."""
    probes = [
        Probe(token_ids=(5, 6, 7, 8, 9)[:length], prompt_length=2, base_log_prob=0, tuned_log_prob=0)
        for length in (3, 5)
    ]
    expected = await running.agent.engine.log_probs("", probes, "tokens")
    answers = []
    async with aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(socket)) as session:
        for probe in probes:
            [body] = build_prompt_requests("base", [probe], "prompts")
            async with session.post("/v1/completions", json=body, raise_for_status=True) as response:
                answers.append(await response.json())
    for measured, value in zip(parse_prompt_log_probs(answers, probes), expected, strict=True):
        assert measured == pytest.approx(value, abs=1e-4)


async def ready(running: Running) -> tuple[int, str]:
    """Status and body of the readiness probe."""
    url = f"{running.monitoring_url}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def check_hang(running: Running, engine: EngineProcess) -> None:
    """A core that stands still makes the pod not ready, although the API process lists its models."""
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        with engine.core_stopped():
            asking = asyncio.create_task(say(client, "base"))
            async with asyncio.timeout(60):
                while not running.agent.engine_watch.stalled:
                    assert not asking.done()
                    await asyncio.sleep(0.1)
            assert await running.agent.engine.adapters()
            status, reason = await ready(running)
            assert (status, reason[:17]) == (503, "The engine hangs:")
        assert (await asking)[0]
    async with asyncio.timeout(60):
        while True:
            if (await ready(running))[0] == 200:
                break
            await asyncio.sleep(0.1)


async def check_answers(running: Running, client: openai.AsyncOpenAI, right: Version) -> None:
    tuned, version = await say(client, "right")
    assert version == served_name("right", right.digest)
    assert tuned != (await say(client, "base"))[0]
    assert await say_streamed(client, "right") == tuned
    stats = running.agent.metrics.versions["right", right.digest]
    assert stats.without_usage == 0
    assert stats.prompt_tokens > 0
    assert stats.generation_tokens > 0
    names = [model.id async for model in client.models.list()]
    assert names == ["base", "right", served_name("right", right.digest)]
    running.want()
    await running.until(lambda: running.state(right) is None)
    assert await running.agent.engine.adapters() == frozenset()
