"""Is the loaded adapter this adapter? Decided by the log-probabilities of the manifest's probes."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith_contract.artifact import Probe


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the engine says of one probe, mean log-probabilities in nats per token."""

    probe: Probe
    base: float
    adapter: float


def judge(measurements: Sequence[Measurement], tolerance: float) -> str:
    """Empty if it is this adapter on this base model, else a sentence with the numbers that say why not.

    Each probe must be within ``tolerance`` on both sides; and over all probes the adapter must be nearer to
    the tuned values than to the base's, or an adapter that changes nothing would pass if both are close.

    The tolerance covers different kernels and precisions, not different weights: between transformers with
    PEFT and vLLM 9.5e-7 was the largest difference of a token measured in float32; bfloat16 keeps eight bits,
    about 0.02.
    """
    for number, found in enumerate(measurements):
        probe = found.probe
        for side, value, expected in (
            ("base model", found.base, probe.base_log_prob),
            ("adapter", found.adapter, probe.tuned_log_prob),
        ):
            # A comparison with not-a-number is false: it must not pass.
            if not abs(value - expected) <= tolerance:
                return (
                    f"Probe {number}: the {side} has log-probability {value:.4f} per token instead of "
                    f"{expected:.4f} (tolerance {tolerance:g})."
                )
    to_tuned = sum(abs(found.adapter - found.probe.tuned_log_prob) for found in measurements)
    to_base = sum(abs(found.adapter - found.probe.base_log_prob) for found in measurements)
    if to_tuned < to_base:
        return ""
    return (
        f"Over {len(measurements)} probes the answers are as near to the base model ({to_base:.6f} nats) "
        f"as to the tuned one ({to_tuned:.6f}): nothing shows that the adapter is active."
    )
