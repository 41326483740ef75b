"""Arguments of a chat template: names with values in JSON."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from .rules import Rule

_NAME = "^[A-Za-z_][A-Za-z0-9_]{0,62}$"
_SCALAR = r'^(true|false|-?[0-9]+(\.[0-9]+)?|"[^"\\]*")$'

_NAMED = Rule(
    f"self.all(name, name.matches('{_NAME}') && self[name].size() <= 256)",
    "templateArguments holds names of the chat template's arguments with values in JSON of at most 256 characters, "
    'such as enable_thinking: "false".',
)
_SCALARS = Rule(
    f"self.all(name, self[name].matches(r'{_SCALAR}'))",
    "templateArguments holds true, false, numbers, or strings in two pairs of quotes, such as enable_thinking: "
    '"false" or reasoning_effort: \'"low"\'.',
    lambda written: all(re.search(_SCALAR, value) for value in written.values()),
)

TemplateArguments = Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=16), _NAMED]
#: Arguments with which a model is trained and served: a value of each fits into one word of a request.
TemplateSwitches = Annotated[
    dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=16), _NAMED, _SCALARS
]


def read_switches(written: Mapping[str, str] | None) -> dict[str, Any] | None:
    """Values of switches; None without any."""
    return {name: json.loads(value) for name, value in written.items()} if written else None
