"""The generated CustomResourceDefinitions: current, structural, and with the models' defaults."""

import re
from pathlib import Path
from typing import Any

import pytest
from custom_resources.schema_nodes import walk

from tunesmith.api import KINDS, AdapterDeployment, EvalRun, FineTuneJob, Resource
from tunesmith.api.admission import limited_fields
from tunesmith.api.crd import build_crd, build_schema
from tunesmith.crdgen import render_checks, render_crd

CRDS = Path(__file__).parents[2] / "crds"

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)


@kinds
def test_the_file_is_current(kind: type[Resource]) -> None:
    assert (CRDS / f"{kind.plural}.yaml").read_text() == render_crd(kind), "run `make crds`"


def test_the_checks_of_admission_policies_are_current() -> None:
    file = CRDS.parent / "helm" / "tunesmith" / "files" / "admission-checks.yaml"
    assert file.read_text() == render_checks(), "run `make crds`"


#: URIs that no list of admitted values limits: data, artifacts, answers, and places to write to.
UNLIMITED = (
    *("train.uri", "train.uris[]", "validation.uri", "prompts.uri", "rows.uri", "seeds.uri", "dataset.uri"),
    *("fewShotFrom.uri", "answers.uri", "output.uri", "workspace.uri", "source.uri"),
    *("baseline.uri", "candidate.uri", "references[].uri"),
)


@kinds
def test_each_image_endpoint_and_location_is_limited_or_known_not_to_be(kind: type[Resource]) -> None:
    schema = build_schema(kind)
    limited = {path for path, _ in limited_fields(schema)}
    for path, node in walk(schema["properties"]["spec"], "spec"):
        name = path.removesuffix("[]").rpartition(".")[2].lower()
        if node.get("type") == "string" and name.endswith(("image", "url", "uri", "uris", "endpoint")):
            assert path in limited or path.endswith(UNLIMITED), (
                f"{path}: add it to api/admission.py or to UNLIMITED"
            )


def test_there_is_no_other_file() -> None:
    assert {file.stem for file in CRDS.glob("*.yaml")} == {kind.plural for kind in KINDS}


@kinds
def test_every_node_is_structural_described_and_bounded(kind: type[Resource]) -> None:
    for path, node in walk(build_schema(kind)):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "title", "oneOf", "const"} & node.keys(), path
        if path and not path.endswith("[]") and path != ".metadata":
            assert node["description"], path
        if not path.startswith(".spec"):
            continue
        if node.get("type") == "string":
            assert "enum" in node or "maxLength" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


@kinds
def test_optional_members_have_the_models_defaults(kind: type[Resource]) -> None:
    """What the API server fills in for an absent member is what the model would take."""
    for path, node in walk(build_schema(kind)):
        if path.startswith(".spec") and "default" in node and node.get("type") == "object":
            explicit = {
                name: member["default"] for name, member in node["properties"].items() if "default" in member
            }
            assert node["default"] | explicit == node["default"], path


@kinds
def test_a_member_without_a_default_is_absent_by_default(kind: type[Resource]) -> None:
    schema = build_schema(kind)
    for path, node in walk(schema):
        for name in node.get("required", ()):
            assert "default" not in node["properties"][name], f"{path}.{name}"


@kinds
def test_no_item_of_a_list_gets_a_default_from_the_api_server(kind: type[Resource]) -> None:
    """Client-side apply replaces a list whole where an item has more than the file, and says so each time."""
    written = [path for path, node in walk(build_schema(kind)) if "[]" in path and "default" in node]
    assert written == []


@pytest.mark.parametrize(
    ("kind", "field", "stated"),
    [
        (FineTuneJob, ".spec.method.grpo.rewards[].length.minTokens", "Defaults to 0."),
        (EvalRun, ".spec.suites[].maxNewTokens", "Defaults to 256."),
        (EvalRun, ".spec.gates[].tier", "Defaults to Blocking."),
        (AdapterDeployment, ".spec.adapters[].requireEvalRun.verdict", "Defaults to Pass."),
        (
            AdapterDeployment,
            ".spec.adapters[].rollout.steps",
            'Defaults to [{"weight": 10, "pause": "1m"}, {"weight": 100}].',
        ),
    ],
)
def test_the_operators_defaults_of_items_are_in_the_descriptions(
    kind: type[Resource], field: str, stated: str
) -> None:
    nodes = dict(walk(build_schema(kind)))
    assert nodes[field]["description"].endswith(stated)


def test_printer_columns_of_a_job() -> None:
    (version,) = build_crd(KINDS[0])["spec"]["versions"]
    columns = [(column["name"], column.get("priority", 0)) for column in version["additionalPrinterColumns"]]
    narrow = [name for name, priority in columns if priority == 0]
    assert narrow == ["Phase", "Progress", "Loss", "ETA", "Age"]
    assert [name for name, priority in columns if priority] == ["Method", "Trials", "Model", "Artifact"]


#: Words of British spelling, and fragments that leave a reader without a verb.
UNCLEAR = re.compile(r"artefact|Absent:|\b(quantis|optimis|normalis)", re.IGNORECASE)


@kinds
def test_descriptions_are_sentences(kind: type[Resource]) -> None:
    for path, node in walk(build_schema(kind)):
        description = node.get("description", "")
        if not description:
            continue
        assert re.match(r"[A-Z]", description), f"{path}: {description}"
        assert description.rstrip().endswith("."), f"{path}: {description}"
        assert not UNCLEAR.search(description), f"{path}: {description}"


@kinds
def test_messages_are_sentences(kind: type[Resource]) -> None:
    for path, node in walk(build_schema(kind)):
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["message"].rstrip("…").endswith("."), f"{path}: {rule['message']}"
            assert not UNCLEAR.search(rule["message"]), f"{path}: {rule['message']}"


def resolves(node: dict[str, Any], members: list[str]) -> bool:
    """The node has this path of members; methods of values end it."""
    for name in members:
        node = node.get("items", node)
        if name not in node.get("properties", {}):
            return not node.get("properties")
        node = node["properties"][name]
    return True


METHODS = frozenset(
    {"matches", "all", "exists", "exists_one", "map", "filter", "size", "startsWith", "contains", "split"}
)


@kinds
def test_rules_name_fields_that_exist(kind: type[Resource]) -> None:
    """A CEL rule on a member that was renamed would be refused by the API server when the CRD is applied."""
    schema = build_schema(kind)
    schema["properties"]["metadata"]["properties"] = {"name": {"type": "string"}}
    for path, node in walk(schema):
        for rule in node.get("x-kubernetes-validations", ()):
            for written in re.findall(r"\b(?:self|oldSelf)((?:\.[A-Za-z]+)+)", rule["rule"]):
                members = written.lstrip(".").split(".")
                while members and members[-1] in METHODS:
                    members.pop()
                assert resolves(node, members), f"{path}: {written} in {rule['rule']}"
            assert (
                resolves(node, rule.get("fieldPath", "").lstrip(".").split(".")) or "fieldPath" not in rule
            ), path
            assert rule["rule"].count("(") == rule["rule"].count(")"), path
