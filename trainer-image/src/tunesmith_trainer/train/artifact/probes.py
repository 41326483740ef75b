"""Probes: token sequences and log-probabilities by which a server verifies the adapter it serves."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from tunesmith_contract.artifact import Probe
from tunesmith_data.models.rendering import Renderer, TokenizedRow
from tunesmith_data.rows.schema.formats import Row

#: Length of a probe, prompt and continuation, in tokens.
MAX_PROBE_TOKENS = 128
MAX_PROBES = 6
MAX_CANDIDATES = 16
_CONTINUATION_TOKENS = 32
_LOG_PROB_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class ProbeTokens:
    """Token ids of a prompt and its continuation; the first ``prompt_length`` are the prompt."""

    token_ids: tuple[int, ...]
    prompt_length: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """Log-probabilities by the base model and by the tuned one, of each token of each continuation, in nats."""

    base: list[list[float]]
    tuned: list[list[float]]


def probe_sequences(renderer: Renderer, rows: Iterable[Row]) -> list[ProbeTokens]:
    """Candidate sequences: the answers of the first MAX_CANDIDATES rows, without duplicates."""
    cut = (cut_sequence(renderer.tokens(row)) for row, _ in zip(rows, range(MAX_CANDIDATES), strict=False))
    return list(dict.fromkeys(cut))


def token_log_probs(model: Any, sequences: Sequence[ProbeTokens], batch_size: int = 1) -> list[list[float]]:
    """Log-probabilities of the tokens of each continuation, in nats, by a float32 log-softmax.

    Sequences of a batch are padded at their ends, which changes nothing before: a causal model needs no mask for it.

    Args:
        model: a causal model, whose layers may be offloaded from the GPU.
        sequences: the sequences.
        batch_size: sequences per pass; more of them need more memory, and move offloaded weights fewer times.
    """
    model.eval()
    starts = range(0, len(sequences), batch_size)
    return [
        values
        for start in starts
        for values in _batch_log_probs(model, sequences[start : start + batch_size])
    ]


def measure_adapter(model: Any, sequences: Sequence[ProbeTokens], batch_size: int = 1) -> Measurement:
    """Measurement of an adapter beside its base model: with the adapter, and with it switched off."""
    tuned = token_log_probs(model, sequences, batch_size)
    with model.disable_adapter():
        return Measurement(base=token_log_probs(model, sequences, batch_size), tuned=tuned)


def pair_probes(sequences: Sequence[ProbeTokens], measured: Measurement) -> tuple[Probe, ...]:
    """The MAX_PROBES sequences on which base and tuned model differ most.

    Args:
        sequences: the candidates.
        measured: their log-probabilities by both models.
    """
    probes = [
        Probe(
            token_ids=sequence.token_ids,
            prompt_length=sequence.prompt_length,
            base_log_prob=round(fmean(base), _LOG_PROB_DECIMALS),
            tuned_log_prob=round(fmean(tuned), _LOG_PROB_DECIMALS),
        )
        for sequence, base, tuned in zip(sequences, measured.base, measured.tuned, strict=True)
    ]
    return tuple(sorted(probes, key=_effect, reverse=True)[:MAX_PROBES])


def largest_effect(probes: Sequence[Probe]) -> float:
    """Largest change of a mean log-probability, in nats per token; NaN if any is NaN."""
    effects = [_effect(probe) for probe in probes]
    return math.nan if any(math.isnan(effect) for effect in effects) else max(effects)


def cut_sequence(tokens: TokenizedRow) -> ProbeTokens:
    """Beginning of the last answer with the tokens before it, MAX_PROBE_TOKENS at most."""
    start = _last_answer_start(tokens.answer)
    end = start + _CONTINUATION_TOKENS
    while end > start and not all(tokens.answer[start:end]):
        end -= 1
    end = min(end, len(tokens.ids))
    begin = max(0, end - MAX_PROBE_TOKENS)
    return ProbeTokens(tuple(tokens.ids[begin:end]), start - begin)


def _batch_log_probs(model: Any, batch: Sequence[ProbeTokens]) -> list[list[float]]:
    rows = [torch.tensor(sequence.token_ids) for sequence in batch]
    # Layers that are offloaded lie on no device; accelerate moves the tokens to where they are computed.
    device = torch.device("cpu") if model.device.type == "meta" else model.device
    ids = pad_sequence(rows, batch_first=True).to(device)
    # Not inference_mode: weights that ZeRO-3 gathers in that mode can no longer be trained.
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    found = []
    for row, sequence in enumerate(batch):
        start, end = sequence.prompt_length, len(sequence.token_ids)
        log_probs = torch.log_softmax(logits[row, start - 1 : end - 1].float(), dim=-1)
        found.append(log_probs.gather(-1, ids[row, start:end, None])[:, 0].tolist())
    return found


def _last_answer_start(answer: Sequence[bool]) -> int:
    """Index of the first token of the last answer; at least 1, since the first token is not predicted."""
    end = len(answer) - 1 - list(answer)[::-1].index(True)
    while end > 0 and answer[end - 1]:
        end -= 1
    return max(end, 1)


def _effect(probe: Probe) -> float:
    return abs(probe.tuned_log_prob - probe.base_log_prob)
