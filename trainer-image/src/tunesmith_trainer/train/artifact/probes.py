"""Probes: token sequences and log-probabilities by which a server verifies the adapter it serves."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from tunesmith_contract.artifact import Probe, ProbeNoise
from tunesmith_contract.base import Document
from tunesmith_contract.shared_rules.probe_effect import MIN_TOKENS, PUBLISHED_NOISE, choose_probes
from tunesmith_data.models.rendering import Renderer, TokenizedRow
from tunesmith_data.rows.schema.formats import Row

#: Length of a probe, prompt and continuation, in tokens.
MAX_PROBE_TOKENS = 128
#: Candidates, where their answers are long; with short answers more, until there are enough tokens.
MIN_CANDIDATES = 16
MAX_CANDIDATES = 64
#: Rows that are read for candidates; some may give the same one.
_MAX_ROWS = 256
_CONTINUATION_TOKENS = 32
_CANDIDATE_TOKENS = MIN_CANDIDATES * _CONTINUATION_TOKENS
#: Noise of the engine, in units of the measured one, at which the probes still suffice for a proof.
_NOISE_MARGIN = 4.0
_LOG_PROB_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class ProbeTokens:
    """Token ids of a prompt and its continuation; the first ``prompt_length`` are the prompt."""

    token_ids: tuple[int, ...]
    prompt_length: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """Log-probabilities by the base model and by the tuned one, of each token of each continuation, in nats.

    ``noise`` is None for a whole model, and where a log-probability is not a number.
    """

    base: list[list[float]]
    tuned: list[list[float]]
    noise: ProbeNoise | None = None


class MeasuredProbes(Document):
    """Probes of the trained model, and the noise of their log-probabilities."""

    schema_version: Literal[1] = 1
    probes: tuple[Probe, ...] = ()
    noise: ProbeNoise | None = None


NO_PROBES = MeasuredProbes()


def probe_sequences(renderer: Renderer, rows: Iterable[Row]) -> list[ProbeTokens]:
    """Candidate sequences: the answers of the first rows, without duplicates, the more rows the shorter they are."""
    found: dict[ProbeTokens, int] = {}
    for row in islice(rows, _MAX_ROWS):
        is_enough = len(found) >= MIN_CANDIDATES and sum(found.values()) >= _CANDIDATE_TOKENS
        if is_enough or len(found) == MAX_CANDIDATES:
            break
        sequence = cut_sequence(renderer.tokens(row))
        found[sequence] = len(sequence.token_ids) - sequence.prompt_length
    return list(found)


def token_log_probs(
    model: Any,
    sequences: Sequence[ProbeTokens],
    batch_size: int = 1,
    of_logits: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.float,
) -> list[list[float]]:
    """Log-probabilities of the tokens of each continuation, in nats, by a float32 log-softmax.

    Sequences of a batch are padded at their ends, which changes nothing before: a causal model needs no mask for it.

    Args:
        model: a causal model, whose layers may be offloaded from the GPU.
        sequences: the sequences.
        batch_size: sequences per pass; more of them need more memory, and move offloaded weights fewer times.
        of_logits: float32 logits from those of the model.
    """
    model.eval()
    batches = (sequences[start : start + batch_size] for start in range(0, len(sequences), batch_size))
    return [values for batch in batches for values in _batch_log_probs(model, batch, of_logits)]


def pair_probes(sequences: Sequence[ProbeTokens], measured: Measurement) -> tuple[Probe, ...]:
    """Probes of all candidates.

    Args:
        sequences: the candidates.
        measured: their log-probabilities by both models.
    """
    return tuple(
        Probe(
            token_ids=sequence.token_ids,
            prompt_length=sequence.prompt_length,
            base_log_prob=_round(fmean(base)),
            tuned_log_prob=_round(fmean(tuned)),
            base_token_log_probs=tuple(map(_round, base)),
            tuned_token_log_probs=tuple(map(_round, tuned)),
        )
        for sequence, base, tuned in zip(sequences, measured.base, measured.tuned, strict=True)
    )


def select_probes(probes: Sequence[Probe], noise: ProbeNoise | None) -> tuple[Probe, ...]:
    """Probes on which base and tuned model differ most: enough to prove the model in an engine that is noisier."""
    return tuple(
        choose_probes(
            probes,
            noise.per_token if noise else PUBLISHED_NOISE,
            min_tokens=MIN_TOKENS,
            max_tokens=_CANDIDATE_TOKENS,
            margin=_NOISE_MARGIN,
        )
    )


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


def _batch_log_probs(
    model: Any, batch: Sequence[ProbeTokens], of_logits: Callable[[torch.Tensor], torch.Tensor]
) -> list[list[float]]:
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
        log_probs = torch.log_softmax(of_logits(logits[row, start - 1 : end - 1]), dim=-1)
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


def _round(log_prob: float) -> float:
    return round(log_prob, _LOG_PROB_DECIMALS)
