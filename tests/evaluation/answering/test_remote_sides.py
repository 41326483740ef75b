"""Sides without a model in the pod, and checkpoints, through the whole stage."""

import json
from pathlib import Path
from typing import Any

import pytest
from servers.scripted_server import Received, Reply, serve
from servers.scripted_teacher import said
from stages.stage_world import RowBuilders, World

from tunesmith_contract.layout import COMMIT_FILE, side_role
from tunesmith_data.failures import UserError

SUITE = {"name": "task", "metrics": ["ExactMatch"], "maxNewTokens": 8}


PRICES = {"prompt": "2", "completion": "10", "currency": "EUR"}


def endpoint(url: str, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "endpoint": {"url": f"{url}/v1", "model": name, "prices": PRICES}} | more


def test_endpoints_are_compared_without_a_model_and_scored_anew(world: World, make: RowBuilders) -> None:
    rows = make.rows(30)
    test = world.write_rows("test.jsonl", rows)
    expected = {row["messages"][-2]["content"]: row["messages"][-1]["content"] for row in rows}

    def script(received: Received) -> Reply:
        right = expected[received.body["messages"][-1]["content"]]
        return said(right if received.body["model"] == "good" else "no idea")

    with serve(script) as server:
        sides = [endpoint(server.url, "good"), endpoint(server.url, "bad", systemPrompt="Guess.")]
        config = world.evaluate_config(baseModel=None, sides=sides, suites=[SUITE | {"dataset": test}])
        first = world.evaluate(config).evaluation
        asked = len(server.received)
    (result,) = first.results
    assert (result.items, result.scores[0].value, result.scores[1].value) == (30, 1.0, 0.0)
    assert (asked, first.base_model_revision) == (60, "")
    assert (first.usage[0].prompt_tokens, first.usage[0].completion_tokens) == (300, 150)
    assert first.usage[0].latency is not None
    assert (first.amount, first.currency) == ("0.004200", "EUR"), "600 tokens of prompts, 300 of answers"
    stored = {"uri": first.details.uri, "digest": first.details.digest}
    again = world.evaluate_config(
        uid="again",
        baseModel=None,
        sides=[
            {"name": "candidate", "answers": stored | {"side": "good"}},
            {"name": "baseline", "answers": stored | {"side": "bad"}},
        ],
        suites=[SUITE | {"dataset": test, "metrics": ["ExactMatch", "JSONFields"]}],
    )
    second = world.evaluate(again).evaluation
    by_metric = {found.metric: found for found in second.results}
    assert by_metric["ExactMatch"].delta == result.delta
    assert by_metric["JSONFields"].items == 30
    assert second.usage[0].revision == first.details.digest


def test_a_checkpoint_answers_as_its_weights_do(world: World, make: RowBuilders) -> None:
    rows = make.rows(60)
    train, test = world.write_rows("train.jsonl", rows[:40]), world.write_rows("test.jsonl", rows[40:])
    prepared = world.prepare(world.prepare_config(train))
    checkpoints = {"everySteps": 2, "retain": True}
    learned = {"learningRate": 5e-3, "maxSteps": 4}
    trained = world.train(world.train_config(prepared, checkpoints=checkpoints, hyperparameters=learned))
    early = next(found for found in trained.training.checkpoints if found.step == 2)
    source = {"uri": early.uri, "digest": early.digest}
    artifact = {"uri": trained.training.artifact.uri, "digest": trained.training.artifact.digest}
    sides = [
        {"name": "early", "checkpoint": source},
        {"name": "base"},
        {"name": "done", "adapter": artifact},
    ]
    config = world.evaluate_config(sides=sides, suites=[SUITE | {"dataset": test}])
    evaluation = world.evaluate(config).evaluation
    details = world.root / "pvc" / evaluation.details.uri.removeprefix("pvc://")
    answers = [json.loads(line)["answers"] for line in details.read_text().splitlines()]
    told = {name: [item[name][0]["text"] for item in answers] for name in ("early", "base", "done")}
    assert told["early"] not in (told["base"], told["done"]), "it has learned a part"
    assert evaluation.usage[0].revision == early.digest
    folder = world.root / "pvc" / early.uri.removeprefix("pvc://")
    _damage(folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"other files than its commit\.json says"):
        world.evaluate(config.model_copy(update={"owner": config.owner.model_copy(update={"uid": "b"})}))
    (folder / COMMIT_FILE).unlink()
    with pytest.raises(UserError, match="the checkpoint was removed"):
        world.evaluate(config.model_copy(update={"owner": config.owner.model_copy(update={"uid": "c"})}))


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_the_key_of_an_endpoint_comes_from_the_folder_of_its_side(world: World, make: RowBuilders) -> None:
    test = world.write_rows("test.jsonl", make.rows(20))
    secrets = world.root / "secrets"
    for name in ("one", "two"):
        (secrets / side_role(name)).mkdir(parents=True)
        (secrets / side_role(name) / "token").write_text(f"key-of-{name}\n")
    world.storage.secrets = secrets
    with serve(lambda _: said("a")) as server:
        sides = [endpoint(server.url, "one"), endpoint(server.url, "two")]
        config = world.evaluate_config(baseModel=None, sides=sides, suites=[SUITE | {"dataset": test}])
        world.evaluate(config)
        keys = {(item.body["model"], item.authorization) for item in server.received}
    assert keys == {("one", "Bearer key-of-one"), ("two", "Bearer key-of-two")}
    assert not [
        path for path in world.output.rglob("*") if path.is_file() and b"key-of-" in path.read_bytes()
    ]
