"""Proof that a loaded adapter is the expected one: log-probabilities of the manifest's probes, compared.

Decided by the difference between adapter and base model, both measured in the same engine. Decision record 26 derives
the limits, and a simulation among the tests measures the error rates.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean

from tunesmith_contract.artifact import Manifest, Probe
from tunesmith_contract.shared_rules.probe_effect import (
    MIN_TOKENS,
    PROVABLE_RATIO,
    PUBLISHED_NOISE,
    ExpectedValue,
    choose_probes,
    difference_noise,
    expected_values,
)

#: Most tokens of one judgement: each is a request for one token, with and without the adapter.
MAX_TOKENS = 512
#: The engine may be twice as noisy as the trainer measured, and the chosen probes still suffice.
_NOISE_MARGIN = 2.0

#: Systematic difference of the base model's mean log-probability that is no other model, in nats per token.
_BASE_SHIFT = 0.05
#: Standard deviations within which an honest mean lies.
_MEAN_DEVIATIONS = 4.5
#: Root mean square per token of an honest base model, in units of the expected noise.
_BASE_NOISE_RATIO = 3.0
#: Standard deviations within which an honest adapter's share of the effect lies.
_SHARE_DEVIATIONS = 3.5
#: Factor of the noise that covers rare large errors, and noise that is larger with the adapter than without it.
_NOISE_ALLOWANCE = 1.5
#: 99.9 % of the root mean squares of n honest values are below 1 + 3.3 / sqrt(2 n) times their noise.
_RMS_DEVIATIONS = 3.3
#: Part of the effect that may be missing or differ where noise is small, as by a coarser precision of the adapter.
_RELATIVE_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Measurement:
    """Log-probabilities of one probe's tokens in the engine, in nats."""

    probe: Probe
    base: Sequence[float]
    adapter: Sequence[float]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sums over all measured tokens, in nats per token unless said otherwise.

    Attributes:
        tokens: number of tokens.
        values: number of compared values: tokens, or means of the tokens of one probe.
        base_mean: mean difference of the base model between engine and manifest.
        base_rms: root mean square of that difference, by which the engine's noise is known.
        effect: expected effect, the root of the sum of the squared differences between tuned and base model, in nats.
        share: part of the expected effect that the engine shows: 1 with the expected adapter, 0 with none.
        residual_rms: root mean square of the difference between measured and expected effect.
    """

    tokens: int
    values: int
    base_mean: float
    base_rms: float
    effect: float
    share: float
    residual_rms: float


class ProofResult(Enum):
    """Result of a judgement."""

    PROVED = "Proved"
    UNPROVEN = "Unproven"
    PROOF_FAILED = "ProofFailed"
    BASE_MODEL_MISMATCH = "BaseModelMismatch"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of a judgement, with a sentence that has its numbers."""

    result: ProofResult
    message: str = ""


def expected_noise(manifest: Manifest) -> float:
    """Noise per token that the trainer measured, or the largest published one."""
    return PUBLISHED_NOISE if manifest.noise is None else manifest.noise.per_token


def probes_to_measure(manifest: Manifest) -> list[Probe]:
    """Fewest probes that can prove the adapter: traffic waits while the engine answers them."""
    return choose_probes(
        manifest.probes,
        expected_noise(manifest),
        min_tokens=MIN_TOKENS,
        max_tokens=MAX_TOKENS,
        margin=_NOISE_MARGIN,
    )


def weigh(measurements: Sequence[Measurement]) -> Evidence:
    """Sums over the tokens of all measurements; any value that is not a number makes them not a number."""
    tokens = values = 0
    base_sum = base_squares = effect_squares = products = residual_squares = 0.0
    for measured in measurements:
        for expected, base, adapter in _compare(measured):
            weight = expected.tokens
            effect, shown = expected.tuned - expected.base, adapter - base
            tokens += weight
            values += 1
            base_sum += weight * (base - expected.base)
            base_squares += weight * (base - expected.base) ** 2
            effect_squares += weight * effect**2
            products += weight * effect * shown
            residual_squares += weight * (shown - effect) ** 2
    return Evidence(
        tokens=tokens,
        values=values,
        base_mean=base_sum / tokens,
        base_rms=math.sqrt(base_squares / values),
        effect=math.sqrt(effect_squares),
        # Where no effect is expected, none is missing.
        share=products / effect_squares if effect_squares else 1.0,
        residual_rms=math.sqrt(residual_squares / values),
    )


