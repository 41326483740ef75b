"""Members of rows that are kept beside the canonical form, which leaves them out."""

import json
from collections.abc import Sequence
from typing import Any

from tunesmith_data.rows.findings import Problem, quote
from tunesmith_data.rows.schema.formats import Row


def keep_members(row: Row, paths: Sequence[str]) -> tuple[dict[str, str], list[Problem]]:
    """The values at dotted paths, as text, and what is wrong with others: a row has to have each."""
    values = {path: _find(row, path) for path in paths}
    problems = [_problem(row, path, value) for path, value in values.items() if not _is_kept(value)]
    kept = {path: value if isinstance(value, str) else json.dumps(value) for path, value in values.items()}
    return kept, problems


def _find(row: Row, path: str) -> Any:
    """A member whose name is the whole path, else what the path leads to; None if there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_kept(value: object) -> bool:
    return isinstance(value, str | bool | int | float) and value != ""


def _problem(row: Row, path: str, value: object) -> Problem:
    found = f"keys {quote(sorted(row))}" if value is None else quote(value)
    return Problem(
        "missing_field", found, f'write "{path}" as text or a number in each row: the split goes by it', path
    )
