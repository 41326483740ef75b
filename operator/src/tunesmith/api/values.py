"""Types of formatted strings: decimal numbers, durations, quantities, digests and names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Any, Literal

from annotated_types import GroupedMetadata, MaxLen
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

#: Value of fields for which the operator chooses the setting.
AUTO = "Auto"

_DECIMAL_LENGTH = 16


def _or_sentence(sentence: str, valid: dict[str, Any], **vacuous: Any) -> dict[str, Any]:
    """Schema extension that explains a value of the wrong type.

    CEL rules are not evaluated on such a value, and the API server's own error only names the type. The only error with
    free text is that of an enum, so the schema has an enum whose single value is the explanation.

    Args:
        sentence: the text behind "supported values".
        valid: the branch that accepts every value of the right type and no other value.
        vacuous: keywords that always hold, so that both branches have equally many: of two failed branches the API
            server reports the one with more keywords, or the first.
    """
    return {"anyOf": [{"enum": [sentence], **vacuous}, valid]}


@dataclass(frozen=True, slots=True)
class _Quoted:
    """String that is easily written as a number by mistake; the error says what to put in quotes."""

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


@dataclass(frozen=True, slots=True)
class _Decimal(GroupedMetadata):
    """Decimal number in quotes, within bounds.

    Attributes:
        form: the accepted values, for the message.
        example: an accepted value.
        above, at_least, below, at_most: the bounds.
        word: a word that is accepted instead of a number.
    """

    form: str
    example: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    word: str = ""

    def __iter__(self) -> Iterator[object]:
        yield MaxLen(_DECIMAL_LENGTH)
        yield _Quoted(f"a decimal number in quotes, such as '{self.example}'")
        bounds = ((">=", self.at_least), (">", self.above), ("<=", self.at_most), ("<", self.below))
        conditions = " && ".join(
            f"double(self) {sign} {bound}" for sign, bound in bounds if bound is not None
        )
        exempt = f"self == '{self.word}' || " if self.word else ""
        message = f'Write {self.form} in quotes, such as "{self.example}".'
        yield Rule(f"{exempt}(self.matches(r'{_DECIMAL}') && {conditions})", message, self._accepts)

    def _accepts(self, value: str) -> bool:
        if self.word and value == self.word:
            return True
        if re.search(_DECIMAL, value) is None:
            return False
        number = float(value)
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )


_DECIMAL = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"
_SIGNED_DECIMAL = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"

DecimalString = Annotated[str, _Decimal("a decimal number of 0 or more", "0.01", at_least=0.0)]
"""Decimal number of 0 or more, in quotes."""

PositiveDecimal = Annotated[str, _Decimal("a decimal number above 0", "1.0", above=0.0)]
"""Decimal number above 0, in quotes."""

SignedDecimal = Annotated[
    str,
    MaxLen(_DECIMAL_LENGTH),
    _Quoted("a decimal number in quotes, such as '0.5'"),
    matching(_SIGNED_DECIMAL, 'Write a decimal number in quotes, such as "0.5" or "-1".'),
]
"""Decimal number, in quotes."""

HalfFraction = Annotated[
    str,
    _Decimal("a decimal number from 0 up to, but not including, 0.5", "0.1", at_least=0.0, below=0.5),
]
"""Decimal number in [0, 0.5), in quotes."""

Fraction = Annotated[
    str, _Decimal("a decimal number from 0 up to, but not including, 1", "0.1", at_least=0.0, below=1.0)
]
"""Decimal number in [0, 1), in quotes."""

Ratio = Annotated[str, _Decimal("a decimal number from 0 to 1", "0.05", at_least=0.0, at_most=1.0)]
"""Share in [0, 1], in quotes."""

Share = Annotated[str, _Decimal("a decimal number above 0 and up to 1", "0.9", above=0.0, at_most=1.0)]
"""Share in (0, 1], in quotes."""

SafetyMargin = Annotated[
    str, _Decimal("a decimal number above 0 and up to 0.25", "0.1", above=0.0, at_most=0.25)
]
"""Loss of safety that is acceptable, in (0, 0.25], in quotes."""

Similarity = Annotated[str, _Decimal("a similarity from 0.5 to 1", "0.8", at_least=0.5, at_most=1.0)]
"""Similarity of two texts in [0.5, 1], in quotes."""

Confidence = Annotated[
    str, _Decimal("a confidence level from 0.5 up to, but not including, 1", "0.95", at_least=0.5, below=1.0)
]
"""Confidence level in [0.5, 1), in quotes."""

LearningRate = Annotated[
    str,
    _Decimal("Auto, or a decimal number above 0 and up to 1", "2e-4", above=0.0, at_most=1.0, word=AUTO),
]
"""``Auto``, or a decimal number in (0, 1], in quotes."""

ProofTolerance = Annotated[
    str,
    _Decimal("Auto, or a decimal number above 0 and up to 1", "0.2", above=0.0, at_most=1.0, word=AUTO),
]
"""``Auto``, or nats per token in (0, 1], in quotes."""

Score = Annotated[str, _Decimal("a number from 1 to 10", "7", at_least=1.0, at_most=10.0)]
"""Score of a judge from 1 to 10, in quotes."""

Currency = Annotated[
    str,
    Field(max_length=3),
    matching(r"^[A-Z]{3}$", "Write a currency as three capital letters, such as EUR."),
]
"""Currency code of three capital letters, such as ``EUR``."""

Measured = Annotated[str, Field(max_length=24)]
"""Measured number in status: a decimal string with optional minus sign and exponent."""

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
"""Duration such as ``30s``, ``5m`` or ``1h30m``."""


def duration_seconds(duration: str) -> int:
    """Number of seconds of a duration."""
    return sum(int(n) * _DURATION_UNITS[unit] for n, unit in re.findall(r"([0-9]+)([hms])", duration))


def format_duration(seconds: float) -> str:
    """Duration rounded to whole seconds, such as ``1h30m`` or ``0s``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    parts = (f"{hour}h" if hour else "", f"{minute}m" if minute else "", f"{second}s" if second else "")
    return "".join(parts) or "0s"


