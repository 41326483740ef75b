"""Table of the chart's values: types from the schema, defaults and descriptions from values.yaml."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from .markdown import code, table, text
from .schema import default_of, limits_of, type_name


def values_page(values_yaml: str, schema: Mapping[str, Any], notice: str) -> str:
    """The page of all values.

    Raises:
        ValueError: a value has no comment in values.yaml.
    """
    comments = read_comments(values_yaml)
    defaults = yaml.safe_load(values_yaml)
    rows = list(_rows((), schema, defaults, comments))
    return (
        "\n\n".join(
            [
                notice,
                "# Chart values",
                "Every value of the chart `helm/tunesmith`, for `--set` or a values file. `helm install` refuses a "
                "value that is not listed here. [Installation](../installation.md) shows the usual ones.",
                table(("value", "type", "default", "description"), rows),
            ]
        )
        + "\n"
    )


def read_comments(values_yaml: str) -> dict[tuple[str, ...], str]:
    """The comment of each key: beside it on the same line, else the comment lines right above it."""
    lines = values_yaml.splitlines()
    root = yaml.compose(values_yaml, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return dict(_comments(root, (), lines))


def _comments(
    node: yaml.MappingNode, path: tuple[str, ...], lines: list[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in node.value:
        own = (*path, key.value)
        line = key.start_mark.line
        end = value.end_mark.column if value.end_mark.line == line else key.end_mark.column
        beside = lines[line][end:].partition("#")[2].strip()
        if comment := beside or _above(lines, line):
            yield own, comment
        if isinstance(value, yaml.MappingNode):
            yield from _comments(value, own, lines)


def _above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        comment.insert(0, lines[line].lstrip().lstrip("#").strip())
    return " ".join(comment)


def _rows(
    path: tuple[str, ...],
    schema: Mapping[str, Any],
    default: Any,
    comments: Mapping[tuple[str, ...], str],
) -> Iterator[tuple[str, str, str, str]]:
    for name, field in schema["properties"].items():
        own = (*path, name)
        if own == ("global",):  # Helm's own; the chart does not read it.
            continue
        if field.get("properties"):
            yield from _rows(own, field, default[name], comments)
            continue
        if own not in comments:
            raise ValueError(f"{'.'.join(own)} has no comment in values.yaml: say what it does")
        limits = (limit for limit in limits_of(field) if "enum" in field)
        description = "<br>".join([text(comments[own]), *limits])
        kind = type_name({"type": "string", **field} if "enum" in field else field)
        yield code(".".join(own)), kind, default_of({"default": default[name]}), description
