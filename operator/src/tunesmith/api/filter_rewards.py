"""Rewards computed by rules, an endpoint or a function."""

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
    """A reward of 1 if the answer equals the row's `answer`, ignoring leading and trailing white space, otherwise 0."""

    ignore_case: bool = Field(False, description="If true, upper and lower case are not distinguished.")


class RegexReward(StrictModel):
    """A reward of 1 if the pattern is found in the answer, otherwise 0."""

    pattern: str = Field(
        min_length=1,
        max_length=1024,
        description="A regular expression in RE2 syntax, which has no look-around and no back-references. It is "
        "searched for in the whole answer; ^ and $ match the start and end of the answer.",
    )


def _is_json_object(text: str) -> str:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise ValueError(f"Write a JSON schema as JSON text: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError("Write a JSON schema as JSON text, an object in braces.")
    return text


class JSONSchemaReward(StrictModel):
    """A reward of 1 if the answer is JSON that is valid against the schema, otherwise 0."""

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
    """A reward of 1 if the last number of the answer equals that of the row's `answer`, otherwise 0."""

    tolerance: DecimalString = Field(
        "0", description='The largest accepted absolute difference, such as "0.01".'
    )


class LengthReward(StrictModel):
    """A reward of 1 within the length limits. It falls to 0 towards an empty answer and twice the upper limit."""

    rules = (
        Rule(
            "!has(self.minTokens) || self.minTokens <= self.maxTokens",
            "minTokens is above maxTokens: write a smaller minTokens.",
        ),
    )

    min_tokens: int = Field(
        0, ge=0, le=1_048_576, description="The lower limit in tokens. Shorter answers receive less than 1."
    )
    max_tokens: int = Field(
        ge=1, le=1_048_576, description="The upper limit in tokens. Longer answers receive less than 1."
    )


class EndpointReward(StrictModel):
    """Rewards from an HTTP endpoint.

    The endpoint receives POST {"prompts": […], "completions": […], "answers": […]} and returns {"rewards": [1.0, …]}.
    """

    url: HttpUrl = Field(description="The URL of the endpoint, such as http://grader.team.svc:8080/score.")
    timeout_seconds: int = Field(
        30,
        ge=1,
        le=3600,
        description="The timeout of one request in seconds. A failed request is retried a few times.",
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
    ] = Field(description="The location of the function as package.module:function.")


FILTER_KINDS = ("exact", "regex", "json_schema", "numeric", "length", "endpoint", "function")


class FilterReward(StrictModel):
    """A reward that gives each answer a number, by a rule, an endpoint or a function.

    Exactly one member besides name and weight must be set.
    """

    rules = (
        exactly_one(
            FILTER_KINDS,
            "Set exactly one kind of reward: exact, regex, jsonSchema, numeric, length, endpoint or "
            "function, such as exact: {}.",
        ),
    )

    name: ItemName = Field(description="The name of the reward in metrics and logs.")
    weight: SignedDecimal = Field(
        "1",
        description="The factor of this reward in the weighted sum of all rewards. A negative weight makes it a "
        "penalty.",
    )
    exact: ExactReward | None = Field(
        None,
        description="A reward of 1 if the answer equals the row's `answer`, ignoring leading and trailing white "
        "space. Write `exact: {}` for the defaults.",
    )
    regex: RegexReward | None = Field(None, description="A reward of 1 if a pattern is found in the answer.")
    json_schema: JSONSchemaReward | None = Field(
        None, description="A reward of 1 if the answer is JSON that is valid against a schema."
    )
    numeric: NumericReward | None = Field(
        None, description="A reward of 1 if the last number of the answer equals that of the row's `answer`."
    )
    length: LengthReward | None = Field(
        None, description="A reward of 1 if the length of the answer is within limits."
    )
    endpoint: EndpointReward | None = Field(None, description="A number computed by an HTTP endpoint.")
    function: FunctionReward | None = Field(
        None, description="A number computed by a Python function in compute.image."
    )


FilterRewards = Annotated[
    tuple[FilterReward, ...],
    Field(min_length=1, max_length=MAX_REWARDS, json_schema_extra=keyed_by("name")),
]
"""Rewards, keyed by name, whose weighted sum decides which rows are kept."""
