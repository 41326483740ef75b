"""Effect of an adapter on its probes, and the effect that it takes to prove the adapter in an engine.

The trainer chooses probes by it, and the agent chooses those that it measures. Decision record 26 has the reasons.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith_contract.artifact import Probe

#: Noise in nats per token where the trainer measured none: the largest that is published (mixture of experts).
PUBLISHED_NOISE = 0.08
#: Fewest tokens for a judgement.
MIN_TOKENS = 64
#: Smallest provable effect, in standard deviations of its measurement.
PROVABLE_RATIO = 10.0


@dataclass(frozen=True, slots=True)
class ExpectedValue:
    """Log-probability of one token, or the mean of several tokens, under base and tuned model, in nats per token."""

    tokens: int
    base: float
    tuned: float


def expected_values(probe: Probe) -> tuple[ExpectedValue, ...]:
    """One value for each token of the continuation; a single mean in manifests of earlier releases."""
    if probe.base_token_log_probs is None or probe.tuned_token_log_probs is None:
        return (ExpectedValue(probe.token_count, probe.base_log_prob, probe.tuned_log_prob),)
    pairs = zip(probe.base_token_log_probs, probe.tuned_token_log_probs, strict=True)
    return tuple(ExpectedValue(1, base, tuned) for base, tuned in pairs)


def squared_effect(probe: Probe) -> float:
    """Sum over the tokens of the squared difference between tuned and base model, in nats²."""
    return sum(value.tokens * (value.tuned - value.base) ** 2 for value in expected_values(probe))


def difference_noise(noise: float) -> float:
    """Noise per token of a difference of two measurements, if that of each is independent of the other."""
    return math.sqrt(2.0) * noise


def choose_probes(
    probes: Iterable[Probe], noise: float, *, min_tokens: int, max_tokens: int, margin: float
) -> list[Probe]:
    """Probes of the largest effect: as few as prove the adapter at ``margin`` times the noise.

    Args:
        probes: the candidates.
        noise: noise per token, in nats.
        min_tokens: fewest tokens, where there are so many.
        max_tokens: bound of the tokens of all chosen probes together, of which the first is always chosen.
        margin: factor of the noise for which the chosen probes suffice.
    """
    enough = (PROVABLE_RATIO * margin * difference_noise(noise)) ** 2
    chosen: list[Probe] = []
    tokens, effect = 0, 0.0
    for probe in sorted(probes, key=squared_effect, reverse=True):
        if tokens >= min_tokens and effect >= enough:
            break
        if chosen and tokens + probe.token_count > max_tokens:
            continue
        chosen.append(probe)
        tokens += probe.token_count
        effect += squared_effect(probe)
    return chosen
