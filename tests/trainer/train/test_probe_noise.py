"""Noise of probes, and the choice of probes by the number of their tokens."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith_contract.artifact import Probe, ProbeNoise
from tunesmith_trainer.train.artifact.probe_noise import measure_adapter, measure_noise, round_logits
from tunesmith_trainer.train.artifact.probes import (
    MAX_CANDIDATES,
    ProbeTokens,
    pair_probes,
    probe_sequences,
    select_probes,
)

SEQUENCES = [ProbeTokens(token_ids=tuple(range(start, start + 24)), prompt_length=8) for start in range(9)]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def renderer_of(answer_tokens: int) -> Any:
    """A renderer whose rows are numbers: a prompt of five tokens, among them the number, and an answer."""

    def tokens(row: int) -> SimpleNamespace:
        ids = [1, 2, 3, 4, row, *range(answer_tokens)]
        return SimpleNamespace(ids=ids, answer=[False] * 5 + [True] * answer_tokens)

    return SimpleNamespace(tokens=tokens)


@pytest.mark.parametrize(
    ("answer_tokens", "candidates"), [(1, 64), (2, 64), (8, 64), (16, 32), (32, 16), (99, 16)]
)
def test_short_answers_give_more_candidates(answer_tokens: int, candidates: int) -> None:
    rows: Any = range(1000)
    assert len(probe_sequences(renderer_of(answer_tokens), rows)) == candidates
    assert len(probe_sequences(renderer_of(answer_tokens), [7] * 1000)) == 1  # type: ignore[list-item]


def make_candidates(answer_tokens: int, effect: float) -> list[Probe]:
    sequences = [
        ProbeTokens(token_ids=tuple(range(5 + answer_tokens)), prompt_length=5) for _ in range(MAX_CANDIDATES)
    ]
    base = [[-3.0] * answer_tokens for _ in sequences]
    tuned = [[-3.0 + effect] * answer_tokens for _ in sequences]
    return list(pair_probes(sequences, SimpleNamespace(base=base, tuned=tuned)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer_tokens", "effect", "chosen"), [(1, 4.0, 64), (2, 4.0, 32), (32, 2.0, 2), (32, 0.05, 16)]
)
def test_as_many_probes_as_prove_the_adapter(answer_tokens: int, effect: float, chosen: int) -> None:
    noise = ProbeNoise(batching=0.03, attention=0.02, precision=0.02)
    assert len(select_probes(make_candidates(answer_tokens, effect), noise)) == chosen


def test_noise_of_a_model_in_serving_precision(model: Any) -> None:
    noise = measure_noise(model.to(torch.bfloat16), SEQUENCES)
    assert noise is not None
    for source in (noise.batching, noise.attention, noise.precision):
        assert 0 <= source < 1
    assert noise.per_token > 1e-3
    assert model.config._attn_implementation == "sdpa"


def test_float32_has_the_noise_of_rounded_logits_alone(model: Any) -> None:
    noise = measure_noise(model, SEQUENCES)
    assert noise is not None
    assert max(noise.batching, noise.attention) < 1e-5
    assert noise.precision > 1e-4


def test_model_that_is_broken_has_no_noise(model: Any) -> None:
    model.lm_head.weight.data[0] = float("nan")
    assert measure_noise(model, SEQUENCES) is None


def test_adapter_is_measured_beside_its_base_with_plain_attention_in_between(model: Any) -> None:
    tuned = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    measured = measure_adapter(tuned, SEQUENCES)
    assert measured.noise is not None
    assert measured.base != measured.tuned
    assert [len(values) for values in measured.base] == [16] * len(SEQUENCES)
    assert model.config._attn_implementation == "sdpa"


def test_rounded_logits_have_errors_of_bfloat16_whatever_their_type() -> None:
    exact = 8 + 7.9 * torch.rand(10_000)  # neighbors are 1/16 apart
    for logits in (exact, exact.bfloat16()):
        error = round_logits(logits) - logits.float()
        assert error.abs().max() <= 1 / 32
        assert error.std() == pytest.approx(1 / 16 / 12**0.5, rel=0.05)
    assert torch.equal(round_logits(exact.bfloat16()), round_logits(exact.bfloat16()))
