"""What makes an answer good, told by rules, an endpoint or a function."""

import json
from typing import Annotated

from pydantic import AfterValidator, Field

from .common import SecretName, StrictModel
from .endpoints import ENDPOINT_KEY
from .rules import Rule, exactly_one, keyed_by, matching
from .uris import HttpUrl
from .values import DecimalString, ItemName, SignedDecimal

MAX_REWARDS = 8
MAX_SCHEMA = 16_384


class ExactReward(StrictModel):
    """1 when the answer is the row's `answer`, spaces around it aside; else 0."""

    ignore_case: bool = Field(False, description="True: capital and small letters are the same.")


class RegexReward(StrictModel):
    """1 when the pattern is found in the answer, else 0."""

    pattern: str = Field(
        min_length=1,
        max_length=1024,
        description="A regular expression in RE2's syntax, which has no look-around and no back-references; searched "
        "in the whole answer: ^ and $ are its ends.",
    )


def _is_json_object(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"Write a JSON schema as JSON text: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("Write a JSON schema as JSON text, an object in braces.")
    return text


class JSONSchemaReward(StrictModel):
    """1 when the answer is JSON that the schema accepts, else 0."""

    text: Annotated[
        str,
        Field(min_length=2, max_length=MAX_SCHEMA),
        matching(r"^\s*\{[\s\S]*\}\s*$", "Write a JSON schema as JSON text, an object in braces."),
        AfterValidator(_is_json_object),
    ] = Field(
        alias="schema",
        description='A JSON schema as JSON text, such as \'{"type": "object", "required": ["amount"]}\'.',
    )


class NumericReward(StrictModel):
    """1 when the last number of the answer is that of the row's `answer`, else 0."""

    tolerance: DecimalString = Field("0", description='How far off it may be, such as "0.01".')


class LengthReward(StrictModel):
    """1 between the limits; falls to 0 at no token at all, and at twice the upper limit."""

    rules = (
        Rule(
            "self.minTokens <= self.maxTokens",
            "minTokens is above maxTokens: write a smaller minTokens.",
            lambda length: length.min_tokens <= length.max_tokens,
        ),
    )

    min_tokens: int = Field(0, ge=0, le=1_048_576, description="Shorter answers get less.")
    max_tokens: int = Field(ge=1, le=1_048_576, description="Longer answers get less.")


class EndpointReward(StrictModel):
    """Numbers from an HTTP endpoint of yours.

    It gets POST {"prompts": […], "completions": […], "answers": […]} and answers {"rewards": [1.0, …]}.
    """

    url: HttpUrl = Field(description="Its address, such as http://grader.team.svc:8080/score.")
    timeout_seconds: int = Field(
        30, ge=1, le=3600, description="How long one request may take. It is tried again a few times."
    )
    secret_ref: SecretName | None = Field(None, description=ENDPOINT_KEY)


class FunctionReward(StrictModel):
    """A Python function in compute.image, with the signature of TRL's reward functions."""

    name: Annotated[
        str,
        Field(max_length=256),
        matching(
            r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
            "Write the function as package.module:function.",
        ),
    ] = Field(description="Where it is: package.module:function.")


FILTER_KINDS = ("exact", "regex", "json_schema", "numeric", "length", "endpoint", "function")


class FilterReward(StrictModel):
    """One thing that makes an answer good: a number per answer. Exactly one member beside name and weight."""

    rules = (
        exactly_one(
            FILTER_KINDS,
            "Say in one way what this reward is: exact, regex, jsonSchema, numeric, length, endpoint or function, such "
            "as exact: {}.",
        ),
    )

    name: ItemName = Field(description="Name that metrics and logs use.")
    weight: SignedDecimal = Field(
        "1", description="What its number is multiplied by before all are added. Below 0: a penalty."
    )
    exact: ExactReward | None = Field(
        None, description="1 when the answer is the row's `answer`, spaces around it aside. `exact: {}`."
    )
    regex: RegexReward | None = Field(None, description="1 when a pattern is found in the answer.")
    json_schema: JSONSchemaReward | None = Field(
        None, description="1 when the answer is JSON that a schema accepts."
    )
    numeric: NumericReward | None = Field(
        None, description="1 when the last number of the answer is that of the row's `answer`."
    )
    length: LengthReward | None = Field(None, description="1 when the answer's length is within limits.")
    endpoint: EndpointReward | None = Field(None, description="The number that an HTTP endpoint gives.")
    function: FunctionReward | None = Field(
        None, description="The number that a Python function in your own image gives."
    )


FilterRewards = Annotated[
    tuple[FilterReward, ...],
    Field(min_length=1, max_length=MAX_REWARDS, json_schema_extra=keyed_by("name")),
]
"""Rewards by their names; rows are kept whose weighted sum of them is high enough."""
