"""Probes: token sequences and log-probabilities by which a server verifies the adapter it serves."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

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


def probe_sequences(renderer: Renderer, rows: Iterable[Row]) -> list[ProbeTokens]:
    """Candidate sequences: the answers of the first MAX_CANDIDATES rows, without duplicates."""
    cut = (cut_sequence(renderer.tokens(row)) for row, _ in zip(rows, range(MAX_CANDIDATES), strict=False))
    return list(dict.fromkeys(cut))


def log_probs(model: Any, sequences: Sequence[ProbeTokens]) -> list[float]:
    """Mean log-probability of each continuation, in nats per token."""
    model.eval()
    return [mean_log_prob(model, sequence) for sequence in sequences]


def pair_probes(
    sequences: Sequence[ProbeTokens], base: Sequence[float], tuned: Sequence[float]
) -> tuple[Probe, ...]:
    """The MAX_PROBES sequences on which base and tuned model differ most.

    Args:
        sequences: the candidates.
        base: mean log-probabilities by the base model, in nats per token.
        tuned: mean log-probabilities by the tuned model.
    """
    probes = [
        Probe(
            token_ids=sequence.token_ids,
            prompt_length=sequence.prompt_length,
            base_log_prob=round(base_log_prob, _LOG_PROB_DECIMALS),
            tuned_log_prob=round(tuned_log_prob, _LOG_PROB_DECIMALS),
        )
        for sequence, base_log_prob, tuned_log_prob in zip(sequences, base, tuned, strict=True)
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


def mean_log_prob(model: Any, sequence: ProbeTokens) -> float:
    """Mean log-probability of the continuation's tokens in nats per token, by a float32 log-softmax."""
    ids = torch.tensor([sequence.token_ids], device=model.device)
    # Not inference_mode: weights that ZeRO-3 gathers in that mode can no longer be trained.
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, sequence.prompt_length - 1 : -1]
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    targets = ids[0, sequence.prompt_length :, None]
    return float(log_probs.gather(-1, targets).mean())


def _last_answer_start(answer: Sequence[bool]) -> int:
    """Index of the first token of the last answer; at least 1, since the first token is not predicted."""
    end = len(answer) - 1 - list(answer)[::-1].index(True)
    while end > 0 and answer[end - 1]:
        end -= 1
    return max(end, 1)


def _effect(probe: Probe) -> float:
    return abs(probe.tuned_log_prob - probe.base_log_prob)
