"""Rule of the proof: what passes, what fails, and what stays so under any measurement."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_agent.control.proof import (
    Evidence,
    Measurement,
    ProofResult,
    judge,
    probes_to_measure,
    weigh,
)
from tunesmith_agent.engine.log_probs import (
    MAX_PROMPTS,
    build_prompt_requests,
    build_requests,
    parse_log_probs,
    parse_prompt_log_probs,
)
from tunesmith_contract.artifact import Lineage, Manifest, Probe, ProbeNoise

PASSED = (ProofResult.PROVED, ProofResult.UNPROVEN)
FINITE = st.floats(0, 20)
EVIDENCE = st.builds(
    Evidence,
    tokens=st.integers(64, 512),
    values=st.integers(1, 64),
    base_mean=st.floats(-1, 1),
    base_rms=st.floats(0, 1),
    effect=FINITE,
    share=st.floats(-2, 2),
    residual_rms=st.floats(0, 2),
)
LINEAGE = Lineage(
    namespace="n", job="j", uid="u", base_model="hf://o/r", base_model_revision="r",
    dataset_digest="sha256:" + "0" * 64, image="i", parameters={}, versions={},
)  # fmt: skip


def make_probe(base: Sequence[float], tuned: Sequence[float], *, by_token: bool = True) -> Probe:
    """A probe of two prompt tokens, by token or as manifests of earlier releases have it."""
    return Probe(
        token_ids=tuple(range(len(base) + 2)),
        prompt_length=2,
        base_log_prob=sum(base) / len(base),
        tuned_log_prob=sum(tuned) / len(tuned),
        base_token_log_probs=tuple(base) if by_token else None,
        tuned_token_log_probs=tuple(tuned) if by_token else None,
    )


def measure(probe: Probe, base: Sequence[float], adapter: Sequence[float]) -> Measurement:
    return Measurement(probe, tuple(base), tuple(adapter))


@given(EVIDENCE, st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_tolerance_refuses_no_more(
    evidence: Evidence, noise: float, tolerance: float, more: float
) -> None:
    if judge(evidence, noise, tolerance).result in PASSED:
        assert judge(evidence, noise, tolerance + more).result in PASSED


@given(EVIDENCE, st.floats(0, 0.5), st.floats(0, 1))
def test_nothing_far_from_the_expected_effect_is_proved(
    evidence: Evidence, noise: float, tolerance: float
) -> None:
    """Whatever the tolerance: an adapter that shows less than half of its effect is not proved."""
    if judge(evidence, noise, tolerance).result is ProofResult.PROVED:
        assert 0.5 <= evidence.share <= 1.5
        assert evidence.effect >= 10 * math.sqrt(2) * max(noise, evidence.base_rms)


@pytest.mark.parametrize("field", ["base_mean", "base_rms", "effect", "share", "residual_rms"])
@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_what_is_not_a_number_never_passes(field: str, tolerance: float) -> None:
    values = {"base_mean": 0.0, "base_rms": 0.01, "effect": 9.0, "share": 1.0, "residual_rms": 0.01}
    good = Evidence(tokens=64, values=64, **values)
    assert judge(good, 0.04, tolerance).result is ProofResult.PROVED
    broken = Evidence(tokens=64, values=64, **{**values, field: math.nan})
    assert judge(broken, 0.04, tolerance).result not in PASSED


@pytest.mark.parametrize("side", ["base", "adapter"])
def test_one_token_that_is_not_a_number_never_passes(side: str) -> None:
    base, tuned = [-2.0] * 64, [-1.0] * 64
    measured = {"base": list(base), "adapter": list(tuned)}
    measured[side][7] = math.nan
    evidence = weigh([measure(make_probe(base, tuned), **measured)])
    assert judge(evidence, 0.04).result not in PASSED


@given(st.lists(st.tuples(*[st.floats(-20, 0)] * 4), min_size=2, max_size=30), st.randoms())
def test_order_of_probes_and_tokens_does_not_matter(
    tokens: list[tuple[float, float, float, float]], order: random.Random
) -> None:
    def evidence(rows: list[tuple[float, float, float, float]]) -> Evidence:
        parts = [part for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]) if part]
        columns = [list(zip(*part, strict=True)) for part in parts]
        return weigh([measure(make_probe(c[0], c[1]), c[2], c[3]) for c in columns])

    shuffled = list(tokens)
    order.shuffle(shuffled)
    left, right = evidence(tokens), evidence(shuffled)
    for name in Evidence.__slots__:
        assert getattr(left, name) == pytest.approx(getattr(right, name), abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("by_token", [True, False])
def test_engine_without_noise_proves_the_adapter_and_nothing_else(by_token: bool) -> None:
    base = [-3.0, -2.0, -4.0, -1.0] * 8
    tuned = [-1.0, -0.5, -1.0, -1.5] * 8
    other = [-2.5, -2.0, -1.0, -0.2] * 8
    probe = make_probe(base, tuned, by_token=by_token)
    results = [
        judge(weigh([measure(probe, base, adapter)] * 3), 0.08).result for adapter in (tuned, base, other)
    ]
    assert results == [ProofResult.PROVED, ProofResult.PROOF_FAILED, ProofResult.PROOF_FAILED]
    wrong_base = [value - 0.4 for value in base]
    assert judge(weigh([measure(probe, wrong_base, tuned)]), 0.08).result is ProofResult.BASE_MODEL_MISMATCH


def test_manifest_of_an_earlier_release_is_read_and_keeps_its_digest() -> None:
    probe = {"tokenIds": [1, 2, 3], "promptLength": 1, "baseLogProb": -3.5, "tunedLogProb": -0.25}
    document = {
        "schemaVersion": 1, "kind": "LoRA", "rank": 8, "targetModules": ["q_proj"], "files": [],
        "lineage": LINEAGE.to_dict(), "probes": [probe],
    }  # fmt: skip
    manifest = Manifest.model_validate(document)
    assert manifest.noise is None
    assert manifest.to_dict() == document
    assert probes_to_measure(manifest) == list(manifest.probes)


def build_manifest(probes: Sequence[Probe], noise: float) -> Manifest:
    measured = ProbeNoise(batching=noise, attention=0, precision=0)
    return Manifest(files=(), lineage=LINEAGE, probes=tuple(probes), noise=measured)


def test_short_answers_are_joined_until_there_are_enough_tokens() -> None:
    answers = [make_probe([-5.0], [-0.1]) for _ in range(64)]
    assert len(probes_to_measure(build_manifest(answers, 0.04))) == 64
    long = [make_probe([-3.0] * 32, [-1.0] * 32) for _ in range(16)]
    assert len(probes_to_measure(build_manifest(long, 0.04))) == 2


def test_small_effects_are_measured_on_more_tokens_within_a_bound() -> None:
    weak = [make_probe([-3.0] * 32, [-2.96] * 32) for _ in range(32)]
    chosen = probes_to_measure(build_manifest(weak, 0.04))
    assert sum(probe.token_count for probe in chosen) == 512


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=40))
def test_requests_cover_every_token_once_in_small_pieces(shapes: list[tuple[int, int]]) -> None:
    probes = [
        Probe(
            token_ids=tuple(range(prompt + length)), prompt_length=prompt, base_log_prob=0, tuned_log_prob=0
        )
        for prompt, length in shapes
    ]
    requests: list[Any] = build_requests("m", probes, "salt")
    prompts = [prompt for request in requests for prompt in request["prompt"]]
    assert all(len(request["prompt"]) <= MAX_PROMPTS for request in requests)
    assert len(prompts) == sum(probe.token_count for probe in probes)
    # An engine whose log-probability of a token is the length of the prompt before it.
    answers = [
        {
            "choices": [
                {"index": index, "logprobs": {"top_logprobs": [{f"token_id:{len(prompt)}": len(prompt)}]}}
                for index, prompt in enumerate(request["prompt"])
            ]
        }
        for request in requests
    ]
    assert parse_log_probs(answers, probes) == [
        list(range(probe.prompt_length, len(probe.token_ids))) for probe in probes
    ]


def test_whole_prompts_give_the_same_as_single_tokens() -> None:
    probes = [
        Probe(token_ids=(7, 8, 9, 10)[:length], prompt_length=1, base_log_prob=0, tuned_log_prob=0)
        for length in (2, 3, 4)
    ] * MAX_PROMPTS
    requests: list[Any] = build_prompt_requests("m", probes, "salt")
    assert all(len(request["prompt"]) <= MAX_PROMPTS for request in requests)
    answers = [
        {
            "choices": [
                {
                    "index": index,
                    "prompt_logprobs": [None, *({str(token): {"logprob": -token}} for token in prompt[1:])],
                }
                for index, prompt in reversed([*enumerate(request["prompt"])])
            ]
        }
        for request in requests
    ]
    assert parse_prompt_log_probs(answers, probes) == [
        [-token for token in probe.token_ids[1:]] for probe in probes
    ]
