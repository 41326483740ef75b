"""Record of all that decides a verdict. Its digest is the ``policyDigest``.

The record is a JSON object. A member is written only where it differs from the default of its document, so that a
release that adds a setting leaves the digests of earlier policies as they are. docs/policy-digest.md describes each
member, and how to recompute the digest by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.evaluation import Gate, Side, Suite
from tunesmith_contract.run_config import EvaluateConfig

#: Version of the record's form. Another version is another digest for every policy.
RECORD_VERSION = 1

#: Version of the intervals, tests and rules that turn scores into a verdict.
STATISTICS_VERSION = 1

#: Members of a suite that describe where its data lies or who reads it, not what is decided.
_LOCATIONS = frozenset({"name", "dataset", "metrics", "sliceColumns"})


@dataclass(frozen=True, slots=True)
class ResolvedSuite:
    """Facts about a suite that are known once its data is read.

    Attributes:
        data: digest of its sampled items, before any are left out as leaked.
        scorers: version of the scorer of each metric, by the metric's key.
        definition: digest of a harness task's definition or of a container's image; empty for rows.
    """

    data: str
    scorers: Mapping[str, str]
    definition: str = ""


@dataclass(frozen=True, slots=True)
class ResolvedSide:
    """Identity of a side once its source is resolved.

    Attributes:
        digest: digest of its artifact or stored answers, or revision of its model; empty for an endpoint.
        model: revision of the model that its adapter stands on, or its own; empty for an endpoint.
    """

    digest: str = ""
    model: str = ""


def build_policy_record(
    config: EvaluateConfig,
    suites: Mapping[str, ResolvedSuite],
    baseline: ResolvedSide,
    base_model_revision: str,
    examples: Sequence[str],
    left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Record of all that decides the verdict of a run.

    Args:
        config: configuration of the run; ``sides[0]`` is the candidate, ``sides[1]`` the baseline.
        suites: facts about each suite, by its name.
        baseline: identity of the baseline.
        base_model_revision: revision of the run's base model; empty if there is none.
        examples: digests of the drawn examples, in their order.
        left_out: digests of items that are left out because a reference was trained on them. References decide
            nothing else.
    """
    candidate_side, baseline_side = config.sides[:2]
    record = {
        "version": RECORD_VERSION,
        "statistics": STATISTICS_VERSION,
        "confidence": config.confidence,
        "seed": config.seed,
        "baseModel": base_model_revision,
        "suites": {suite.name: _describe_suite(suite, suites[suite.name]) for suite in config.suites},
        "gates": sorted((_written(gate) for gate in config.gates), key=canonical_json),
        "baseline": _describe_baseline(baseline_side, baseline) | _prompting(baseline_side),
        "candidate": _prompting(candidate_side),
        "examples": list(examples),
        "leftOut": sorted(left_out),
    }
    return {name: value for name, value in record.items() if value not in ("", [])}


def policy_digest(record: Mapping[str, Any]) -> str:
    """Digest of a record: SHA-256 of its canonical JSON (sorted keys, no spaces, UTF-8)."""
    return sha256_digest(canonical_json(record))


def _describe_suite(suite: Suite, resolved: ResolvedSuite) -> dict[str, Any]:
    """Settings of a suite that decide a verdict; the location of its data is not among them."""
    written = {name: value for name, value in _written(suite).items() if name not in _LOCATIONS}
    for source in ("harness", "container"):
        if source in written:
            written[source] = {"definition": resolved.definition} | _without_locations(written[source])
    metrics = {
        metric.key: _without_secrets(_written(metric)) | {"version": resolved.scorers[metric.key]}
        for metric in suite.metrics
    }
    return written | {"data": resolved.data, "metrics": metrics}


def _without_locations(source: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in source.items() if name not in {"data", "include", "image"}}


def _without_secrets(metric: dict[str, Any]) -> dict[str, Any]:
    """A metric's settings without prices and budget, which decide nothing."""
    judge = metric.get("judge")
    if judge is None:
        return metric
    endpoint = {name: value for name, value in judge["endpoint"].items() if name not in {"prices", "budget"}}
    return metric | {"judge": judge | {"endpoint": endpoint}}


def _describe_baseline(side: Side, resolved: ResolvedSide) -> dict[str, Any]:
    """The baseline's identity. An alias stands for itself: the version that it serves changes with each release."""
    if side.served_as:
        return {"alias": side.served_as}
    if side.endpoint is not None:
        return {"endpoint": {"url": side.endpoint.url, "model": side.endpoint.model}}
    stored = side.answers.side if side.answers is not None else ""
    identity = {"digest": resolved.digest, "side": stored, "model": resolved.model}
    return {name: value for name, value in identity.items() if value}


def _prompting(side: Side) -> dict[str, Any]:
    members = ("system_prompt", "few_shot", "context_column", "template_arguments")
    prompting = side.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=set(members))
    return {"prompting": prompting} if prompting else {}


def _written(document: Gate | Suite | Any) -> dict[str, Any]:
    """Members of a document that differ from their defaults."""
    members: dict[str, Any] = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return members
