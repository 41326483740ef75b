"""Attention of packed rows without a dense mask: equality with SDPA's masks, and the check of torch's kernel."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from models.small_configs import EXPERTS, SMALL
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from tunesmith_contract.shared_rules import attention as rule
from tunesmith_trainer.train import packed_attention
from tunesmith_trainer.train.kernels import Kernels, check_kernels
from tunesmith_trainer.train.packed_attention import (
    PACKED_SDPA,
    PACKED_VARLEN,
    packed_mask,
    register_packed_attention,
    varlen_works,
)

VARLEN = "torch.nn.attention.varlen.varlen_attn"
LENGTHS = (5, 20, 1, 13)
WINDOW = 8
#: What a configuration needs beside the sizes, and to use its sliding window, if it has one.
OPTIONS: dict[str, dict[str, Any]] = {
    "GemmaForCausalLM": {"head_dim": 32},
    "Gemma3ForCausalLM": {"head_dim": 32, "layer_types": ["sliding_attention", "full_attention"]},
    "Olmo3ForCausalLM": {"layer_types": ["sliding_attention", "full_attention"]},
    "Qwen2ForCausalLM": {"use_sliding_window": True, "max_window_layers": 1},
    "Qwen3ForCausalLM": {"head_dim": 32, "use_sliding_window": True, "max_window_layers": 1},
    "Qwen3MoeForCausalLM": {"num_experts": 8, **EXPERTS},
    "MixtralForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def reference_varlen(
    query: Any, key: Any, value: Any, starts: Any, starts_k: Any, longest: int, longest_k: int, **options: Any
) -> torch.Tensor:
    """torch's ``varlen_attn`` by its documentation, with one dense mask; its kernels are for GPUs alone."""
    assert query.is_contiguous()
    assert key.is_contiguous()
    assert value.is_contiguous()
    assert starts.dtype == torch.int32
    assert torch.equal(starts, starts_k)
    assert longest == longest_k == int(starts.diff().max())
    left, right = options["window_size"]
    assert right == 0
    groups = query.shape[1] // key.shape[1]
    assert options["enable_gqa"] == (groups > 1)
    positions = torch.arange(len(query))
    row = torch.bucketize(positions, starts, right=True)
    distance = positions[:, None] - positions[None, :]
    seen = (row[:, None] == row[None, :]) & (distance >= 0)
    if left >= 0:
        seen &= distance <= left
    scale = options["scale"] or query.shape[-1] ** -0.5
    keys, values = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, keys) * scale
    shares = scores.masked_fill(~seen, float("-inf")).float().softmax(-1).to(query.dtype)
    return torch.einsum("hqk,khd->qhd", shares, values)


def build(architecture: str, **more: Any) -> Any:
    model = getattr(transformers, architecture)
    sizes: dict[str, Any] = {
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "sliding_window": WINDOW,
    }
    torch.manual_seed(0)
    config = model.config_class(**SMALL | sizes | OPTIONS.get(architecture, {}) | more)
    return model(config)


