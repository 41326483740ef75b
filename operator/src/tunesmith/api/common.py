"""What the three kinds have in common: strict models, rules with a sentence, references, quantities, storage."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, core_schema

GROUP = "tunesmith.dev"
VERSION = "v1alpha1"
CATEGORY = "tunesmith"
VALIDATIONS = "x-kubernetes-validations"

#: Children carry ``-<uid6>-<stage>-<attempt>`` and a pod index behind the name, within 63 characters.
MAX_NAME = 40


class InvalidResource(ValueError):
    """The object is not one that this release understands; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that the API server checks in CEL and, where ``check`` is given, the model checks too.

    Attributes:
        cel: the expression; ``self`` is the value it stands on.
        message: the sentence that people see; it says what to write.
        check: the same rule on the Python value. Transition rules have none: only the API server sees the old object.
        field: the member the sentence is about, as a JSON path such as ``.adapter``; empty for the value itself.
    """

    cel: str
    message: str
    check: Callable[[Any], bool] | None = None
    field: str = ""

    def to_schema(self) -> dict[str, str]:
        """The rule as an item of ``x-kubernetes-validations``."""
        schema = {"rule": self.cel, "message": self.message}
        return schema | ({"fieldPath": self.field} if self.field else {})

    def verify(self, value: Any) -> None:
        """Check the Python value.

        Raises:
            ValueError: the rule's sentence.
        """
        if self.check is not None and not self.check(value):
            raise ValueError(self.message)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._verified, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return with_rules(handler(schema), (self,))

    def _verified(self, value: Any) -> Any:
        self.verify(value)
        return value


def with_rules(schema: JsonSchemaValue, rules: tuple[Rule, ...]) -> JsonSchemaValue:
    """The schema with the rules behind those that it has."""
    if not rules:
        return schema
    return schema | {VALIDATIONS: [*schema.get(VALIDATIONS, []), *(rule.to_schema() for rule in rules)]}


class Model(BaseModel):
    """A frozen value: camelCase in YAML, snake_case in Python."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _verify_rules(self) -> Self:
        for rule in self.rules:
            rule.verify(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        resolved.update(with_rules(resolved, cls.rules))
        return schema

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, camelCase keys, absent members left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StrictModel(Model):
    """A part of a spec: an unknown field is an error, never silently ignored."""

    model_config = ConfigDict(extra="forbid")


class StatusModel(Model):
    """A part of a status: fields of a later release are left out when read."""


def exactly_one(names: tuple[str, ...], message: str) -> Rule:
    """A union: one of the members must be there, and no other."""
    members = ", ".join(f"has(self.{to_camel(name)})" for name in names)
    return Rule(
        f"[{members}].filter(x, x).size() == 1",
        message,
        lambda model: sum(getattr(model, name) is not None for name in names) == 1,
    )


def keyed_by(*keys: str) -> dict[str, Any]:
    """Schema extension of a list that is a map: items with equal keys are refused, and appliers own single items."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def matching(pattern: str, message: str) -> Rule:
    """A string of this form; the pattern is one that RE2 and Python read alike."""
    compiled = re.compile(pattern)
    return Rule(f"self.matches(r'{pattern}')", message, lambda value: compiled.search(value) is not None)


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

    CEL rules are not run on a value of the wrong type, whose error has no sentence of ours. The one error that carries
    free text is that of an enum, so the schema has an enum whose only value is the sentence. Every string in bounds
    takes the other branch of the ``anyOf``; for a number, ``minLength`` says nothing, so its negation is false.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._refuse_number, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        sentence = "a decimal number in quotes, such as '2e-4'"
        return handler(schema) | {"anyOf": [{"enum": [sentence]}, {"not": {"minLength": _DECIMAL_LENGTH + 1}}]}

    @staticmethod
    def _refuse_number(value: object) -> object:
        if isinstance(value, int | float):
            raise ValueError(f"{value!r} must be a decimal number in quotes, such as '2e-4'")
        return value


_DecimalText = Annotated[str, Field(max_length=_DECIMAL_LENGTH), _Quoted()]

DecimalString = Annotated[
    _DecimalText,
    _decimal_rule(
        "double(self) >= 0.0", lambda x: x >= 0, 'Write a decimal number of 0 or more in quotes, such as "0.01".'
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
        "Write where the rows lie: pvc://claim/file.jsonl, configmap://name/key or hf://org/repo/file@revision.",
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
    matching(rf"^{_PVC_FILE}$", "Write where the artefact lies, as in its status: pvc://claim/folder/sha256/…"),
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

Timestamp = datetime


class SecretRef(StrictModel):
    """A Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the Secret. Its key `token` holds the access token.")


class SecretName(StrictModel):
    """A Secret in the resource's namespace that pods name."""

    name: ObjectName = Field(description="Name of the Secret.")


class FineTuneJobRef(StrictModel):
    """A FineTuneJob in the resource's namespace."""

    name: ObjectName = Field(description="Name of the FineTuneJob. Its artefact is used once it has succeeded.")


class BaseModelSource(StrictModel):
    """The model that is tuned or served."""

    uri: ModelUri = Field(
        description="Where the model lies: pvc://claim/path for a folder in a claim, or hf://org/repo@revision for the "
        "Hugging Face Hub. Without a revision, the one found at the start is kept and shown in status."
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret whose key `token` opens a private or gated repository. Read by the pods only.",
    )


class DataSource(StrictModel):
    """Rows of data."""

    uri: DataUri = Field(
        description="Where the rows lie, one JSON object a line: pvc://claim/file.jsonl, configmap://name/key for small "
        "data, or hf://org/repo/file@revision (opened with the token of baseModel.secretRef)."
    )


class Toleration(StrictModel):
    """Lets pods onto nodes with a matching taint, as in a pod."""

    key: Annotated[str, Field(max_length=316)] | None = Field(
        None, description="Key of the taint. Absent with operator Exists: every taint."
    )
    operator: Literal["Exists", "Equal"] = Field("Equal", description="How key and value are compared.")
    value: Annotated[str, Field(max_length=63)] | None = Field(
        None, description="Value of the taint, for operator Equal."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. Absent: every effect."
    )
    toleration_seconds: int | None = Field(
        None, ge=0, description="How long a NoExecute taint is tolerated, in seconds. Absent: for ever."
    )


_Label = Annotated[str, Field(max_length=63)]
_ClassName = Annotated[str, Field(max_length=253)]


class PodTemplate(StrictModel):
    """What the pods get beside their containers. Security settings are the operator's."""

    node_selector: Annotated[dict[str, _Label], Field(max_length=16)] | None = Field(
        None, description="Labels that a node must have."
    )
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] | None = Field(
        None, description="Taints that the pods tolerate."
    )
    priority_class_name: _ClassName | None = Field(None, description="PriorityClass of the pods.")
    service_account_name: _ClassName | None = Field(
        None,
        description="ServiceAccount of the pods. They get no token for the Kubernetes API, whichever it is.",
    )
    image_pull_secrets: Annotated[tuple[SecretName, ...], Field(max_length=8)] | None = Field(
        None,
        description="Secrets to pull images with.",
        json_schema_extra=keyed_by("name"),
    )


