"""Sizes of batches: from free memory, halved when memory runs out, down to one prompt."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tunesmith_contract.evaluation import Decoding
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.shared_rules.answer_memory import MAX_ROWS, AnswerMemory
from tunesmith_data.failures import StageError
from tunesmith_evaluation.models import batch_limit
from tunesmith_evaluation.models.batch_limit import BatchLimit, measure_limit
from tunesmith_evaluation.models.generation import EncodedPrompt, Generated, Generator
from tunesmith_evaluation.models.placement import Placement

NEW_TOKENS = 6
TEXTS = [f"sort {number} {number * 7}" + " and more" * (number % 5) for number in range(12)]


@pytest.fixture(scope="module")
def model(models: Path) -> Any:
    causal: Any = AutoModelForCausalLM
    return causal.from_pretrained(models / "llama", dtype=torch.float32)


@pytest.fixture
def prompts(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(text)["input_ids"] for text in TEXTS]


class SmallGPU:
    """Memory of a model that can only generate so many tokens at once.

    Attributes:
        batches: number of prompts of each batch that was tried.
    """

    def __init__(self, patch: pytest.MonkeyPatch, fits: Callable[[int, bool], bool]) -> None:
        self.batches: list[int] = []
        generate = Generator._generate

        def limited(
            generator: Generator, prompts: list[EncodedPrompt], shared: Any, decoding: Decoding
        ) -> list[Generated]:
            self.batches.append(len(prompts))
            longest = max(len(prompt.ids) for prompt in prompts) + decoding.max_new_tokens
            if not fits(len(prompts) * longest, shared is not None):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return generate(generator, prompts, shared, decoding)

        patch.setattr(Generator, "_generate", limited)


def collect(generator: Generator, prompts: list[list[int]]) -> dict[int, str]:
    """All answers; each prompt is answered once."""
    decoding = Decoding(max_new_tokens=NEW_TOKENS)
    batches = list(generator.answer([EncodedPrompt(ids) for ids in prompts], decoding))
    answers = {index: answer.text for batch in batches for index, answer in batch.items()}
    assert sum(map(len, batches)) == len(answers)
    return answers


def test_halved_batches_give_the_same_answers_and_the_next_ones_are_small_from_the_start(
    model: Any, tokenizer: Any, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = collect(Generator(model, tokenizer), prompts)
    limit = BatchLimit()
    most = 3 * (max(map(len, prompts)) + NEW_TOKENS)
    memory = SmallGPU(monkeypatch, lambda tokens, _: tokens <= most)
    assert collect(Generator(model, tokenizer, limit), prompts) == whole
    assert memory.batches[:3] == [12, 6, 3]
    tried = len(memory.batches)
    assert collect(Generator(model, tokenizer, limit), prompts) == whole
    assert memory.batches[tried] == 3
    assert sum(memory.batches[tried:]) == len(prompts)


def test_a_prompt_that_does_not_fit_alone_says_what_to_change(
    model: Any, tokenizer: Any, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SmallGPU(monkeypatch, lambda *_: False)
    with pytest.raises(StageError, match=r"prompt of \d+ tokens and an answer of up to 6: lower") as caught:
        collect(Generator(model, tokenizer), prompts)
    assert (caught.value.category, caught.value.reason) == (FailureCategory.OUT_OF_MEMORY, "OutOfMemory")
    assert memory.batches == [12, 6, 3, 1]


def test_a_shared_beginning_is_given_up_before_the_run_fails(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a long beginning that all prompts share, " * 8 + text for text in TEXTS[:3]]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    whole = collect(Generator(model, tokenizer), prompts)
    SmallGPU(monkeypatch, lambda _, is_shared: not is_shared)
    assert collect(Generator(model, tokenizer), prompts) == whole


def test_other_errors_are_raised(
    model: Any, tokenizer: Any, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> list[str]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Generator, "_generate", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        collect(Generator(model, tokenizer), prompts)


MEMORY = AnswerMemory(weights=0, largest_block=0, key_value=1000, activations=200, logits=10_000)


def fake_model(*parameters: tuple[str, int]) -> Any:
    """Model with parameters of these sizes on these devices."""
    weights = [SimpleNamespace(device=device, nbytes=size) for device, size in parameters]
    return SimpleNamespace(parameters=lambda: weights)


def test_a_batch_is_as_large_as_the_free_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1_000_000, 9_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 300_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 50_000)
    limit = measure_limit(fake_model(("cuda:0", 8)), MEMORY, Placement((0,)))
    free = batch_limit.BATCH_SHARE * 1_250_000
    rows = limit.count_rows(10)
    assert rows == int(free / (10 * 1200 + 10_000))
    assert limit.count_rows(1_000_000) == 1
    assert BatchLimit(MAX_ROWS, 1e12, 1).count_rows(10) == MAX_ROWS


def test_gpus_of_a_spread_model_hold_the_keys_and_values_of_their_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = {0: 900_000, 1: 500_000}
    monkeypatch.setattr(batch_limit, "free_memory", free.__getitem__)
    limit = measure_limit(fake_model(("cuda:0", 6), ("cuda:1", 4)), MEMORY, Placement((0, 1)))
    assert limit.cost == batch_limit.BATCH_SHARE * 500_000
    assert limit.token_cost == 0.6 * 1000 + 200


def test_on_a_cpu_the_batch_is_fixed() -> None:
    limit = measure_limit(fake_model(("cpu", 8)), MEMORY, Placement())
    assert (limit.count_rows(100), limit.count_rows(20_000)) == (32, 1)
