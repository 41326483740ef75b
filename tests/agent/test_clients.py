"""Requests of an ordinary OpenAI client."""

import asyncio
import json
from collections.abc import AsyncIterator

import openai
import pytest
from agents.agent_harness import Running, Storage
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tunesmith_contract.agent import DIGEST_HEADER, VERSION_HEADER, DesiredAlias, Version, served_name

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Lunch, 12 EUR"}]


@pytest.fixture
async def client(agent: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{agent.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_alias_is_answered_by_its_version(client: openai.AsyncOpenAI, expenses: Version) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="expenses", messages=MESSAGES)
    name = served_name("expenses", expenses.digest)
    assert raw.headers[VERSION_HEADER] == name
    assert raw.headers[DIGEST_HEADER] == expenses.digest
    assert raw.parse().model == name


@pytest.mark.parametrize("model", ["base", "pinned"])
async def test_base_and_pinned_version(client: openai.AsyncOpenAI, expenses: Version, model: str) -> None:
    name = served_name("expenses", expenses.digest) if model == "pinned" else "base"
    answer = await client.chat.completions.create(model=name, messages=MESSAGES)
    assert answer.choices[0].message.content == name


async def test_models_lists_what_can_answer(client: openai.AsyncOpenAI, expenses: Version) -> None:
    models = [model.id async for model in client.models.list()]
    assert models == ["base", "expenses", served_name("expenses", expenses.digest)]


async def test_unknown_model_names_the_known_ones(client: openai.AsyncOpenAI, expenses: Version) -> None:
    with pytest.raises(openai.NotFoundError, match="'expense' does not exist here: use base, expenses, "):
        await client.chat.completions.create(model="expense", messages=MESSAGES)


async def test_failed_alias_answers_503_alone(
    agent: Running, client: openai.AsyncOpenAI, storage: Storage
) -> None:
    good, bad = storage.commit(), storage.commit(-1.0, proven=-1.5)
    agent.want(DesiredAlias(name="good", stable=good), DesiredAlias(name="bad", stable=bad))
    await agent.active(good)
    assert await agent.failed(bad) == "ProofFailed"
    with pytest.raises(openai.InternalServerError, match="failed to load \\(ProofFailed\\)") as error:
        await client.chat.completions.create(model="bad", messages=MESSAGES)
    assert error.value.status_code == 503
    assert (await client.chat.completions.create(model="good", messages=MESSAGES)).choices


def chunk(text: str) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": {"content": text}}
    body = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(body)}\n\n".encode()


async def test_stream_passes_before_the_next_piece_is_made(
    agent: Running, client: openai.AsyncOpenAI, expenses: Version
) -> None:

    async def ask() -> openai.AsyncStream[ChatCompletionChunk]:
        return await client.chat.completions.create(model="expenses", messages=MESSAGES, stream=True)

    asking = asyncio.create_task(ask())
    agent.engine.pieces.put_nowait(chunk("one"))
    chunks = aiter(await asking)
    # The engine makes the second piece only now that the first has arrived.
    assert (await anext(chunks)).choices[0].delta.content == "one"
    for piece in (chunk("two"), b"data: [DONE]\n\n", None):
        agent.engine.pieces.put_nowait(piece)
    assert [part.choices[0].delta.content async for part in chunks] == ["two"]


async def test_engine_error_is_passed_and_counted(
    agent: Running, client: openai.AsyncOpenAI, expenses: Version
) -> None:
    agent.engine.fail_with[served_name("expenses", expenses.digest)] = 500
    with pytest.raises(openai.InternalServerError, match="on purpose"):
        await client.chat.completions.create(model="expenses", messages=MESSAGES)
    stats = agent.agent.metrics.stats("expenses", expenses.digest)
    assert (stats.requests, stats.errors) == (1, 1)
