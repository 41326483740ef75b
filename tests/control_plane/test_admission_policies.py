"""The chart's admission policies on a real API server: what they refuse, what they admit, and what was there before."""

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from custom_resources.limited_manifests import manifest_with
from custom_resources.manifest_cases import load_good, merge
from yaml_text import read_all_yaml

from tunesmith.api import KINDS
from tunesmith.api.admission import Limit, build_checks
from tunesmith_cluster.api import ApiError
from tunesmith_cluster.binaries import program
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

CHART = Path(__file__).parents[2] / "helm" / "tunesmith"
PLURALS = {kind.kind_name: kind.plural for kind in KINDS}
CHECKS = [
    (plural, number, check)
    for plural, checks in build_checks().items()
    for number, check in enumerate(checks)
]
#: Admits nothing that a manifest of the tests holds.
CLOSED: dict[str, Any] = {
    "baseModels": ["hf://admitted/*", "pvc://admitted/*"],
    "images": ["admitted.example.com/*"],
    "endpoints": ["https://admitted.example.com/*"],
    "methods": [],
    "gpuHours": "0.5",
}
TEAM = {
    "name": "team-a",
    "namespaceSelector": {"matchLabels": {"team": "a"}},
    "allow": {
        "baseModels": ["hf://HuggingFaceTB/*", "pvc://models/base"],
        "images": ["registry.example.com/team-a/*"],
        "endpoints": ["https://llm.example.com/*"],
        "methods": ["sft"],
        "gpuHours": "10",
    },
}


def render(folder: Path, *policies: dict[str, Any]) -> list[dict[str, Any]]:
    """The chart's admission policies and their bindings."""
    values = folder / "values.yaml"
    values.write_text(json.dumps({"admissionPolicies": policies}))
    command = [
        program("helm"),
        "template",
        "tunesmith",
        str(CHART),
        "--kube-version=1.35.0",
        f"--values={values}",
    ]
    command.append("--show-only=templates/admissionpolicies.yaml")
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return read_all_yaml(text)


def create(server: ControlPlane, body: dict[str, Any], namespace: str, query: str = "") -> dict[str, Any]:
    """Create the resource."""
    path = f"/apis/{body['apiVersion']}/namespaces/{namespace}/{PLURALS[body['kind']]}?fieldValidation=Strict"
    return server.api.create(path + query, body)


def denial(server: ControlPlane, body: dict[str, Any], namespace: str) -> str | None:
    """What a person reads when the resource is not admitted; None when it is."""
    try:
        create(server, body, namespace, "&dryRun=All")
    except ApiError as error:
        return error.message
    return None


@pytest.fixture(scope="module")
def split(server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace where each check is a policy of its own, for resources with the check's label."""
    [*bodies] = render(tmp_path_factory.mktemp("chart"), {"name": "closed", "allow": CLOSED})
    policies = [body for body in bodies if body["kind"] == "ValidatingAdmissionPolicy"]
    made: list[dict[str, Any]] = []
    for policy in policies:
        plural = policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"][0]
        for number, validation in enumerate(policy["spec"]["validations"]):
            made += _policy_of_one_check(policy, f"{plural}-{number}", validation)
    server.apply(made)
    yield server.namespace("admission")
    server.kubectl(
        "delete",
        "--wait=false",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}),
    )


