"""Proof that a loaded adapter is the expected one: log-probabilities of the manifest's probes, compared."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith_contract.artifact import Probe

MEASURED_PROBES = 3


@dataclass(frozen=True, slots=True)
class Measurement:
    """Mean log-probabilities of one probe in the engine, in nats per token."""

    probe: Probe
    base: float
    adapter: float


def choose_probes(probes: Sequence[Probe]) -> list[Probe]:
    """Probes on which adapter and base model differ most: enough to prove, few enough for an engine without a GPU."""
    return sorted(probes, key=lambda probe: -abs(probe.tuned_log_prob - probe.base_log_prob))[
        :MEASURED_PROBES
    ]


def judge_base(measurements: Sequence[Measurement], tolerance: float) -> str:
    """Problem of the engine's base model as a sentence; empty if it is the one that was trained on.

    The tolerance covers different kernels and precisions, not different weights: between transformers with
    PEFT and vLLM 9.5e-7 was the largest difference of a token measured in float32; bfloat16 keeps eight bits,
    about 0.02.
    """
    pairs = [(measured.base, measured.probe.base_log_prob) for measured in measurements]
    return _first_difference("base model", pairs, tolerance)


def judge_adapter(measurements: Sequence[Measurement], tolerance: float) -> str:
    """Problem of the loaded adapter as a sentence; empty if it is the expected adapter.

    Each probe must be within the tolerance; and over all probes the adapter must be nearer to the tuned
    values than to the base's, or an adapter that changes nothing would pass where the two are close.
    """
    pairs = [(measured.adapter, measured.probe.tuned_log_prob) for measured in measurements]
    if problem := _first_difference("adapter", pairs, tolerance):
        return problem
    to_tuned = sum(abs(measured.adapter - measured.probe.tuned_log_prob) for measured in measurements)
    to_base = sum(abs(measured.adapter - measured.probe.base_log_prob) for measured in measurements)
    if to_tuned < to_base:
        return ""
    return (
        f"Over {len(measurements)} probes the answers are as near to the base model ({to_base:.6f} nats) "
        f"as to the tuned one ({to_tuned:.6f}): nothing shows that the adapter is active."
    )


def _first_difference(side: str, pairs: Sequence[tuple[float, float]], tolerance: float) -> str:
    for number, (value, expected) in enumerate(pairs):
        # A comparison with not-a-number is false: it must not pass.
        if not abs(value - expected) <= tolerance:
            return (
                f"Probe {number}: the {side} has log-probability {value:.4f} per token instead of "
                f"{expected:.4f} (tolerance {tolerance:g})."
            )
    return ""