def judge(evidence: Evidence, noise: float, tolerance: float = 0.0) -> Verdict:
    """Verdict on one version.

    Args:
        evidence: sums of the measurements.
        noise: noise per token that the manifest makes expect.
        tolerance: difference in nats per token that is accepted whatever the noise.
    """
    if problem := _base_problem(evidence, noise, tolerance):
        return Verdict(ProofResult.BASE_MODEL_MISMATCH, problem)
    deviation = difference_noise(max(noise, evidence.base_rms))
    if problem := _adapter_problem(evidence, deviation, tolerance):
        return Verdict(ProofResult.PROOF_FAILED, problem)
    provable = PROVABLE_RATIO * deviation
    if evidence.effect <= provable:
        return Verdict(
            ProofResult.UNPROVEN,
            f"The adapter's effect of {evidence.effect:.3g} nats over {evidence.tokens} probed tokens is too small to "
            f"be told from noise ({deviation:.3g} nats per token; provable from {provable:.3g}): the answers agree "
            "with the expected adapter, but also with others.",
        )
    return Verdict(ProofResult.PROVED)


def _base_problem(evidence: Evidence, noise: float, tolerance: float) -> str:
    """Difference of the engine's base model from the one that was trained on, as a sentence; empty without one.

    The limits cover kernels and precisions, not other weights.
    """
    noise = max(noise, PUBLISHED_NOISE)
    shift = max(_BASE_SHIFT, tolerance)
    mean_limit = max(shift, _MEAN_DEVIATIONS * noise / math.sqrt(evidence.tokens))
    tokens_per_value = evidence.tokens / evidence.values
    rms_limit = math.hypot(_BASE_NOISE_RATIO * noise, shift * math.sqrt(tokens_per_value))
    # A comparison with not-a-number is false: it must not pass.
    if abs(evidence.base_mean) <= mean_limit and evidence.base_rms <= rms_limit:
        return ""
    return (
        f"Over {evidence.tokens} tokens the base model's log-probabilities differ from the trainer's by "
        f"{evidence.base_mean:+.3g} nats per token on average (limit {mean_limit:.3g}), root mean square "
        f"{evidence.base_rms:.3g} (limit {rms_limit:.3g}). If this engine serves the right base model in a coarser "
        "precision, raise engine.proof.tolerance."
    )


def _adapter_problem(evidence: Evidence, deviation: float, tolerance: float) -> str:
    """Difference of the adapter's effect from the expected one as a sentence; empty without one.

    Args:
        evidence: sums of the measurements.
        deviation: noise per token of the difference between adapter and base model.
        tolerance: difference per token that is accepted whatever the noise.
    """
    if not evidence.effect:
        share_limit = math.inf
    else:
        tolerated = min(0.5, tolerance * math.sqrt(evidence.tokens) / evidence.effect)
        share_limit = max(_RELATIVE_TOLERANCE, _SHARE_DEVIATIONS * deviation / evidence.effect, tolerated)
    noise_limit = deviation * (_NOISE_ALLOWANCE + _RMS_DEVIATIONS / math.sqrt(2 * evidence.values))
    residual_limit = math.hypot(
        noise_limit,
        tolerance * math.sqrt(evidence.tokens / evidence.values),
        _RELATIVE_TOLERANCE * evidence.effect / math.sqrt(evidence.values),
    )
    if abs(evidence.share - 1.0) <= share_limit and evidence.residual_rms <= residual_limit:
        return ""
    return (
        f"Over {evidence.tokens} tokens the engine shows {evidence.share:.0%} of the adapter's expected effect "
        f"(100 ± {share_limit:.0%} is accepted; 0 % is the base model), and differs from it by "
        f"{evidence.residual_rms:.3g} nats per token (limit {residual_limit:.3g}; noise of the base model "
        f"{evidence.base_rms:.3g})."
    )


def _compare(measured: Measurement) -> Iterator[tuple[ExpectedValue, float, float]]:
    """Expected values of a probe, each with the engine's for base model and adapter."""
    expected = expected_values(measured.probe)
    if len(expected) == len(measured.base):
        yield from zip(expected, measured.base, measured.adapter, strict=True)
    else:
        yield expected[0], fmean(measured.base), fmean(measured.adapter)
