"""Checks of log-probabilities on this machine: their noise, and models read again from their files."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from check_runner import CheckFailed, Place, Skipped
from peft import PeftModel
from training_checks import artifact_folder, open_bench
from transformers import AutoModelForCausalLM
from workload import ON_GPU, make_rows

from tunesmith_contract.artifact import Manifest, Probe
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.rows.schema.formats import Row
from tunesmith_trainer.train.artifact.probes import ProbeTokens, cut_sequence, token_log_probs
from tunesmith_trainer.train.artifact.reference_model import serving_model

_SEQUENCES = 64 if ON_GPU else 8
_BATCHES = (1, 16)
_TYPES = (torch.float32, torch.bfloat16)
_KINDS = ("eager", "sdpa")
#: Means of so many tokens are compared with the tolerance of earlier releases, in nats per token.
_MEANS, _TOLERANCE = (1, 2, 4, 8, 16, 32), 0.05
#: Largest difference of a model that was read again, root mean square per token, in nats.
_RELOADED = 0.08 if ON_GPU else 1e-3

LogProbs = list[list[float]]


def measure_noise(place: Place) -> dict[str, Any]:
    """Log-probabilities by attention, batch and type, beside plain attention in float32, one sequence at a time."""
    bench = open_bench(place, 0)
    renderer = Renderer(load_tokenizer(bench.model))
    rows = (Row(row) for row in make_rows(_SEQUENCES, seed=5))
    sequences = [cut_sequence(renderer.tokens(row)) for row in rows]
    adapter = artifact_folder(place, place.numbers("lora")["artifact"]["digest"])
    measured: dict[tuple[torch.dtype, str, int], tuple[LogProbs, LogProbs]] = {}
    for dtype, kind in product(_TYPES, _KINDS):
        base = AutoModelForCausalLM.from_pretrained(bench.model, dtype=dtype, attn_implementation=kind)
        model = PeftModel.from_pretrained(base.to("cuda" if ON_GPU else "cpu"), adapter)
        for size in _BATCHES:
            tuned = token_log_probs(model, sequences, size)
            with model.disable_adapter():
                measured[dtype, kind, size] = (token_log_probs(model, sequences, size), tuned)
    reference = measured[torch.float32, "eager", 1]
    ways = {
        f"{kind}, {'padded' if size > 1 else 'alone'}, {str(dtype).removeprefix('torch.')}": _compare(
            found, reference
        )
        for (dtype, kind, size), found in measured.items()
    }
    manifest = Manifest.model_validate_json((adapter / "manifest.json").read_bytes())
    noise = manifest.noise
    if noise is None:
        raise CheckFailed("the trainer measured no noise", ways=ways)
    return {
        "tokens": sum(map(len, reference[0])),
        "worstRootMeanSquare": max(way["tuned"] for way in ways.values()),
        "manifestNoise": noise.per_token,
        "manifestSources": noise.to_dict(),
        "ways": ways,
    }


def reload_full(place: Place) -> dict[str, Any]:
    """Whole model, read again from its artifact, against the manifest."""
    digest = place.numbers("full")["artifact"]["digest"]
    return _compare_with_manifest(place, digest, digest)


def reload_merged(place: Place) -> dict[str, Any]:
    """Merged model, read from its files, against the manifest of its adapter."""
    numbers = place.numbers("zero3-merged")
    if not numbers["exports"]:
        raise CheckFailed("there is no merged model")
    return _compare_with_manifest(place, numbers["exports"][0], numbers["artifact"]["digest"])


def _compare_with_manifest(place: Place, model_digest: str, manifest_digest: str) -> dict[str, Any]:
    text = (artifact_folder(place, manifest_digest) / "manifest.json").read_bytes()
    probes = Manifest.model_validate_json(text).probes
    if not probes:
        raise Skipped("the manifest has no probes")
    sequences = [ProbeTokens(probe.token_ids, probe.prompt_length) for probe in probes]
    with serving_model(artifact_folder(place, model_digest), 0.85) as model:
        found = token_log_probs(model, sequences, 16)
    numbers = {
        "tokens": sum(map(len, found)),
        "rootMeanSquare": _root_mean_square(found, [_tuned(probe) for probe in probes]),
        "effect": _root_mean_square([_base(probe) for probe in probes], [_tuned(probe) for probe in probes]),
    }
    if not numbers["rootMeanSquare"] < _RELOADED:
        raise CheckFailed("another model than the measured one was read", **numbers)
    return numbers


def _tuned(probe: Probe) -> Sequence[float]:
    assert probe.tuned_token_log_probs is not None
    return probe.tuned_token_log_probs


def _base(probe: Probe) -> Sequence[float]:
    assert probe.base_token_log_probs is not None
    return probe.base_token_log_probs


def _compare(found: tuple[LogProbs, LogProbs], reference: tuple[LogProbs, LogProbs]) -> dict[str, Any]:
    """Root mean squares per token of base, tuned and effect; share of means of n tokens beyond the tolerance."""
    base, tuned = (_differences(*pair) for pair in zip(found, reference, strict=True))
    effect = [after - before for before, after in zip(base, tuned, strict=True)]
    beyond = {}
    for length in _MEANS:
        means = [
            sum(tuned[start : start + length]) / length for start in range(0, len(tuned) - length + 1, length)
        ]
        beyond[str(length)] = sum(abs(mean) > _TOLERANCE for mean in means) / len(means) if means else 0.0
    return {
        "base": _norm(base),
        "tuned": _norm(tuned),
        "effect": _norm(effect),
        "beyondTolerance": beyond,
    }


def _differences(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> list[float]:
    return [
        ours - theirs
        for row, other in zip(found, expected, strict=True)
        for ours, theirs in zip(row, other, strict=True)
    ]


def _root_mean_square(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> float:
    return _norm(_differences(found, expected))


def _norm(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))