_QUANTITY = r"^([0-9]+(\.[0-9]+)?)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
_QUANTITY_RULE = Rule(
    f"type(self) == int ? self >= 0 : self.matches(r'{_QUANTITY}')",
    "Write a quantity such as 500m, 2 or 16Gi.",
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
        | _or_sentence("a quantity in quotes, such as '0.5' or '500m'", {"multipleOf": 1}, minimum=0)
    ),
]
"""Resource quantity such as ``500m``, ``2`` or ``16Gi``; a whole number needs no quotes."""

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}


def quantity_amount(quantity: str) -> Decimal:
    """Amount of a quantity such as ``500m`` or ``16Gi``, in cores or bytes.

    Raises:
        ValueError: the text is not a quantity.
    """
    number, suffix = _split_quantity(quantity)
    return number * _SUFFIXES.get(suffix, Decimal(1))


def scale_quantity(quantity: str, factor: str) -> str:
    """Multiple of a quantity in the same unit, such as ``2000m`` for 4 times ``500m``; small units are rounded up.

    Raises:
        ValueError: one of the texts is not a number.
    """
    number, suffix = _split_quantity(quantity)
    scaled = number * Decimal(factor)
    if suffix in {"n", "u", "m"}:
        scaled = scaled.to_integral_value(ROUND_CEILING)
    return f"{scaled.normalize():f}{suffix}"


def _split_quantity(quantity: str) -> tuple[Decimal, str]:
    """Number and unit of a quantity; an exponent belongs to the number."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)([KMGTPE]i|[numkMGTPE])?", quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity")
    return Decimal(match[1]), match[2] or ""


GPUMemory = Annotated[
    str,
    Field(max_length=16),
    _Quoted("a quantity with its unit, such as 24Gi"),
    matching(r"^(Auto|[0-9]+(\.[0-9]+)?[MGT]i?)$", "Write Auto, or the memory of one GPU, such as 24Gi."),
]
"""``Auto``, or the memory of one GPU, such as ``24Gi``."""

DiskSize = Annotated[
    str,
    Field(max_length=16),
    _Quoted("a quantity with its unit, such as 16Gi"),
    matching(
        r"^[1-9][0-9]*(\.[0-9]+)?[MGT]i?$", "Write an amount of disk space with its unit, such as 16Gi."
    ),
]
"""An amount of disk space, such as ``16Gi``."""

_BYTES = {"M": 10**6, "G": 10**9, "T": 10**12, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def memory_bytes(amount: str) -> int:
    """Number of bytes of a quantity such as ``24Gi``.

    Raises:
        ValueError: the text is not a quantity, such as ``Auto``.
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
"""``Auto``, or a number of rows."""

DigestString = Annotated[
    str,
    Field(max_length=71),
    matching(
        r"^sha256:[0-9a-f]{64}$", "Write the digest as shown in status: sha256: and 64 hexadecimal digits."
    ),
]
"""SHA-256 digest: ``sha256:`` and 64 hexadecimal digits."""

ObjectName = Annotated[
    str,
    Field(max_length=253),
    matching(
        r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "Write the name of an object in this namespace: lower-case letters, digits, dashes and dots.",
    ),
]
"""Name of a Kubernetes object."""

ItemName = Annotated[
    str,
    Field(max_length=32),
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "Write a name of lower-case letters, digits and dashes, at most 32 characters.",
    ),
]
"""Name of an item within the resource."""

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
"""Path of a member in a row: names separated by dots."""

Image = Annotated[str, Field(min_length=1, max_length=512)]
"""Container image reference."""

LabelValue = Annotated[str, Field(max_length=63)]
"""Value of a label."""

_VARIABLE_LENGTH = 1024

VariableValue = Annotated[
    str,
    MaxLen(_VARIABLE_LENGTH),
    _Quoted("a value in quotes, such as '1'", max_length=_VARIABLE_LENGTH),
]
"""Value of an environment variable."""

#: Neither a user nor a password: whoever may read the resource would see them.
_PLAIN_URL = r"^https?://[^@/?#\s]+"

ProxyUrl = Annotated[
    str,
    MaxLen(512),
    matching(
        _PLAIN_URL + r"/?$",
        "Write the URL of the proxy without user and password, such as http://proxy.example.com:3128. One with a "
        "password belongs in a Secret: secretRef.",
    ),
]
"""URL of a proxy."""

ProxylessHost = Annotated[
    str,
    MaxLen(253),
    matching(
        r"^[^,\s$]+$", "Write one host, domain or address, such as .example.com, without commas and spaces."
    ),
]
"""Host, domain or address that is reached without a proxy."""

HubUrl = Annotated[
    str,
    MaxLen(512),
    matching(
        _PLAIN_URL + r"(/[^@?#\s]*)?$",
        "Write the URL of the mirror without user and password, such as https://hub.example.com. The token for it is "
        "that of secretRef.",
    ),
]
"""URL of a mirror of the Hugging Face Hub."""

_SEARCH_VALUE_LENGTH = 16

SearchValue = Annotated[
    str,
    MaxLen(_SEARCH_VALUE_LENGTH),
    _Quoted("a value in quotes, such as '8'", max_length=_SEARCH_VALUE_LENGTH),
]
"""Value of a hyperparameter in a search."""

ClassName = Annotated[str, Field(max_length=253)]
"""Name of an object that pods refer to, such as a PriorityClass."""

Timestamp = datetime
"""Time in UTC."""