def step(model: Any, attention: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and gradients of packed rows."""
    model.set_attn_implementation(attention)
    model.zero_grad()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 500, (1, sum(LENGTHS)), generator=generator)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    logits.square().mean().backward()
    gradients = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    return logits.detach(), torch.cat(gradients)


def assert_alike(model: Any, attention: str) -> None:
    for found, expected in zip(step(model, attention), step(model, "sdpa"), strict=True):
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_packed_attention()


@pytest.fixture
def varlen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A kernel for the CPU and float32; the longest row of each call."""
    calls: list[int] = []

    def counted(*tensors: Any, **options: Any) -> torch.Tensor:
        calls.append(tensors[5])
        return reference_varlen(*tensors, **options)

    monkeypatch.setattr(VARLEN, counted)
    monkeypatch.setattr(packed_attention, "_SIXTEEN_BITS", frozenset({torch.bfloat16, torch.float32}))
    return calls


@pytest.mark.parametrize("architecture", sorted(rule._WITHOUT_MASK))
def test_packed_rows_need_no_mask(architecture: str, varlen: list[int]) -> None:
    """Of every model that the rule names: the same logits and gradients as with a dense mask."""
    model = build(architecture)
    assert model._supports_sdpa
    assert model._supports_flash_attn
    assert_alike(model, PACKED_SDPA)
    assert not varlen
    assert_alike(model, PACKED_VARLEN)
    assert varlen == [max(LENGTHS)] * model.config.num_hidden_layers


def test_no_mask_of_quadratic_size_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("LlamaForCausalLM")
    monkeypatch.setattr(packed_attention, "sdpa_mask", None)
    assert torch.isfinite(step(model, PACKED_SDPA)[0]).all()


def test_recomputed_blocks_see_the_same_rows(varlen: list[int]) -> None:
    model = build("LlamaForCausalLM").train()
    expected = step(model, "sdpa")
    for reentrant in (False, True):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        for attention in (PACKED_SDPA, PACKED_VARLEN):
            found = step(model, attention)
            assert torch.allclose(found[1], expected[1], atol=1e-6)
    # Forward and again, for each block.
    assert len(varlen) == 2 * 2 * model.config.num_hidden_layers


def test_weights_in_float32_are_cast_by_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    types: list[torch.dtype] = []

    def seen(query: Any, *tensors: Any, **options: Any) -> torch.Tensor:
        types.append(query.dtype)
        return reference_varlen(query, *tensors, **options)

    monkeypatch.setattr(VARLEN, seen)
    model = build("LlamaForCausalLM")
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = step(model, PACKED_VARLEN)[0], step(model, "sdpa")[0]
    assert set(types) == {torch.bfloat16}
    assert float((found - expected).abs().max()) < 0.03 * float(expected.abs().max())


def test_dropout_of_attention_goes_to_sdpa(varlen: list[int]) -> None:
    model = build("LlamaForCausalLM", attention_dropout=0.5).train()
    step(model, PACKED_VARLEN)
    assert not varlen
    step(model.eval(), PACKED_VARLEN)
    assert varlen


@pytest.mark.parametrize("attention", [PACKED_SDPA, PACKED_VARLEN])
def test_batches_that_are_not_packed_are_masked_as_ever(attention: str) -> None:
    model = build("MistralForCausalLM").eval()
    ids = torch.arange(3, 33).reshape(2, 15)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with torch.no_grad():
        padded, single = model(ids, attention_mask=mask).logits, model(ids[:1]).logits
        answers = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
        model.set_attn_implementation(attention)
        assert torch.equal(model(ids, attention_mask=mask).logits[mask.bool()], padded[mask.bool()])
        assert torch.equal(model(ids[:1]).logits, single)
        found = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    assert torch.equal(found, answers)


def test_bounds_are_where_a_token_does_not_see_the_one_before() -> None:
    rows = torch.tensor([0, 0, 1, 1, 1, 2])

    def packed(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
        return (rows[query] == rows[key]) & (query >= key)

    sizes: dict[str, Any] = {"batch_size": 1, "q_length": 6, "kv_length": 6, "allow_is_causal_skip": False}
    mask = packed_mask(mask_function=packed, **sizes)
    assert mask.bounds == (0, 2, 5, 6)
    assert mask.starts.tolist() == [0, 2, 5, 6]
    assert mask.longest == 3
    plain: Any
    for plain in (causal_mask_function, sliding_window_causal_mask_function(2)):
        assert packed_mask(mask_function=plain, **sizes).bounds == (0, 6)
    both_ways = packed_mask(mask_function=lambda _b, _h, q, k: rows[q] == rows[k], **sizes)
    assert both_ways.shape == (1, 1, 6, 6)
    custom = packed_mask(mask_function=plain, use_vmap=True, **sizes)
    assert isinstance(custom, torch.Tensor)


def test_the_implementation_is_not_written_into_the_model(tmp_path: Path) -> None:
    model = build("LlamaForCausalLM")
    model.set_attn_implementation(PACKED_SDPA)
    model.save_pretrained(tmp_path)
    assert "packed" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


def works(window: int | None = None, heads: tuple[int, int] = (4, 2)) -> bool:
    return varlen_works(*heads, 32, window, torch.bfloat16, "cpu")


@pytest.mark.parametrize("window", [None, 16, 4096])
@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (6, 2)])
def test_a_right_kernel_passes_the_check(
    varlen: list[int], window: int | None, heads: tuple[int, int]
) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert works(window, heads)
    assert varlen == [200]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_kernel_that_this_device_lacks_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """torch's own on a CPU."""
    assert not works()
    assert "does not work here, SDPA is used" in caplog.text


def test_a_torch_without_the_kernel_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    assert not works()


def _other_arguments(query: Any, key: Any, value: Any, *_: Any, is_causal: bool = False) -> Any:
    raise AssertionError("called with arguments that it lacks")


def _blind_to_windows(query: Any, *tensors: Any, window_size: Any, **options: Any) -> torch.Tensor:
    return reference_varlen(query, *tensors, window_size=(-1, 0), **options)


def test_a_window_is_checked_even_if_it_is_longer_than_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VARLEN, _blind_to_windows)
    assert works()
    assert not works(window=4096)


def _mixing_rows(query: Any, key: Any, value: Any, starts: Any, *_: Any, **options: Any) -> torch.Tensor:
    whole = torch.tensor([0, len(query)], dtype=torch.int32)
    return reference_varlen(query, key, value, whole, whole, len(query), len(query), **options)


def _not_a_number(query: Any, *_: Any, **__: Any) -> Any:
    return query * float("nan")


def _wrong_gradient(query: Any, *tensors: Any, **options: Any) -> torch.Tensor:
    return reference_varlen(query.detach() + 0 * query, *tensors, **options)


@pytest.mark.parametrize("kernel", [_mixing_rows, _not_a_number, _wrong_gradient, _other_arguments])
def test_a_wrong_kernel_fails_the_check(
    kernel: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, models: Path
) -> None:
    monkeypatch.setattr(VARLEN, kernel)
    checked = check_kernels(Kernels(PACKED_VARLEN), models / "llama", torch.bfloat16, "cpu")
    assert checked == Kernels(PACKED_SDPA)
    assert "SDPA is used" in caplog.text


def test_a_checked_kernel_is_kept_and_no_other_is_checked(varlen: list[int], models: Path) -> None:
    assert check_kernels(Kernels("sdpa"), models / "llama", torch.bfloat16, "cpu") == Kernels("sdpa")
    assert not varlen
    kept = check_kernels(Kernels(PACKED_VARLEN), models / "llama", torch.bfloat16, "cpu")
    assert kept == Kernels(PACKED_VARLEN)
    assert varlen
