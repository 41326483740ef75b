"""Strings with a form: decimal numbers, durations, quantities, storage URIs, names."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from .rules import Rule, matching, with_rules

#: Written where Tunesmith is to choose the value.
AUTO = "Auto"

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


def _or_sentence(sentence: str, valid: dict[str, Any], **vacuous: Any) -> dict[str, Any]:
    """Schema extension that answers a value of the wrong type with a sentence.

    CEL rules are not run on such a value, and the API server's own error only names the type. The one error
    that carries free text is that of an enum, so the schema has an enum whose only value is the sentence.

    Args:
        sentence: what people read behind "supported values".
        valid: the branch that every value of a right type takes, and no other value.
        vacuous: what the enum's branch checks with success, so that it checks as much as the other: of two
            failed branches the API server tells the one that checked more, or the first.
    """
    return {"anyOf": [{"enum": [sentence], **vacuous}, valid]}


@dataclass(frozen=True, slots=True)
class _Quoted:
    """A string that people tend to write as a number; whoever does is told what to put in quotes."""

    sentence: str
    max_length: int = _DECIMAL_LENGTH

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._refuse_number, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # Of a number, minLength says nothing, so its negation is false.
        too_long = {"minLength": self.max_length + 1}
        return handler(schema) | _or_sentence(self.sentence, {"not": too_long})

    def _refuse_number(self, value: object) -> object:
        if isinstance(value, int | float):
            raise ValueError(f"{value!r} must be {self.sentence}")
        return value


def _decimal_in_quotes(example: str) -> _Quoted:
    return _Quoted(f"a decimal number in quotes, such as '{example}'")


_DecimalText = Annotated[str, Field(max_length=_DECIMAL_LENGTH)]

DecimalString = Annotated[
    _DecimalText,
    _decimal_in_quotes("0.01"),
    _decimal_rule(
        "double(self) >= 0.0",
        lambda x: x >= 0,
        'Write a decimal number of 0 or more in quotes, such as "0.01".',
    ),
]
"""A decimal number of 0 or more, in quotes."""

PositiveDecimal = Annotated[
    _DecimalText,
    _decimal_in_quotes("1.0"),
    _decimal_rule(
        "double(self) > 0.0",
        lambda x: x > 0,
        'Write a decimal number above 0 in quotes, such as "1.0".',
    ),
]
"""A decimal number above 0, in quotes."""

_SIGNED = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"

SignedDecimal = Annotated[
    _DecimalText,
    _decimal_in_quotes("0.5"),
    matching(_SIGNED, 'Write a decimal number in quotes, such as "0.5" or "-1".'),
]
"""A decimal number, in quotes."""

HalfFraction = Annotated[
    _DecimalText,
    _decimal_in_quotes("0.1"),
    _decimal_rule(
        "double(self) >= 0.0 && double(self) < 0.5",
        lambda x: 0 <= x < 0.5,
        'Write a decimal number from 0 up to, but not including, 0.5 in quotes, such as "0.1".',
    ),
]
"""A decimal number in [0, 0.5), in quotes."""

Fraction = Annotated[
    _DecimalText,
    _decimal_in_quotes("0.1"),
    _decimal_rule(
        "double(self) >= 0.0 && double(self) < 1.0",
        lambda x: 0 <= x < 1,
        'Write a decimal number from 0 up to, but not including, 1 in quotes, such as "0.1".',
    ),
]
"""A decimal number in [0, 1), in quotes."""

Similarity = Annotated[
    _DecimalText,
    _decimal_in_quotes("0.8"),
    _decimal_rule(
        "double(self) >= 0.5 && double(self) <= 1.0",
        lambda x: 0.5 <= x <= 1,
        'Write how alike two rows are, from 0.5 to 1 in quotes, such as "0.8".',
    ),
]
"""How alike two texts are, in [0.5, 1], in quotes."""

Confidence = Annotated[
    _DecimalText,
    _decimal_in_quotes("0.95"),
    _decimal_rule(
        "double(self) >= 0.5 && double(self) < 1.0",
        lambda x: 0.5 <= x < 1,
        'Write a confidence level from 0.5 up to, but not including, 1 in quotes, such as "0.95".',
    ),
]
"""A confidence level in [0.5, 1), in quotes."""

LearningRate = Annotated[
    _DecimalText,
    _decimal_in_quotes("2e-4"),
    _decimal_rule(
        "double(self) > 0.0 && double(self) <= 1.0",
        lambda x: 0 < x <= 1,
        'Write Auto, or a decimal number above 0 and up to 1 in quotes, such as "2e-4".',
        "Auto",
    ),
]
"""``Auto``, or a decimal number in (0, 1], in quotes."""

Score = Annotated[
    _DecimalText,
    _decimal_in_quotes("7"),
    _decimal_rule(
        "double(self) >= 1.0 && double(self) <= 10.0",
        lambda x: 1 <= x <= 10,
        'Write a number from 1 to 10 in quotes, such as "7".',
    ),
]
"""What a judge gives, from 1 to 10, in quotes."""

Currency = Annotated[
    str,
    Field(max_length=3),
    matching(r"^[A-Z]{3}$", "Write a currency as three capital letters, such as EUR."),
]
"""Three capital letters such as ``EUR``."""

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
_QUANTITY_RULE = Rule(
    f"type(self) == int ? self >= 0 : self.matches(r'{_QUANTITY}')",
    "Write an amount such as 500m, 2 or 16Gi.",
    lambda value: re.search(_QUANTITY, value) is not None,
)


def _whole_number_text(value: object) -> object:
    return str(value) if isinstance(value, int) else value


Quantity = Annotated[
    str,
    BeforeValidator(_whole_number_text),
    _QUANTITY_RULE,
    WithJsonSchema(
        with_rules({"x-kubernetes-int-or-string": True, "maxLength": 32}, (_QUANTITY_RULE,))
        | _or_sentence("an amount in quotes, such as '0.5' or '500m'", {"multipleOf": 1}, minimum=0)
    ),
]
"""An amount of a resource such as ``500m``, ``2`` or ``16Gi``; a whole number needs no quotes."""

GPUMemory = Annotated[
    str,
    Field(max_length=16),
    _Quoted("an amount with its unit, such as 24Gi"),
    matching(r"^(Auto|[0-9]+(\.[0-9]+)?[MGT]i?)$", "Write Auto, or the memory of one GPU, such as 24Gi."),
]
"""``Auto``, or the memory of one GPU such as ``24Gi``."""

_BYTES = {"M": 10**6, "G": 10**9, "T": 10**12, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def memory_bytes(amount: str) -> int:
    """The bytes of an amount such as ``24Gi``.

    Raises:
        ValueError: it is none, such as ``Auto``.
    """
    number = amount.rstrip("MGTi")
    return int(float(number) * _BYTES[amount[len(number) :]])


_BATCH_SIZE = Rule(
    "type(self) == int ? self >= 1 && self <= 65536 : self == 'Auto'",
    "Write Auto, or a whole number from 1 to 65536 without quotes.",
)

BatchSize = Annotated[
    Literal["Auto"] | Annotated[int, Field(ge=1, le=65_536)],
    WithJsonSchema(with_rules({"x-kubernetes-int-or-string": True, "maxLength": 16}, (_BATCH_SIZE,))),
]
"""``Auto``, or a whole number of rows."""

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

_COLUMN = r"[^.\t\n\r ]+( [^.\t\n\r ]+)*"

MemberPath = Annotated[
    str,
    Field(max_length=128),
    matching(
        rf"^{_COLUMN}(\.{_COLUMN})*$",
        "Write the name of a member of the rows, or of a column, such as customer; with dots for one inside another, "
        "such as metadata.customer.",
    ),
]
"""The path of a member in a row: names with dots between them."""

Image = Annotated[str, Field(min_length=1, max_length=512)]
"""A container image."""

LabelValue = Annotated[str, Field(max_length=63)]
"""The value of a label."""

ClassName = Annotated[str, Field(max_length=253)]
"""The name of a cluster-wide or namespaced object that pods name."""

Timestamp = datetime
"""A time in UTC."""
