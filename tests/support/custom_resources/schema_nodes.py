"""Nodes of a structural schema."""

from collections.abc import Iterator
from typing import Any


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a structural schema with its path."""
    yield path, schema
    for name, member in schema.get("properties", {}).items():
        yield from walk(member, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]")
