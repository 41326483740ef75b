"""Strings with a form: decimal numbers, durations, quantities, storage URIs, names."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from .rules import Rule, matching

_DECIMAL = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"


def _decimal_rule(cel_range: str, inside: Callable[[float], bool], message: str, *words: str) -> Rule:
    """A decimal number in quotes within a range, or one of the words."""
    exempt = "".join(f"self == '{word}' || " for word in words)
    return Rule(
        f"{exempt}(self.matches(r'{_DECIMAL}') && {cel_range})",
        message,
        lambda value: value in words or (re.search(_DECIMAL, value) is not None and inside(float(value))),
    )


_DECIMAL_LENGTH = 16


class _Quoted:
    """A string that people tend to write as a number; whoever does is told to put it in quotes.

    CEL rules are not run on a value of the wrong type, whose error has no sentence of ours. The one error
    that carries free text is that of an enum, so the schema has an enum whose only value is the sentence.
    Every string in bounds takes the other branch of the ``anyOf``; of a number, ``minLength`` says nothing,
    so its negation is false.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._refuse_number, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        sentence = "a decimal number in quotes, such as '2e-4'"
        return handler(schema) | {
            "anyOf": [{"enum": [sentence]}, {"not": {"minLength": _DECIMAL_LENGTH + 1}}]
        }

    @staticmethod
    def _refuse_number(value: object) -> object:
        if isinstance(value, int | float):
            raise ValueError(f"{value!r} must be a decimal number in quotes, such as '2e-4'")
        return value


_DecimalText = Annotated[str, Field(max_length=_DECIMAL_LENGTH), _Quoted()]

DecimalString = Annotated[
    _DecimalText,
    _decimal_rule(
        "double(self) >= 0.0",
        lambda x: x >= 0,
        'Write a decimal number of 0 or more in quotes, such as "0.01".',
    ),
]
"""A decimal number of 0 or more, in quotes."""

Fraction = Annotated[
    _DecimalText,
    _decimal_rule(
        "double(self) >= 0.0 && double(self) < 1.0",
        lambda x: 0 <= x < 1,
        'Write a decimal number from 0 up to, but not including, 1 in quotes, such as "0.1".',
    ),
]
"""A decimal number in [0, 1), in quotes."""

Confidence = Annotated[
    _DecimalText,
    _decimal_rule(
        "double(self) >= 0.5 && double(self) < 1.0",
        lambda x: 0.5 <= x < 1,
        'Write a confidence level from 0.5 up to, but not including, 1 in quotes, such as "0.95".',
    ),
]
"""A confidence level in [0.5, 1), in quotes."""

LearningRate = Annotated[
    _DecimalText,
    _decimal_rule(
        "double(self) > 0.0 && double(self) <= 1.0",
        lambda x: 0 < x <= 1,
        'Write Auto, or a decimal number above 0 and up to 1 in quotes, such as "2e-4".',
        "Auto",
    ),
]
"""``Auto``, or a decimal number in (0, 1], in quotes."""

Measured = Annotated[str, Field(max_length=24)]
"""A measured number in status: a decimal string, minus sign and exponent allowed."""

_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600}

Duration = Annotated[
    str,
    Field(max_length=16),
    matching(
        r"^([0-9]{1,4}h)?([0-9]{1,4}m)?([0-9]{1,4}s)?$",
        "Write a duration in hours, minutes and seconds, such as 30s, 5m or 1h30m.",
    ),
    Rule("self != ''", "Write a duration such as 30s, 5m or 1h30m.", lambda value: value != ""),
]
"""A length of time such as ``30s``, ``5m`` or ``1h30m``."""


def duration_seconds(duration: str) -> int:
    """The seconds of a Duration."""
    return sum(int(n) * _DURATION_UNITS[unit] for n, unit in re.findall(r"([0-9]+)([hms])", duration))


def format_duration(seconds: float) -> str:
    """A Duration, rounded to whole seconds: ``1h30m``, ``0s``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    parts = (f"{hour}h" if hour else "", f"{minute}m" if minute else "", f"{second}s" if second else "")
    return "".join(parts) or "0s"


_QUANTITY = r"^([0-9]+(\.[0-9]+)?)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"


def _verify_quantity(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.search(_QUANTITY, text):
        raise ValueError(f"{value!r} is not a quantity: write one such as 500m, 2 or 16Gi")
    return text


Quantity = Annotated[
    str,
    BeforeValidator(_verify_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, "pattern": _QUANTITY}),
]
"""An amount of a resource such as ``500m``, ``2`` or ``16Gi``; a whole number needs no quotes."""

_CLAIM = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_PATH = r"[-A-Za-z0-9_.]+(/[-A-Za-z0-9_.]+)*"
_REPO = r"[A-Za-z0-9][-A-Za-z0-9_.]*/[A-Za-z0-9][-A-Za-z0-9_.]*"
_REVISION = r"(@[-A-Za-z0-9_./]+)?"
_PVC_FILE = rf"pvc://{_CLAIM}/{_PATH}/?"
_PVC_FOLDER = rf"pvc://{_CLAIM}(/{_PATH})?/?"
_CONFIGMAP = rf"configmap://{_CLAIM}/[-._a-zA-Z0-9]+"

_NO_PARENT = Rule(
    "!self.contains('..')",
    "Write a path without '..': it may not leave its volume.",
    lambda uri: ".." not in uri,
)

ModelUri = Annotated[
    str,
    Field(max_length=512),
    matching(
        rf"^({_PVC_FILE}|hf://{_REPO}{_REVISION})$",
        "Write where the model lies: pvc://claim/path or hf://org/repo@revision.",
    ),
    _NO_PARENT,
]
"""Where a model lies."""

DataUri = Annotated[
    str,
    Field(max_length=512),
    matching(
        rf"^({_PVC_FILE}|{_CONFIGMAP}|hf://{_REPO}(/{_PATH})?{_REVISION})$",
        "Write where the rows lie: pvc://claim/file.jsonl, configmap://name/key or "
        "hf://org/repo/file@revision.",
    ),
    _NO_PARENT,
]
"""Where rows of data lie."""

OutputUri = Annotated[
    str,
    Field(max_length=512),
    matching(rf"^{_PVC_FOLDER}$", "Write a claim that pods may write to: pvc://claim or pvc://claim/folder."),
    _NO_PARENT,
]
"""Where what is made is kept."""

ArtifactUri = Annotated[
    str,
    Field(max_length=512),
    matching(
        rf"^{_PVC_FILE}$", "Write where the artefact lies, as in its status: pvc://claim/folder/sha256/…"
    ),
    _NO_PARENT,
]
"""Where an artefact lies."""

DigestString = Annotated[
    str,
    Field(max_length=71),
    matching(r"^sha256:[0-9a-f]{64}$", "Write the digest as it stands in status: sha256: and 64 hex digits."),
]
"""``sha256:`` and 64 hex digits."""

ObjectName = Annotated[
    str,
    Field(max_length=253),
    matching(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "Write the name of an object in this namespace."),
]
"""The name of a Kubernetes object."""

ItemName = Annotated[
    str,
    Field(max_length=32),
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "Write a name of lower-case letters, digits and dashes, at most 32 characters.",
    ),
]
"""The name of an item within the resource."""

Image = Annotated[str, Field(min_length=1, max_length=512)]
"""A container image."""

LabelValue = Annotated[str, Field(max_length=63)]
"""The value of a label."""

ClassName = Annotated[str, Field(max_length=253)]
"""The name of a cluster-wide or namespaced object that pods name."""

Timestamp = datetime
"""A time in UTC."""
