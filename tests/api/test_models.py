"""The models by themselves: parsing, sentences, round trips, descriptions."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from custom_resources.manifest_cases import GOOD, bad_cases, load_good, merge
from custom_resources.schema_nodes import walk
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tunesmith.api import (
    KINDS,
    AdapterDeployment,
    AdapterDeploymentStatus,
    FineTuneJob,
    InvalidResource,
    Resource,
    duration_seconds,
    format_duration,
)
from tunesmith.api.adapterdeployment import MAX_ADAPTERS, MAX_HISTORY, MAX_PODS, MAX_REJECTED
from tunesmith.api.common import Model
from tunesmith.api.crd import build_schema
from tunesmith.api.rules import Rule

BY_KIND = {kind.kind_name: kind for kind in KINDS}


def parse(body: dict[str, Any]) -> Resource:
    return BY_KIND[body["kind"]].parse(body)


def models(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and all models in its fields."""
    yield kind
    for field in kind.model_fields.values():
        pending = [field.annotation]
        while pending:
            annotation = pending.pop()
            pending += getattr(annotation, "__args__", ())
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from models(annotation)


@pytest.mark.parametrize("name", GOOD)
def test_a_resource_survives_a_round_trip(name: str) -> None:
    resource = parse(load_good(name))
    assert parse(resource.to_dict()) == resource


def rules_without_check() -> set[str]:
    """Messages of the rules that only the API server checks."""
    return {
        rule.message
        for kind in KINDS
        for model in {kind, *models(kind)}
        if issubclass(model, Model)
        for field in (model, *(field for field in model.model_fields.values()))
        for rule in _rules(field)
        if rule.check is None
    }


def _rules(declared: Any) -> Iterator[Rule]:
    """Rules of a model, or of the types in a field's annotation."""
    if isinstance(declared, type):
        yield from declared.rules  # type: ignore[attr-defined]
        return
    pending = [declared.annotation, *declared.metadata]
    while pending:
        part = pending.pop()
        if isinstance(part, Rule):
            yield part
        pending += [*getattr(part, "__args__", ()), *getattr(part, "__metadata__", ())]


SERVER_ONLY = rules_without_check()


def is_checked_by_models(message: str) -> bool:
    """Equal keys of a list that is a map, and rules without a Python twin, are left to the API server."""
    return "Duplicate" not in message and not any(
        rule[:30] in message or message in rule for rule in SERVER_ONLY
    )


REFUSED = [
    pytest.param(case.body, id=case.title) for case in bad_cases() if is_checked_by_models(case.message)
]


@pytest.mark.parametrize("body", REFUSED)
def test_the_models_refuse_what_the_operator_could_not_read(body: dict[str, Any]) -> None:
    try:
        resource = parse(body)
    except InvalidResource:
        return
    assert isinstance(resource, AdapterDeployment)
    assert resource.refused_arguments or resource.refused_aliases


def test_rules_that_the_operator_relies_on_have_a_python_twin() -> None:
    for words in (
        "Set exactly one",
        "uri and digest together",
        "in quotes",
        "Write the location",
        "dataset needs rows",
    ):
        assert not [message for message in SERVER_ONLY if words in message], words


def test_every_rule_of_a_job_is_seen_to_refuse() -> None:
    expected = [case.message for case in bad_cases()]
    rules = {
        rule["message"]
        for _, node in walk(build_schema(FineTuneJob))
        for rule in node.get("x-kubernetes-validations", ())
        if "oldSelf" not in rule["rule"]
    }
    assert {
        rule for rule in rules if not any(rule[:30] in message or message in rule for message in expected)
    } == set()


def test_a_fault_is_told_with_its_path_and_what_to_write() -> None:
    body = merge(
        load_good("finetunejob-minimal"), {"spec": {"hyperparameters": {"learningRate": 2e-4, "lr": 1}}}
    )
    with pytest.raises(InvalidResource) as refused:
        parse(body)
    assert str(refused.value) == (
        "spec.hyperparameters.learningRate: 0.0002 must be a decimal number in quotes, such as '2e-4'; "
        "spec.hyperparameters.lr: unknown field"
    )


def test_a_status_of_a_later_release_is_read() -> None:
    body = load_good("finetunejob-minimal") | {"status": {"phase": "Training", "novelty": {"a": 1}}}
    assert FineTuneJob.parse(body).status.to_dict()["phase"] == "Training"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)
def test_every_field_is_described(kind: type[Resource]) -> None:
    undescribed = {
        f"{model.__name__}.{name}"
        for member in ("spec", "status")
        for model in models(kind.model_fields[member].annotation)  # type: ignore[arg-type]
        for name, field in model.model_fields.items()
        if not field.description and name != "conditions"
    }
    assert not undescribed


@given(st.integers(min_value=0, max_value=9999 * 3600))
def test_a_duration_keeps_its_seconds(seconds: int) -> None:
    assert duration_seconds(format_duration(seconds)) == seconds


def test_the_status_of_a_full_deployment_stays_below_256_kib() -> None:
    """64 adapters in a rollout with full histories on 32 pods, with names and addresses of a usual length."""
    digest, time = "sha256:" + "0" * 64, "2026-01-01T00:00:00Z"
    version = {
        "version": 100,
        "digest": digest,
        "uri": f"pvc://artifacts/team/sha256/{'0' * 64}",
        "weight": 50,
    }
    look = {"metric": "ErrorRate", "value": "0.0123456", "requests": 10_000, "failures": 1, "verdict": "Pass"}
    names = [f"a-name-of-an-adapter-{index:02}" for index in range(MAX_ADAPTERS)]
    adapter = {
        "phase": "Progressing",
        "reason": "WaitingForRequests",
        "message": "m" * 200,
        "stable": version,
        "candidate": version | {"stepStartTime": time, "analysis": [look]},
        "history": [{"version": 100, "digest": digest, "verdict": "Pass", "time": time}] * MAX_HISTORY,
        "rejected": [{"digest": digest, "reason": "ErrorRateTooHigh", "time": time}] * MAX_REJECTED,
    }
    pod = {"ready": True, "generation": 1000, "loaded": [f"{name}@{'0' * 12}" for name in names]}
    status = AdapterDeploymentStatus.model_validate(
        {
            "adapters": [adapter | {"name": name} for name in names],
            "pods": [pod | {"name": f"assistants-7d9f8b6c5d-{index:05}"} for index in range(MAX_PODS)],
        }
    )
    assert len(json.dumps(status.to_dict())) < 256 * 1024
