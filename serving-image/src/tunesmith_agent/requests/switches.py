"""Switches of the chat template: a version answers with those that it was trained and evaluated with."""

import re
from collections.abc import Mapping
from typing import Any

from tunesmith_contract.answer_formats import MAX_SWITCHES, Switch

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_LONGEST_VALUE = 256
#: Variables of templates that the engine sets itself.
_RESERVED = frozenset(
    {
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "messages",
        "return_dict", "tokenize", "tools",
    }
)  # fmt: skip
_EFFORT = "reasoning_effort"


def check_switches(value: Any) -> str:
    """Check ``chat_template_kwargs``: a few switches, each a plain value."""
    if type(value) is not dict or len(value) > MAX_SWITCHES:
        return f"must be an object of at most {MAX_SWITCHES} members"
    for name, switch in value.items():
        if not _NAME.fullmatch(name) or name in _RESERVED:
            return f"can't set {name[:64]!r}: it holds switches of the chat template, such as enable_thinking"
        if type(switch) not in {bool, int, float, str} or len(str(switch)) > _LONGEST_VALUE:
            return f"must have true, false, a number or a short text for {name}"
    return ""


def apply_switches(body: dict[str, Any], field: str, own: Mapping[str, Switch]) -> list[str]:
    """Let a version's own switches answer, whatever the client asks for.

    Args:
        body: the request, which is changed.
        field: the field with switches.
        own: switches that the version was trained with.

    Returns:
        Names of what the client asked for otherwise, and what is left out.
    """
    asked = body.pop(field, None) or {}
    ignored = [f"{field}.{name}" for name, value in asked.items() if not _is_own(own, name, value)]
    if own:
        body[field] = dict(own)
    # The engine derives a switch from the effort, which would win over the template's default.
    if (effort := body.get(_EFFORT)) is not None and not _is_own(own, _EFFORT, effort):
        del body[_EFFORT]
        ignored.append(_EFFORT)
    reasoning = body.get("reasoning")
    if type(reasoning) is dict and not _is_own(own, _EFFORT, reasoning.get("effort")):
        if reasoning.get("effort") is not None:
            ignored.append("reasoning.effort")
        body["reasoning"] = {name: value for name, value in reasoning.items() if name != "effort"}
    return ignored


def _is_own(own: Mapping[str, Switch], name: str, value: Any) -> bool:
    return name in own and type(own[name]) is type(value) and own[name] == value