_ResourceList = Annotated[dict[str, Quantity], Field(max_length=8)]


class Resources(StrictModel):
    """What a container asks for and may use, beside GPUs."""

    rules = (
        Rule(
            "[has(self.requests) ? self.requests : {}, has(self.limits) ? self.limits : {}]"
            ".all(r, r.all(k, !k.endsWith('/gpu')))",
            "Write the number of GPUs in the field for GPUs beside resources, not in resources.",
            lambda model: not any(
                key.endswith("/gpu") for key in [*(model.requests or {}), *(model.limits or {})]
            ),
        ),
    )

    requests: _ResourceList | None = Field(
        None, description='Reserved for the container, such as {cpu: "4", memory: 16Gi}.'
    )
    limits: _ResourceList | None = Field(
        None, description="The most that the container may use. Above the memory limit it is killed."
    )


Image = Annotated[str, Field(min_length=1, max_length=512)]


class Condition(StatusModel):
    """One aspect of the resource's state, as `kubectl wait --for=condition=…` reads it."""

    type: str = Field(max_length=64, description="What is judged, in PascalCase.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=64, description="Why, in one PascalCase word for machines.")
    message: str = Field("", max_length=2048, description="Why, in a sentence for people.")
    observed_generation: int = Field(0, ge=0, description="The metadata.generation that was judged.")
    last_transition_time: Timestamp = Field(description="When status last changed.")


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        description="The state for machines. Ready, Reconciling and Stalled are what GitOps tools read.",
        json_schema_extra=keyed_by("type"),
    ),
]


class ObjectMeta(Model):
    """The metadata that the operator reads."""

    name: str = Field(description="Name, unique in the namespace.")
    namespace: str = Field("", description="Namespace.")
    uid: str = Field("", description="Set by the API server.")
    generation: int = Field(0, description="Grows with each change of spec.")
    resource_version: str = Field("", description="Changes with each write.")
    labels: Mapping[str, str] = Field({}, description="Labels.")
    annotations: Mapping[str, str] = Field({}, description="Annotations.")
    creation_timestamp: datetime | None = Field(None, description="When it was made.")
    deletion_timestamp: datetime | None = Field(None, description="When it was deleted, if it was.")


class Resource(Model):
    """An object of one of the three kinds, as the API server gives it."""

    kind_name: ClassVar[str]
    plural: ClassVar[str]
    short_name: ClassVar[str]

    api_version: Literal["tunesmith.dev/v1alpha1"] = "tunesmith.dev/v1alpha1"
    metadata: ObjectMeta

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read the object of a watch or of a GET.

        Raises:
            InvalidResource: one line per fault, with the field's path and what to write.
        """
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise InvalidResource("; ".join(_sentence(detail) for detail in error.errors())) from None


def _sentence(detail: ErrorDetails) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"])
    message = "unknown field" if detail["type"] == "extra_forbidden" else detail["msg"]
    return f"{''.join(steps).lstrip('.')}: {message.removeprefix('Value error, ')}"
