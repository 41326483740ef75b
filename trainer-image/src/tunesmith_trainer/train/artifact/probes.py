"""Probes: token sequences by which a server can prove that it serves this adapter."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith_contract.artifact import Probe
from tunesmith_data.models.rendering import Renderer, TokenizedRow
from tunesmith_data.rows.schema.formats import Row

PROBE_TOKENS = 128
PROBES = 6
CANDIDATES = 16
_CONTINUATION_TOKENS = 32
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ProbeTokens:
    """Token ids, of which the first ``prompt_length`` are the prompt."""

    token_ids: tuple[int, ...]
    prompt_length: int


def build_probes(model: Any, renderer: Renderer, rows: Iterable[Row]) -> tuple[Probe, ...]:
    """The sequences whose answers the adapter changes most, with both models' numbers.

    Args:
        model: a PeftModel; its adapter is switched off for the base's numbers.
        renderer: renders the rows.
        rows: candidates, the best first; only the first few are tried.
    """
    sequences = probe_sequences(renderer, rows)
    tuned = log_probs(model, sequences)
    with model.disable_adapter():
        base = log_probs(model, sequences)
    return pair_probes(sequences, base, tuned)


def probe_sequences(renderer: Renderer, rows: Iterable[Row]) -> list[ProbeTokens]:
    """What is measured: the answers of the first few rows."""
    cut = (cut_sequence(renderer.tokens(row)) for row, _ in zip(rows, range(CANDIDATES), strict=False))
    return list(dict.fromkeys(cut))


def log_probs(model: Any, sequences: Sequence[ProbeTokens]) -> list[float]:
    """Mean log-probability of each continuation, nats per token."""
    model.eval()
    return [mean_log_prob(model, sequence) for sequence in sequences]


def pair_probes(
    sequences: Sequence[ProbeTokens], base: Sequence[float], tuned: Sequence[float]
) -> tuple[Probe, ...]:
    """The sequences on which two models differ most, with the numbers of both."""
    probes = [
        Probe(
            token_ids=sequence.token_ids,
            prompt_length=sequence.prompt_length,
            base_log_prob=round(base_log_prob, _DIGITS),
            tuned_log_prob=round(tuned_log_prob, _DIGITS),
        )
        for sequence, base_log_prob, tuned_log_prob in zip(sequences, base, tuned, strict=True)
    ]
    return tuple(sorted(probes, key=_effect, reverse=True)[:PROBES])


def largest_effect(probes: Sequence[Probe]) -> float:
    """The largest change of a mean log-probability, nats per token; NaN if any number is."""
    effects = [_effect(probe) for probe in probes]
    return math.nan if any(math.isnan(effect) for effect in effects) else max(effects)


def cut_sequence(tokens: TokenizedRow) -> ProbeTokens:
    """The beginning of the last answer and what stands before it, PROBE_TOKENS at most."""
    start = _last_answer(tokens.answer)
    end = start + _CONTINUATION_TOKENS
    while end > start and not all(tokens.answer[start:end]):
        end -= 1
    end = min(end, len(tokens.ids))
    begin = max(0, end - PROBE_TOKENS)
    return ProbeTokens(tuple(tokens.ids[begin:end]), start - begin)


def mean_log_prob(model: Any, sequence: ProbeTokens) -> float:
    """Mean log-probability of the continuation's tokens, nats per token, by a float32 log-softmax."""
    ids = torch.tensor([sequence.token_ids], device=model.device)
    # Not inference_mode: weights that ZeRO-3 gathers in it could never be trained or switched again.
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, sequence.prompt_length - 1 : -1]
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    targets = ids[0, sequence.prompt_length :, None]
    return float(log_probs.gather(-1, targets).mean())


def _last_answer(answer: Sequence[bool]) -> int:
    """Where the last run of answer tokens begins; at least 1, since the first token can't be predicted."""
    end = len(answer) - 1 - list(answer)[::-1].index(True)
    while end > 0 and answer[end - 1]:
        end -= 1
    return max(end, 1)


def _effect(probe: Probe) -> float:
    return abs(probe.tuned_log_prob - probe.base_log_prob)
