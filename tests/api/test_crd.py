"""The generated CustomResourceDefinitions: current, structural, and with the models' defaults."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.api import KINDS, Resource
from tunesmith.api.crd import build_crd, build_schema
from tunesmith.crdgen import render_crd

CRDS = Path(__file__).parents[2] / "crds"

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a structural schema with its path."""
    yield path, schema
    for name, member in schema.get("properties", {}).items():
        yield from walk(member, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]")


@kinds
def test_the_file_is_current(kind: type[Resource]) -> None:
    assert (CRDS / f"{kind.plural}.yaml").read_text() == render_crd(kind), "run `make crds`"


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


def test_printer_columns_of_a_job() -> None:
    (version,) = build_crd(KINDS[0])["spec"]["versions"]
    columns = [(column["name"], column.get("priority", 0)) for column in version["additionalPrinterColumns"]]
    narrow = [name for name, priority in columns if priority == 0]
    assert narrow == ["Phase", "Progress", "Loss", "ETA", "Age"]
    assert [name for name, priority in columns if priority] == ["Method", "Model", "Artifact"]
