"""Prepare stage for every method and format: rows counted as the method sees them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from long_form import cases
from stages.stage_world import RowBuilders, World

from tunesmith_data.failures import DataError, UserError
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.prepare import load_prepared
from tunesmith_data.rows.table.split import Split

GRPO = {"rewards": [{"name": "exact", "exact": {}}], "maxCompletionLength": 40, "maxLength": 64}


@pytest.fixture
def renderer(models: Path) -> Renderer:
    return Renderer(load_tokenizer(models / "llama"))


def prepared_rows(world: World, digest: str) -> Split:
    return load_prepared(world.output / "ns/uid/prepared", digest)


def test_a_preference_is_as_long_as_its_longer_answer(
    world: World, make: RowBuilders, renderer: Renderer
) -> None:
    rows = make.preferences(12)
    rows[0]["rejected"][0]["content"] = "long " * 40
    config = world.prepare_config(world.write_rows("p.jsonl", rows), method={"dpo": {"maxLength": 64}})
    dataset = world.prepare(config).dataset
    assert (dataset.format, dataset.rows, dataset.truncated_rows) == ("Preference", 12, 1)
    lengths = [len(renderer.tokens(row | {"chosen": row["rejected"]}).answered) for row in rows]
    assert dataset.tokens.max == max(lengths)
    split = prepared_rows(world, dataset.digest)
    assert sorted(map(json.dumps, [*split.train, *split.validation])) == sorted(map(json.dumps, rows))


def test_a_prompt_longer_than_the_room_before_the_answer_is_a_finding(
    world: World, make: RowBuilders
) -> None:
    rows = [*make.rows(8), make.row("word " * 40, "x")]
    config = world.prepare_config(world.write_rows("chat.jsonl", rows), method={"grpo": GRPO})
    with pytest.raises(DataError, match=r"chat.jsonl:9: prompt_too_long.*lower maxCompletionLength"):
        world.prepare(config)


def test_conversations_become_prompts_with_answers(world: World, make: RowBuilders) -> None:
    rows = make.rows(8)
    config = world.prepare_config(
        world.write_rows("chat.jsonl", rows), method={"grpo": GRPO | {"maxLength": 128}}
    )
    dataset = world.prepare(config).dataset
    assert dataset.format == "Chat"
    split = prepared_rows(world, dataset.digest)
    questions = [row["messages"][0] for row in rows]
    found = [row["prompt"] for row in [*split.validation, *split.train]]
    assert sorted(map(str, found)) == sorted(str([question]) for question in questions)
    assert all(json.loads(row["answer"])["low"] >= 0 for row in split.train)


def test_long_text_is_not_cut(world: World) -> None:
    (world.data / "book.txt").write_text("\n\n".join(f"{number} word" * 1000 for number in range(6)))
    method = {"pretraining": {"maxLength": 64}}
    dataset = world.prepare(world.prepare_config("pvc://data/book.txt", method=method)).dataset
    assert (dataset.format, dataset.rows, dataset.truncated_rows) == ("Text", 6, 0)
    assert dataset.tokens.max > 400


def test_labels_that_are_all_the_same_are_warned_of(world: World) -> None:
    rows = [{"prompt": f"{number} is", "completion": " a number", "label": True} for number in range(9)]
    config = world.prepare_config(world.write_rows("k.jsonl", rows), method={"kto": {}})
    dataset = world.prepare(config).dataset
    assert dataset.format == "UnpairedPreference"
    assert ("class_imbalance", 9) in dataset.issues
    assert any("bad answers" in warning for warning in dataset.warnings)


def test_a_reward_model_needs_an_architecture_that_can_end_in_a_number(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tunesmith_data.models.inspection.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES", {}
    )
    uri = world.write_rows("p.jsonl", make.preferences(4))
    with pytest.raises(UserError, match="LlamaForCausalLM: choose"):
        world.prepare(world.prepare_config(uri, method={"reward": {}}))


def chat(number: int) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": f"{number}"}],
        "completion": [{"role": "assistant", "content": "x"}],
    }


MAKERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "sft": chat,
    "dpo": lambda number: {"prompt": f"{number}", "chosen": " yes", "rejected": " no"},
    "kto": lambda number: chat(number) | {"label": number % 2 == 0},
    "pretraining": lambda number: {"text": f"{number} and more"},
}


@given(
    st.sampled_from(sorted(MAKERS)),
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
    st.lists(st.sampled_from(["{", "[]", "{}", '{"prompt": 1}', '{"messages": []}']), max_size=4),
)
@settings(max_examples=cases(30, 600), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_add_up_in_every_format(world: World, key: str, numbers: list[int], bad: list[str]) -> None:
    lines = [*(json.dumps(MAKERS[key](number)) for number in numbers), *bad]
    (world.data / "mixed.jsonl").write_text("\n".join(lines))
    config = world.prepare_config(
        "pvc://data/mixed.jsonl",
        method={key: {"maxLength": 64}},
        validation={"fraction": 0.2},
        onInvalidRow="Drop",
        maxInvalidFraction=0.9,
    )
    try:
        dataset = world.prepare(config).dataset
    except DataError as error:
        assume(error.reason != "NoTrainingRows")
        raise
    assert dataset.rows == len(lines)
    assert dataset.dropped_rows == len(bad)
    assert dataset.train_rows + dataset.validation_rows == len(set(numbers))
    assert dataset.rows - dataset.dropped_rows - dataset.duplicates == len(set(numbers))
