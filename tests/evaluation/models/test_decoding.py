"""Decoding by the run's parameters alone: neither a model's own configuration nor the batch changes an answer."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models.tiny_models import make_tokenizer
from transformers import AutoModelForCausalLM, GenerationConfig, MistralConfig, Qwen3Config

from tunesmith_contract.evaluation import Decoding
from tunesmith_evaluation.models.batch_limit import BatchLimit
from tunesmith_evaluation.models.decoding import StopStrings, cut_at_stop, find_answer_end
from tunesmith_evaluation.models.generation import EncodedPrompt, Generated, Generator
from tunesmith_evaluation.models.likelihood import EncodedAnswer, measure_likelihoods
from tunesmith_evaluation.models.padding import longest_first
from tunesmith_evaluation.models.shared_prefix import gap_limit, shared_length

TEXTS = ("sort 1 2", "s", "sort 123 456 789", "low", "high 12")
BEGINNING = "a long beginning that all prompts share, " * 8

#: What publishers write into generation_config.json, and more of the same kind.
OWN_CONFIGURATION = {
    "do_sample": True,
    "temperature": 3.0,
    "top_k": 2,
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 7,
    "bad_words_ids": [[40]],
    "forced_eos_token_id": 3,
}


def load(folder: Path) -> Any:
    causal: Any = AutoModelForCausalLM
    return causal.from_pretrained(folder, dtype=torch.float32)


def answers(
    generator: Generator, prompts: Sequence[list[int]], decoding: Decoding, seeds: Sequence[int] | None = None
) -> list[Generated]:
    """Answers in the order of the prompts."""
    encoded = [
        EncodedPrompt(ids, seed) for ids, seed in zip(prompts, seeds or [0] * len(prompts), strict=True)
    ]
    found = {
        index: answer for batch in generator.answer(encoded, decoding) for index, answer in batch.items()
    }
    return [found[index] for index in range(len(prompts))]


def texts(*arguments: Any) -> list[str]:
    return [answer.text for answer in answers(*arguments)]


@pytest.fixture
def prompts(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture(scope="module")
def generators(models: Path, tokenizer: Any) -> dict[str, Generator]:
    return {name: Generator(load(models / name), tokenizer) for name in ("llama", "qwen3", "mistral")}


@pytest.fixture
def generator(generators: dict[str, Generator]) -> Generator:
    return generators["llama"]


@pytest.mark.parametrize("beginning", ["", BEGINNING])
def test_greedy_answers_are_those_of_the_plain_loop(
    generator: Generator, tokenizer: Any, beginning: str
) -> None:
    prompts = [tokenizer(beginning + text)["input_ids"] for text in TEXTS]
    together = answers(generator, prompts, Decoding(max_new_tokens=12))
    for prompt, answer in zip(prompts, together, strict=True):
        ids = torch.tensor([prompt])
        for _ in range(12):
            next_id = generator._model(input_ids=ids).logits[0, -1].argmax()
            if next_id == tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, next_id.view(1, 1)], dim=1)
        own = ids[0, len(prompt) :]
        kept = [token for token in own.tolist() if token != tokenizer.pad_token_id]
        assert answer.text == tokenizer.decode(kept)
        assert (answer.tokens, answer.truncated) == (len(own), len(own) == 12)


def test_a_models_own_configuration_changes_nothing(
    models: Path, generator: Generator, tokenizer: Any, prompts: list[list[int]], tmp_path: Path
) -> None:
    decoding = Decoding(max_new_tokens=16)
    plain = texts(generator, prompts, decoding)
    shown = sorted({token for text in plain for token in tokenizer(text)["input_ids"]})[:6]
    model = load(models / "llama")
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, suppress_tokens=shown, **OWN_CONFIGURATION
    )
    model.generation_config.save_pretrained(tmp_path)
    assert '"repetition_penalty": 1.3' in (tmp_path / "generation_config.json").read_text()
    assert texts(Generator(model, tokenizer), prompts, decoding) == plain


def test_an_adapters_copy_of_the_models_configuration_changes_nothing(
    models: Path, generator: Generator, tokenizer: Any, prompts: list[list[int]]
) -> None:
    from peft import LoraConfig, get_peft_model

    decoding = Decoding(max_new_tokens=16)
    plain = texts(generator, prompts, decoding)
    model = load(models / "llama")
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, **OWN_CONFIGURATION)
    # A new adapter changes no answer: its second matrix is 0.
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    assert texts(Generator(adapted, tokenizer), prompts, decoding) == plain


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.text("sort 0123456789abc", min_size=1, max_size=30), min_size=2, max_size=6),
    shared=st.booleans(),
    temperature=st.sampled_from([0.0, 1.0]),
    architecture=st.sampled_from(["llama", "qwen3", "mistral"]),
)
def test_an_answer_alone_is_the_answer_in_any_batch(
    generators: dict[str, Generator],
    tokenizer: Any,
    words: list[str],
    shared: bool,
    temperature: float,
    architecture: str,
) -> None:
    prompts = [tokenizer((BEGINNING if shared else "") + text)["input_ids"] for text in words]
    decoding = Decoding(max_new_tokens=8, temperature=temperature, top_p=0.9)
    seeds = [7 * index for index in range(len(prompts))]
    generator = generators[architecture]
    together = texts(generator, prompts, decoding, seeds)
    alone = [
        texts(generator, [prompt], decoding, [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert together == alone
    backwards = texts(generator, prompts[::-1], decoding, seeds[::-1])
    assert backwards[::-1] == together


def test_padding_in_a_prompt_does_not_move_a_sliding_window(tokenizer: Any) -> None:
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    model = AutoModelForCausalLM.from_config(MistralConfig(sliding_window=16, **sizes), dtype=torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    generator = Generator(model, tokenizer)
    prompts = [
        tokenizer(BEGINNING + text)["input_ids"] for text in ("a", "b 1 2 3 4 5 6 7 8 9 10 11 12 13 14")
    ]
    decoding = Decoding(max_new_tokens=10)
    alone = [texts(generator, [prompt], decoding)[0] for prompt in prompts]
    assert texts(generator, prompts, decoding) == alone
    full = Qwen3Config(sliding_window=16, use_sliding_window=False, **sizes)
    assert gap_limit(full) == float("inf")
    assert gap_limit(model.config) == 16


def test_stop_strings_end_an_answer_wherever_tokens_end(
    generator: Generator, tokenizer: Any, prompts: list[list[int]]
) -> None:
    decoding = Decoding(max_new_tokens=24)
    whole = answers(generator, prompts, decoding)
    index = max(range(len(whole)), key=lambda place: len(whole[place].text))
    stop = whole[index].text[3:6]
    assert stop
    cut = answers(generator, prompts, decoding.model_copy(update={"stop": (stop,)}))
    for before, after in zip(whole, cut, strict=True):
        assert after.text == before.text.split(stop)[0]
        assert after.truncated == (before.truncated and stop not in before.text)
    assert cut[index].tokens < whole[index].tokens


def test_a_stop_string_that_the_prompt_began_does_not_end_the_answer() -> None:
    def decode(ids: list[int]) -> str:
        return "".join("ab\n"[token] for token in ids)

    criteria = StopStrings(decode, 2, ["\n\n"])
    rows: Any = torch.tensor([[0, 2, 2], [0, 1, 1]])
    assert criteria(rows, rows).tolist() == [False, False]
    rows = torch.tensor([[0, 2, 2, 2], [0, 1, 1, 2]])
    assert criteria(rows, rows).tolist() == [True, False]
    assert criteria.lengths == {0: 2}
    assert cut_at_stop("one\n\ntwo", ["two", "\n\n"]) == ("one", True)


@pytest.mark.parametrize(
    ("template", "special", "tokens", "strings"),
    [
        # Qwen2.5 base: a text ends with <|endoftext|>, a turn of ChatML with <|im_end|>.
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
            [],
            2,
            (),
        ),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}<|eot_id|>{% endfor %}", ["<|eot_id|>"], 2, ()),
        (
            "{% for m in messages %}{{ m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}",
            ["<end_of_turn>"],
            2,
            (),
        ),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }} ###\n{% endfor %}", [], 1, ("###",)),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", [], 1, ()),
        ("{{ raise_exception('no') }}", [], 1, ()),
        (None, [], 1, ()),
    ],
)
def test_the_end_of_a_turn_ends_an_answer_where_it_is_not_the_end_of_a_text(
    models: Path, template: str | None, special: list[str], tokens: int, strings: tuple[str, ...]
) -> None:
    tokenizer = make_tokenizer(["some text"], template)
    tokenizer.eos_token = "<|endoftext|>"
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": special})
    model = load(models / "llama")
    model.generation_config.eos_token_id = None
    end = find_answer_end(model.generation_config, tokenizer)
    assert tokenizer.eos_token_id in end.tokens
    assert (len(end.tokens), end.strings) == (tokens, strings)
    if special:
        assert tokenizer.convert_tokens_to_ids(special[0]) in end.tokens
    elif tokens == 2:
        assert tokenizer.convert_tokens_to_ids("<|im_end|>") in end.tokens


def test_marks_that_are_special_tokens_stay_in_the_text(models: Path) -> None:
    tokenizer = make_tokenizer(["some text"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<tool_call>"]})
    generator = Generator(load(models / "llama"), tokenizer)
    ids = tokenizer("<think>hm</think> yes <tool_call>.<|endoftext|><|im_end|>")["input_ids"]
    assert generator._text.decode(ids) == "<think>hm</think> yes <tool_call>."
    assert generator._text.decode(tokenizer("a , b .")["input_ids"]) == "a , b ."


def test_samples_follow_the_models_probabilities_and_the_seed(
    generator: Generator, tokenizer: Any, prompts: list[list[int]]
) -> None:
    decoding = Decoding(max_new_tokens=1, temperature=0.7)
    prompt = prompts[0]
    seeds = list(range(600))
    sampled = texts(generator, [prompt] * len(seeds), decoding, seeds)
    assert sampled == texts(generator, [prompt] * len(seeds), decoding, seeds)
    assert len(set(sampled)) > 5
    with torch.inference_mode():
        logits = generator._model(input_ids=torch.tensor([prompt])).logits[0, -1]
    wanted = (logits / 0.7).softmax(dim=0).tolist()
    top = max(range(len(wanted)), key=wanted.__getitem__)
    share = sum(text == generator._text.decode([top]) for text in sampled) / len(seeds)
    error = 4 * (wanted[top] * (1 - wanted[top]) / len(seeds)) ** 0.5
    assert share == pytest.approx(wanted[top], abs=error)
    narrow = Decoding(max_new_tokens=1, temperature=0.7, top_p=1e-6)
    assert set(texts(generator, [prompt] * 20, narrow, seeds[:20])) == {generator._text.decode([top])}


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_likelihoods_are_those_of_each_answer_alone(
    generators: dict[str, Generator], tokenizer: Any, architecture: str
) -> None:
    model = generators[architecture]._model
    encoded = [
        EncodedAnswer(tokenizer(f"{BEGINNING if long else ''}{text} and more")["input_ids"], 1 + long)
        for text in TEXTS
        for long in (0, 1)
    ]
    limit = BatchLimit(rows=4)
    found = {
        index: value
        for batch in measure_likelihoods(model, encoded, tokenizer.pad_token_id, limit)
        for index, value in batch.items()
    }
    for index, answer in enumerate(encoded):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([answer.ids])).logits[0].log_softmax(dim=1)
        wanted = sum(
            float(logits[place - 1, token]) for place, token in enumerate(answer.ids) if place >= answer.start
        )
        assert found[index].log_probability == pytest.approx(wanted, abs=1e-3)
        assert found[index].tokens == len(answer.ids) - answer.start


class FedTokens:
    """Number of tokens that a model's forward passes take in, padding included."""

    def __init__(self, model: Any, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        forward = model.forward

        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.count += keywords["input_ids"].numel()
            return forward(*arguments, **keywords)

        patch.setattr(model, "forward", counted)


@pytest.mark.parametrize("beginning", ["", BEGINNING])
@pytest.mark.parametrize("rows", [3, 32])
@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_choices_share_the_context_that_they_follow(
    generators: dict[str, Generator],
    tokenizer: Any,
    architecture: str,
    rows: int,
    beginning: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, encoded = generators[architecture]._model, []
    for text in TEXTS:
        context = tokenizer(f"{beginning}a question about {text} that takes some words")["input_ids"]
        choices = [tokenizer(choice)["input_ids"] for choice in (" low", " a higher 1 2 3", " 77", " low")]
        encoded += [EncodedAnswer([*context, *choice], len(context)) for choice in choices]
    with torch.inference_mode():
        wanted = [
            model(input_ids=torch.tensor([answer.ids])).logits[0].log_softmax(dim=1) for answer in encoded
        ]
    fed = FedTokens(model, monkeypatch)
    batches = measure_likelihoods(model, encoded, tokenizer.pad_token_id, BatchLimit(rows=rows))
    found = {index: value for batch in batches for index, value in batch.items()}
    assert len(found) == len(encoded)
    for index, answer in enumerate(encoded):
        places = range(answer.start, len(answer.ids))
        total = sum(float(wanted[index][place - 1, answer.ids[place]]) for place in places)
        best = all(int(wanted[index][place - 1].argmax()) == answer.ids[place] for place in places)
        assert found[index].log_probability == pytest.approx(total, abs=1e-3)
        assert (found[index].tokens, found[index].is_greedy) == (answer.length, best)
    if rows > len(TEXTS):
        assert fed.count < sum(len(answer.ids) for answer in encoded) * (0.5 if beginning else 0.8)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_have_ended_leave_the_batch(
    generator: Generator, tokenizer: Any, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [
        tokenizer(f"{BEGINNING if odd else ''}sort {number}")["input_ids"]
        for number in range(16)
        for odd in (0, 1)
    ]
    seeds = list(range(len(prompts)))
    plain = Decoding(max_new_tokens=40, temperature=temperature)
    whole = answers(generator, prompts, plain, seeds)
    # A letter that ends more than half of the answers, but not all of them.
    holders = Counter(letter for answer in whole for letter in set(answer.text))
    stop = min(holders, key=lambda letter: abs(holders[letter] - 24))
    assert 16 <= holders[stop] < 32
    decoding = plain.model_copy(update={"stop": (stop,)})
    alone = [
        answers(generator, [prompt], decoding, [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    fed = FedTokens(generator._model, monkeypatch)
    together = answers(generator, prompts, decoding, seeds)
    shrunk, fed.count = fed.count, 0
    assert [(one.text, one.tokens, one.truncated) for one in together] == [
        (one.text, one.tokens, one.truncated) for one in alone
    ]
    monkeypatch.setattr(generator, "_can_shrink", False)
    assert [one.text for one in answers(generator, prompts, decoding, seeds)] == [one.text for one in alone]
    assert shrunk < fed.count


def test_prompts_are_ordered_by_length_and_shared_length_leaves_one_token() -> None:
    assert longest_first([[1], [1, 2, 3], [1, 2]]) == [1, 2, 0]
    assert shared_length([[1, 2, 3, 4], [1, 2, 3], [1, 2, 9, 9, 9]]) == 2
    assert shared_length([[1, 2], [1, 2]]) == 1
