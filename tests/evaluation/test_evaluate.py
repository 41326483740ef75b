"""Evaluate stage: items, prompts, batch generation, resumed runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from stages.stage_world import RowBuilders, World
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith_contract.base import sha256_digest
from tunesmith_contract.evaluation import Metric, Side, Suite
from tunesmith_contract.report import TERMINATION_MESSAGE_BYTES
from tunesmith_data.failures import DataError, UserError
from tunesmith_data.models.rendering import Renderer
from tunesmith_evaluation.items.items import build_prompt, choose_examples, limit_items, read_items
from tunesmith_evaluation.models.generation import Generator, longest_first, shared_length
from tunesmith_evaluation.stage.answers import AnswerStore

METRICS = ["ExactMatch", "JSONFields"]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_the_whole_way_on_each_architecture(world: World, make: RowBuilders, architecture: str) -> None:
    model = f"pvc://models/{architecture}"
    rows = make.rows(60)
    train, test = world.write_rows("train.jsonl", rows[:40]), world.write_rows("test.jsonl", rows[40:])
    prepared = world.prepare(world.prepare_config(train, baseModel=model))
    trained = world.train(world.train_config(prepared, baseModel=model, hyperparameters={"maxSteps": 3}))
    artifact = trained.training.artifact
    config = world.evaluate_config(
        baseModel=model,
        sides=[
            {"name": "tuned", "adapter": {"uri": artifact.uri, "digest": artifact.digest}},
            {"name": "shots", "fewShot": 3, "systemPrompt": "Sort."},
            {"name": "bare"},
        ],
        suites=[{"name": "task", "dataset": test, "metrics": METRICS, "maxNewTokens": 8, "limit": 12}],
        fewShotFrom=train,
    )
    report = world.evaluate(config)
    evaluation = report.evaluation
    assert evaluation.sides == ("tuned", "shots", "bare")
    assert [(result.metric, result.items) for result in evaluation.results] == [
        (name, 12) for name in METRICS
    ]
    assert evaluation.base_model_revision == prepared.model.revision
    assert len(report.to_termination_message()) <= TERMINATION_MESSAGE_BYTES
    details = world.root / "pvc" / evaluation.details.uri.removeprefix("pvc://")
    assert sha256_digest(details.read_bytes()) == evaluation.details.digest
    lines = [json.loads(line) for line in details.read_text().splitlines()]
    assert len(lines) == 12
    assert {name for line in lines for name in line["answers"]} == {"tuned", "shots", "bare"}
    assert any(line["answers"]["tuned"]["text"] != line["answers"]["bare"]["text"] for line in lines)


def test_a_whole_model_is_a_side_beside_its_base(world: World, make: RowBuilders) -> None:
    rows = make.rows(60)
    train, test = world.write_rows("train.jsonl", rows[:40]), world.write_rows("test.jsonl", rows[40:])
    prepared = world.prepare(world.prepare_config(train))
    learned = {"learningRate": 5e-3, "maxSteps": 3}
    trained = world.train(world.train_config(prepared, adapter=None, hyperparameters=learned))
    artifact = trained.training.artifact
    config = world.evaluate_config(
        sides=[
            {"name": "whole", "adapter": {"uri": artifact.uri, "digest": artifact.digest}},
            {"name": "bare"},
        ],
        suites=[{"name": "task", "dataset": test, "metrics": METRICS, "maxNewTokens": 8, "limit": 4}],
    )
    report = world.evaluate(config)
    details = world.root / "pvc" / report.evaluation.details.uri.removeprefix("pvc://")
    lines = [json.loads(line) for line in details.read_text().splitlines()]
    assert any(line["answers"]["whole"]["text"] != line["answers"]["bare"]["text"] for line in lines)


@pytest.fixture
def generator(models: Path) -> Generator:
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    return Generator(AutoModelForCausalLM.from_pretrained(models / "llama", dtype=torch.float32), tokenizer)


@pytest.mark.parametrize("beginning", ["", "a long beginning that all prompts share, " * 8])
def test_batches_padding_and_shared_beginnings_change_no_answer(generator: Generator, beginning: str) -> None:
    texts = [beginning + text for text in ("sort 1 2", "s", "sort 123 456 789", "low", "high 12")]
    prompts = [generator._tokenizer(text)["input_ids"] for text in texts]
    together = {index: text for batch in generator.answer(prompts, 12) for index, text in batch.items()}
    for index, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        for _ in range(12):
            next_id = generator._model(input_ids=ids).logits[0, -1].argmax()
            if next_id == generator._tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, next_id.view(1, 1)], dim=1)
        alone = generator._tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)
        assert together[index] == alone


def test_prompts_are_ordered_by_length_and_shared_length_leaves_one_token() -> None:
    assert longest_first([[1], [1, 2, 3], [1, 2]]) == [1, 2, 0]
    assert shared_length([[1, 2, 3, 4], [1, 2, 3], [1, 2, 9, 9, 9]]) == 2
    assert shared_length([[1, 2], [1, 2]]) == 1


def test_examples_are_never_tested_items(world: World, make: RowBuilders) -> None:
    rows = make.rows(12)
    same_question = make.row(rows[0]["messages"][0]["content"], "another answer")
    path = world.storage.dataset_file(world.write_rows("pool.jsonl", [*rows, same_question]))
    pool = read_items(path, "pool")
    tested = pool[:8]
    examples = choose_examples(pool, tested, 4, seed=1)
    assert {example.question for example in examples}.isdisjoint(item.question for item in tested)
    assert examples == choose_examples(pool[::-1], tested, 4, seed=1)
    with pytest.raises(UserError, match="holds 4 rows that are not tested"):
        choose_examples(pool, tested, 5, seed=1)


def test_limit_is_by_content(world: World, make: RowBuilders) -> None:
    items = read_items(world.storage.dataset_file(world.write_rows("x.jsonl", make.rows(30))), "x")
    suite = Suite(name="s", dataset="pvc://x/y", metrics=("ExactMatch",), limit=10)
    chosen = limit_items(items, suite, seed=1)
    assert len(chosen) == 10
    assert chosen == limit_items(items[::-1], suite, seed=1)


def test_prompt_has_the_sides_system_prompt_then_examples_then_the_question(
    world: World, make: RowBuilders, models: Path
) -> None:
    asked = make.row("and 3 4", "x")
    asked["messages"].insert(0, {"role": "system", "content": "item's own"})
    path = world.storage.dataset_file(world.write_rows("x.jsonl", [asked, make.row("sort 1 2", "done")]))
    item, example = read_items(path, "x")
    renderer = Renderer(AutoTokenizer.from_pretrained(models / "llama"))
    own = build_prompt(item, Side(name="a"), [example], renderer)
    other = build_prompt(item, Side(name="b", system_prompt="side's"), [example], renderer)
    turn = "<|im_start|>{}\n{}<|im_end|>\n".format
    shown = turn("user", "sort 1 2") + turn("assistant", "done") + turn("user", "and 3 4")
    assert own == turn("system", "item's own") + shown + "<|im_start|>assistant\n"
    assert other == turn("system", "side's") + shown + "<|im_start|>assistant\n"


def test_expected_answers_must_fit_the_metric(world: World, make: RowBuilders) -> None:
    path = world.storage.dataset_file(
        world.write_rows("x.jsonl", [make.row("q", '{"a": 1}'), make.row("r", "no")])
    )
    with pytest.raises(DataError, match=r"x:2: expected_answer.*JSONFields"):
        read_items(path, "x", (Metric.JSON_FIELDS,))


def test_a_killed_run_asks_only_what_is_open(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = world.write_rows("test.jsonl", make.rows(40))
    config = world.evaluate_config(
        sides=[{"name": "a"}, {"name": "b", "systemPrompt": "Sort."}],
        suites=[{"name": "task", "dataset": test, "metrics": ["ExactMatch"], "maxNewTokens": 4}],
    )
    asked: list[int] = []
    answer = Generator.answer

    def killed(self: Generator, prompts: Any, max_new_tokens: int) -> Any:
        asked.append(len(prompts))
        for number, batch in enumerate(answer(self, prompts, max_new_tokens)):
            yield batch
            if len(asked) == 2 and number == 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(Generator, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        world.evaluate(config)
    report = world.evaluate(config)
    assert asked == [40, 40, 8]
    assert report.evaluation.results[0].items == 40


def test_a_torn_line_of_answers_is_asked_again(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "a.jsonl")
    store.add({"one": "1", "two": "2\n"})
    with (tmp_path / "a.jsonl").open("ab") as stream:
        stream.write(b'["three", "\xc3')
    again = AnswerStore(tmp_path / "a.jsonl")
    assert again.answers == {"one": "1", "two": "2\n"}
    again.add({"three": "3"})
    assert AnswerStore(tmp_path / "a.jsonl").answers == {"one": "1", "two": "2\n", "three": "3"}