def _policy_of_one_check(
    policy: dict[str, Any], name: str, validation: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    selector = {"objectSelector": {"matchLabels": {"check": name}}}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": selector}
    head = {"apiVersion": policy["apiVersion"], "metadata": {"name": name}}
    return (
        head | {"kind": policy["kind"], "spec": policy["spec"] | {"validations": [validation]}},
        head | {"kind": f"{policy['kind']}Binding", "spec": binding},
    )


@pytest.mark.parametrize(
    ("plural", "number", "check"), CHECKS, ids=[f"{plural}-{c['field']}" for plural, _, c in CHECKS]
)
def test_each_limited_field_is_refused(
    server: ControlPlane, split: str, plural: str, number: int, check: dict[str, str]
) -> None:
    body = merge(
        manifest_with(plural, check["field"]), {"metadata": {"labels": {"check": f"{plural}-{number}"}}}
    )
    body["metadata"].pop("namespace", None)
    message = eventually(lambda: denial(server, body, split), what=f"the policy of {check['field']}")
    assert check["field"] in message
    assert f"is not admitted in this namespace by the policy closed ({check['limit']})" in message


def test_the_checks_fit_the_schemas_of_the_kinds(server: ControlPlane, tmp_path: Path) -> None:
    """The API server compares each expression with the CRDs and writes down what does not fit."""
    bodies = render(
        tmp_path, {"name": "typed", "namespaceSelector": {"matchLabels": {"team": "none"}}, "allow": CLOSED}
    )
    server.apply(bodies)
    names = [body["metadata"]["name"] for body in bodies if body["kind"] == "ValidatingAdmissionPolicy"]
    assert len(names) == len(KINDS)
    for name in names:
        path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}"
        status = eventually(partial(_status, server, path), what=f"the check of {name}")
        assert not status.get("typeChecking", {}).get("expressionWarnings")


def _status(server: ControlPlane, path: str) -> dict[str, Any] | None:
    return server.api.get(path).get("status")


@pytest.fixture(scope="module")
def team(server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace of team A, with a job from before the policy."""
    namespace = server.namespace("admission")
    create(server, load_good("finetunejob-minimal"), namespace)
    bodies = render(tmp_path_factory.mktemp("chart"), TEAM)
    server.kubectl("label", "namespace", namespace, "team=a")
    server.apply(bodies)
    unadmitted = job({"method": {"sft": None, "dpo": {}}, "dataset": {"format": None}})
    eventually(lambda: denial(server, unadmitted, namespace), what="the policies of team A")
    yield namespace
    server.kubectl(
        "delete",
        "--wait=false",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}),
    )


def job(patch: dict[str, Any]) -> dict[str, Any]:
    """A job that team A's policy admits, with a change."""
    admitted = {
        "baseModel": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct@main"},
        "budget": {"gpuHours": "10"},
        "compute": {"image": "registry.example.com/team-a/trainer:1"},
    }
    body = merge(load_good("finetunejob-minimal"), {"metadata": {"name": "new"}, "spec": admitted})
    return {**merge(body, {"spec": patch})}


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({}, None),
        ({"compute": {"image": None}}, None),
        ({"compute": {"gpusPerNode": 0}, "budget": None}, None),
        ({"baseModel": {"uri": "pvc://models/base"}}, None),
        (
            {"baseModel": {"uri": "pvc://models/base2"}},
            "spec.baseModel.uri: pvc://models/base2 is not admitted",
        ),
        (
            {"baseModel": {"uri": "hf://HuggingFaceTB-mirror/model"}},
            "Admitted: hf://HuggingFaceTB/*, pvc://models/base.",
        ),
        ({"budget": None}, "spec.budget.gpuHours is not admitted"),
        ({"budget": {"gpuHours": "1e1"}}, None),
        ({"budget": {"gpuHours": "10.5"}}, "Admitted: at most 10 GPU hours, and no absent value."),
        ({"compute": {"image": "registry.example.com/team-b/trainer:1"}}, "spec.compute.image"),
        ({"method": {"sft": None, "pretraining": {}}}, "spec.method.pretraining is not admitted"),
    ],
)
def test_what_a_team_may_ask_for(
    server: ControlPlane, team: str, patch: dict[str, Any], message: str | None
) -> None:
    answer = denial(server, job(patch), team)
    assert answer is None if message is None else message in (answer or "")


def test_what_was_there_before_the_policy_can_still_be_changed(server: ControlPlane, team: str) -> None:
    path = f"/apis/tunesmith.dev/v1alpha1/namespaces/{team}/finetunejobs/minimal"
    assert server.api.merge(path, {"spec": {"suspend": True}})["spec"]["suspend"]
    assert denial(server, load_good("finetunejob-minimal") | {"metadata": {"name": "again"}}, team)


def test_other_namespaces_are_not_concerned(server: ControlPlane, team: str) -> None:
    assert denial(server, load_good("finetunejob-full"), server.namespace("admission")) is None


def test_every_limit_has_a_check() -> None:
    assert {check["limit"] for _, _, check in CHECKS} == set(Limit)
