"""What makes an answer good, for methods that learn from answers that the model makes itself."""

import json
from typing import Annotated

from pydantic import AfterValidator, Field

from .common import FineTuneJobRef, SecretName, StrictModel
from .rules import Rule, exactly_one, keyed_by, matching
from .sources import STORE_KEYS, ModelLocation
from .uris import HttpUrl, TrainedModelUri
from .values import DecimalString, DigestString, ItemName, SignedDecimal

MAX_REWARDS = 8
MAX_SCHEMA = 16_384

ENDPOINT_KEY = "Secret whose key `token` is sent as a bearer token. Read by the pods only."


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


class ModelReward(StrictModel):
    """The number that a reward model gives: one of method.reward, or any sequence classifier with one output."""

    rules = (
        exactly_one(
            ("uri", "fine_tune_job_ref"),
            "Name the reward model in one way: fineTuneJobRef: {name: …}, or uri.",
        ),
        Rule(
            "has(self.uri) || (!has(self.digest) && !has(self.baseModel))",
            "digest and baseModel are about uri: leave them out with fineTuneJobRef, which brings them along.",
            lambda model: model.uri is not None or (model.digest is None and model.base_model is None),
        ),
    )

    uri: TrainedModelUri | None = Field(
        None, description="Where the artefact, or a whole reward model, lies."
    )
    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None, description="The artefact of this FineTuneJob, whose method is reward. This job waits for it."
    )
    digest: DigestString | None = Field(
        None, description="Digest of the artefact at uri; checked when given."
    )
    base_model: ModelLocation | None = Field(
        None,
        description="The model that the artefact at uri was trained on. Absent: uri holds a whole model.",
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


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


KINDS = ("exact", "regex", "json_schema", "numeric", "length", "model", "endpoint", "function")


class Reward(StrictModel):
    """One thing that makes an answer good: a number per answer. Exactly one member beside name and weight."""

    rules = (
        exactly_one(
            KINDS,
            "Say in one way what this reward is: exact, regex, jsonSchema, numeric, length, model, endpoint or "
            "function, such as exact: {}.",
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
    model: ModelReward | None = Field(None, description="The number that a reward model gives.")
    endpoint: EndpointReward | None = Field(None, description="The number that an HTTP endpoint gives.")
    function: FunctionReward | None = Field(
        None, description="The number that a Python function in your own image gives."
    )

    @property
    def secret_name(self) -> str | None:
        """The Secret of a reward model or endpoint."""
        opened = self.model or self.endpoint
        return opened.secret_ref.name if opened and opened.secret_ref else None


Rewards = Annotated[
    tuple[Reward, ...],
    Field(min_length=1, max_length=MAX_REWARDS, json_schema_extra=keyed_by("name")),
]
"""Rewards by their names; their weighted sum is what is learned."""
