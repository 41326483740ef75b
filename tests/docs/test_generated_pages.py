"""Generated pages: up to date, complete, and readable in their details."""

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith import api, decide
from tunesmith_docs.chart_values import read_comments, values_page
from tunesmith_docs.crd_reference import reference_page
from tunesmith_docs.pages import ROOT, render_pages
from tunesmith_docs.troubleshooting import described_reasons, operator_reasons, pod_reasons

RENDERED = render_pages()
SOURCES = sorted(folder for folder in ROOT.glob("*/src") if folder.is_dir())


@pytest.mark.parametrize("path", RENDERED, ids=str)
def test_page_is_up_to_date(path: Path) -> None:
    assert (ROOT / path).read_text() == RENDERED[path], "run `make docs`"


def test_reference_has_no_page_that_nothing_generates() -> None:
    assert {path.relative_to(ROOT) for path in (ROOT / "docs/reference").iterdir()} == {
        path for path in RENDERED if path.parent.name == "reference"
    }


def test_each_reason_of_the_operator_is_described() -> None:
    assert set(operator_reasons([api, decide])) - described_reasons() == set()


def test_each_reason_of_pods_and_agents_is_described() -> None:
    assert pod_reasons(SOURCES) - described_reasons() == set()


def test_no_reason_is_described_that_the_code_does_not_have() -> None:
    literals = {
        node.value
        for folder in SOURCES
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert described_reasons() - literals == set()


def test_reasons_are_found_in_calls_failures_and_tables(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        'raise UserError("Called", "write another")\n'
        'failure = Failure(category=other, reason="Given", message="")\n'
        'pair = FailureCategory.USER_ERROR, "Listed"\n'
        'raise ValueError("NotAReason", "text")\n'
        "raise UserError(reason, message)\n"
    )
    assert pod_reasons([tmp_path]) == {"Called", "Given", "Listed"}


def crd(**fields: Any) -> dict[str, Any]:
    """A CustomResourceDefinition whose spec has these fields."""
    spec = {"type": "object", "properties": fields, "required": ["size"]}
    status = {"type": "object", "properties": {"phase": {"type": "string"}}}
    root = {"type": "object", "description": "A thing.", "properties": {"spec": spec, "status": status}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": root}, "additionalPrinterColumns": []}
    names = {"kind": "Thing", "singular": "thing", "shortNames": ["th"]}
    return {"spec": {"group": "example.dev", "names": names, "versions": [version]}}


def row(page: str, field: str) -> str:
    """The line of a field."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"| `{field}` "))
    return line


def test_field_shows_type_default_limits_and_rules() -> None:
    size = {
        "type": "integer",
        "description": "How large | <small>.",
        "minimum": 1,
        "maximum": 2000,
        "x-kubernetes-validations": [{"rule": "self > 0", "message": "Write a size."}],
    }
    mode = {
        "type": "string",
        "enum": ["A", "B"],
        "default": "A",
        "description": "How it works. Defaults to A.",
    }
    page = reference_page(crd(size=size, mode=mode), "")
    assert row(page, "size") == (
        "| `size` | integer | **required** | How large \\| \\<small\\>.<br>Range: 1 to 2,000.<br>Rule: Write a size. |"
    )
    assert row(page, "mode") == "| `mode` | string | `A` | How it works.<br>Allowed: `A`, `B`. |"


def test_objects_and_lists_of_objects_have_sections_with_their_rules() -> None:
    inner = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "has(self.name)", "message": "Write a name."}],
    }
    page = reference_page(crd(size={"type": "array", "items": inner, "maxItems": 3}), "")
    assert "| [`size`](#specsize) | list of objects | **required** | Elements: at most 3. |" in page
    section = page.partition("### `spec.size[]`")[2]
    assert "- Write a name." in section
    assert "| `name` | string |" in section


def test_comments_are_read_beside_and_above_a_value() -> None:
    text = "# Above,\n# in two lines.\na: 1\nb:\n  c: '#x'  # beside\n  d: []\n"
    assert read_comments(text) == {("a",): "Above, in two lines.", ("b", "c"): "beside"}


def test_value_without_a_comment_is_refused() -> None:
    schema = {"properties": {"a": {"type": "integer"}}}
    with pytest.raises(ValueError, match="a has no comment"):
        values_page("a: 1\n", schema, "")


def test_values_are_those_of_the_chart() -> None:
    defaults = yaml.safe_load((ROOT / "helm/tunesmith/values.yaml").read_text())
    page = (ROOT / "docs/reference/chart-values.md").read_text()
    for name, value in defaults.items():
        assert f"| `{name}` " in page or all(f"| `{name}.{key}" in page for key in value)
