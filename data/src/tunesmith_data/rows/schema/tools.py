"""Schemas of the tools that a row's assistant may call."""

from typing import Any

from tunesmith_data.rows.parsing.strict_json import load_text

from .formats import Row


def read_tools(value: Any) -> list[Row] | None:
    """Tools as a list of schemas, which tables and ShareGPT hold as JSON text; None if they are none.

    A bare function is put into the form that templates know: ``{"type": "function", "function": …}``.
    """
    tools = load_text(value or "[]") if isinstance(value, str) else value
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return None
    return [_as_function(tool) for tool in tools]


def _as_function(tool: Row) -> Row:
    bare = "function" not in tool and "type" not in tool and "name" in tool
    return {"type": "function", "function": tool} if bare else tool
