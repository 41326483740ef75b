"""A reader of documents by a frozen JSON schema, as pydantic writes it: refuses what the models of then refused."""

from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


class SchemaReader:
    """Reader by one schema.

    Args:
        schema: the root, with ``$defs``.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def mistakes(self, document: Any) -> list[str]:
        """What the reader refuses: unknown and missing members, other types and values."""
        return self._check(document, self._schema, "$")

    def defaults(self) -> dict[str, Any]:
        """Default of each member that has one, by ``Model.member``."""
        return {
            f"{model}.{member}": schema["default"]
            for model, definition in self._schema["$defs"].items()
            for member, schema in definition.get("properties", {}).items()
            if "default" in schema
        }

    def required(self) -> dict[str, frozenset[str]]:
        """Members that each model requires."""
        definitions = self._schema["$defs"].items()
        return {model: frozenset(definition.get("required", ())) for model, definition in definitions}

    def _check(self, value: Any, schema: Schema, path: str) -> list[str]:
        if "$ref" in schema:
            return self._check(value, self._schema["$defs"][schema["$ref"].rpartition("/")[2]], path)
        for choices in filter(None, (schema.get("anyOf"), schema.get("oneOf"))):
            found = [self._check(value, choice, path) for choice in choices]
            return min(found, key=len)
        if value not in schema.get("enum", [value]) or value != schema.get("const", value):
            return [f"{path}: {value!r} is not allowed"]
        kind = schema.get("type")
        if kind is not None and not isinstance(value, _TYPES[kind]):
            return [f"{path}: {value!r} is no {kind}"]
        if isinstance(value, dict):
            return self._check_members(value, schema, path)
        return self._check_items(value, schema, path) if isinstance(value, list) else []

    def _check_members(self, value: Mapping[str, Any], schema: Schema, path: str) -> list[str]:
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        mistakes = [f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, member in value.items():
            if name in known:
                mistakes += self._check(member, known[name], f"{path}.{name}")
            elif others is False:
                mistakes.append(f"{path}.{name} is unknown")
            elif isinstance(others, dict):
                mistakes += self._check(member, others, f"{path}.{name}")
        return mistakes

    def _check_items(self, value: Sequence[Any], schema: Schema, path: str) -> list[str]:
        first = schema.get("prefixItems", ())
        mistakes = []
        for index, item in enumerate(value):
            of_item = first[index] if index < len(first) else schema.get("items", {})
            mistakes += self._check(item, of_item, f"{path}[{index}]")
        return mistakes
