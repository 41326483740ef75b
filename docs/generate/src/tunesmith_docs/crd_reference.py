"""Field reference of one kind, from its CustomResourceDefinition."""

from collections.abc import Iterator, Mapping
from typing import Any

from .markdown import anchor, code, table, text
from .schema import Schema, default_of, describe, object_of, rules_of, type_name

_HEADER = ("field", "type", "default", "description")


def reference_page(crd: Mapping[str, Any], notice: str) -> str:
    """The page of a kind: how to list it, its columns, and a section for each object of spec and status."""
    names = crd["spec"]["names"]
    version = crd["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    parts = [
        notice,
        f"# {names['kind']} fields",
        text(root["description"]),
        _usage(crd["spec"]["group"], version["name"], names),
        "## Columns of `kubectl get`",
        _columns(version["additionalPrinterColumns"]),
    ]
    for name in ("spec", "status"):
        parts += _sections(name, root["properties"][name], level=2)
    return "\n\n".join(parts) + "\n"


def _usage(group: str, version: str, names: Mapping[str, Any]) -> str:
    (short,) = names["shortNames"]
    return (
        f"`apiVersion: {group}/{version}`, `kind: {names['kind']}`, namespaced. Short name: `kubectl get {short}`. "
        f"The same text on the command line: `kubectl explain {names['singular']}.spec --recursive`.\n\n"
        "The description of a field ends with its limits and rules. A rule is the message with which the API server "
        "refuses a manifest that breaks it."
    )


def _columns(columns: list[Mapping[str, Any]]) -> str:
    rows = (
        (column["name"], code(column["jsonPath"]), "only with `-o wide`" if column.get("priority") else "")
        for column in columns
    )
    return table(("column", "from", ""), rows)


def _sections(path: str, schema: Schema, level: int) -> Iterator[str]:
    """The section of an object, then those of the objects in it."""
    fields = object_of(schema)
    assert fields is not None
    yield f"{'#' * level} {code(path)}"
    if description := schema.get("description"):
        yield text(description)
    if rules := rules_of(schema):
        yield "Rules:"
        yield "\n".join(f"- {text(rule)}" for rule in rules)
    yield table(_HEADER, _rows(path, fields))
    for name, field in fields["properties"].items():
        if object_of(field) is not None:
            yield from _sections(_path(path, name, field), field, level=3)


def _rows(path: str, fields: Schema) -> Iterator[tuple[str, str, str, str]]:
    required = fields.get("required", ())
    for name, field in fields["properties"].items():
        shown = code(name)
        if object_of(field) is not None:
            shown = f"[{shown}](#{anchor(_path(path, name, field))})"
        default = "**required**" if name in required else default_of(field)
        yield shown, type_name(field), default, describe(field)


def _path(path: str, name: str, field: Schema) -> str:
    return f"{path}.{name}" + ("[]" if field.get("type") == "array" else "")
