"""Types, limits and rules of a CRD's schema in words."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from .markdown import code, text

Schema = Mapping[str, Any]

#: Of a field within a list, the schema has no default: the operator fills it in.
_STATED_DEFAULT = re.compile(r"\s*Defaults to (?P<default>\[.+\]|[^.\s]+(?:\.\d+)?)\.$")


def type_name(schema: Schema) -> str:
    """The type in words, such as ``list of strings``."""
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema.get("type") == "array":
        return f"list of {_plural(type_name(schema['items']))}"
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping):
        return f"map of {_plural(type_name(values))}"
    return str(schema.get("type", "any"))


def _plural(name: str) -> str:
    return name if " " in name else f"{name}s"


def object_of(schema: Schema) -> Schema | None:
    """The object with named fields that a schema describes: itself or the elements of its list; None for values."""
    if schema.get("type") == "array":
        return object_of(schema["items"])
    return schema if schema.get("properties") else None


def default_of(schema: Schema) -> str:
    """The default as a code span; empty without one."""
    if "default" in schema:
        default = schema["default"]
    elif stated := _STATED_DEFAULT.search(schema.get("description", "")):
        default = _as_written(schema, stated["default"])
    else:
        return ""
    written = yaml.safe_dump(default, default_flow_style=True, width=1000, sort_keys=False)
    return code(written.removesuffix("\n").removesuffix("\n...").strip())


def _as_written(schema: Schema, stated: str) -> Any:
    """A default as its field takes it: "0.02" of a string stays one."""
    return stated if schema.get("type") == "string" else yaml.safe_load(stated)


def describe(schema: Schema) -> str:
    """Description, limits and rules of a field, as one cell of a table."""
    description = _STATED_DEFAULT.sub("", str(schema.get("description", "")))
    parts = [text(description), *limits_of(schema)]
    if object_of(schema) is None:
        parts += [f"Rule: {text(message)}" for message in rules_of(schema)]
    return "<br>".join(part for part in parts if part)


def limits_of(schema: Schema) -> Iterator[str]:
    """Allowed values and limits, a sentence each."""
    if "enum" in schema:
        yield f"Allowed: {', '.join(code(str(value)) for value in schema['enum'])}."
    if interval := _interval(schema, "minimum", "maximum"):
        yield f"Range: {interval}."
    if interval := _interval(schema, "minItems", "maxItems"):
        yield f"Elements: {interval}."
    if "maxProperties" in schema:
        yield f"At most {schema['maxProperties']:,} entries."
    if "maxLength" in schema and "enum" not in schema:
        yield f"At most {schema['maxLength']:,} characters."
    if keys := schema.get("x-kubernetes-list-map-keys"):
        yield f"Unique by {', '.join(code(key) for key in keys)}."
    if schema.get("type") == "array" and object_of(schema) is None:
        yield from (f"Each element: {limit[0].lower()}{limit[1:]}" for limit in limits_of(schema["items"]))


def _interval(schema: Schema, low: str, high: str) -> str:
    match schema.get(low), schema.get(high):
        case None, None:
            return ""
        case least, None:
            return f"{least:,} or more"
        case None, most:
            return f"at most {most:,}"
        case least, most:
            return f"{least:,} to {most:,}"


def rules_of(schema: Schema) -> list[str]:
    """Messages of the API server for broken rules of the schema or of its elements."""
    own = [rule["message"] for rule in schema.get("x-kubernetes-validations", ())]
    inner = schema.get("items") or schema.get("additionalProperties")
    return own + (rules_of(inner) if isinstance(inner, Mapping) else [])
