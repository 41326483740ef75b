"""Noise of probes: differences between ways to compute the same log-probabilities, as engines compute them otherwise.

An engine batches requests, has other attention kernels and rounds logits to bfloat16. What each of these changes is
measured on the probes themselves, so that a proof knows which differences mean nothing.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel

from tunesmith_contract.artifact import ProbeNoise

from .probes import Measurement, ProbeTokens, token_log_probs

#: Sequences per pass. Offloaded weights are moved once for all of them.
BATCH_SIZE = 16
#: Sequences with which noise is measured, those with the most tokens; each takes a pass of its own.
_SAMPLE_SIZE = 4
_DIGITS = 3
_BFLOAT16_BITS = 8


def measure_adapter(model: Any, sequences: Sequence[ProbeTokens]) -> Measurement:
    """Measurement of an adapter beside its base model: with the adapter, and with it switched off.

    The noise is measured with the adapter, which adds to it.
    """
    tuned = token_log_probs(model, sequences, BATCH_SIZE)
    noise = measure_noise(model, sequences)
    with model.disable_adapter():
        return Measurement(base=token_log_probs(model, sequences, BATCH_SIZE), tuned=tuned, noise=noise)


def measure_noise(model: Any, sequences: Sequence[ProbeTokens]) -> ProbeNoise | None:
    """Noise of a model's log-probabilities; None where one of them is not a number.

    Args:
        model: a causal model, perhaps with an adapter.
        sequences: the probes.
    """
    by_length = sorted(sequences, key=lambda sequence: sequence.prompt_length - len(sequence.token_ids))
    sample = by_length[:_SAMPLE_SIZE]
    together = token_log_probs(model, sample, _SAMPLE_SIZE)
    alone = token_log_probs(model, sample, 1)
    with _plain_attention(model):
        plain = token_log_probs(model, sample, _SAMPLE_SIZE)
    rounded = token_log_probs(model, sample, _SAMPLE_SIZE, round_logits)
    sources = [_root_mean_square(together, other) for other in (alone, plain, rounded)]
    if not all(map(math.isfinite, sources)):
        return None
    batching, attention, precision = sources
    return ProbeNoise(batching=batching, attention=attention, precision=precision)


def round_logits(logits: torch.Tensor) -> torch.Tensor:
    """Float32 logits with the error of a bfloat16 output layer.

    Logits that are bfloat16 already have lost what was rounded: they get an error of the same size, half of the
    distance to the next number at most, from a seeded generator.
    """
    if logits.dtype is not torch.bfloat16:
        return logits.bfloat16().float()
    values = logits.float()
    _, exponent = torch.frexp(values)
    spacing = torch.ldexp(torch.ones_like(values), exponent - _BFLOAT16_BITS)
    random = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)).to(values.device)
    return values + (random - 0.5) * spacing


@contextlib.contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Attention by plain matrix products while the block runs."""
    causal: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    usual = causal.config._attn_implementation
    causal.set_attn_implementation("eager")
    try:
        yield
    finally:
        causal.set_attn_implementation(usual)


def _root_mean_square(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    """Of the differences of all tokens, to a few significant digits: no more of them are reproducible."""
    squares = [
        (a - b) ** 2
        for ours, others in zip(left, right, strict=True)
        for a, b in zip(ours, others, strict=True)
    ]
    return float(f"{math.sqrt(sum(squares) / len(squares)):.{_DIGITS}g}")
