"""What the three kinds have in common: strict models, references, sources, pods, conditions, metadata."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails

from .rules import Rule, keyed_by, with_rules
from .uris import DataUri, ModelUri
from .values import ClassName, LabelValue, ObjectName, Quantity, Timestamp

GROUP = "tunesmith.dev"
VERSION = "v1alpha1"
CATEGORY = "tunesmith"

#: Children carry ``-<uid6>-<stage>-<attempt>`` and a pod index behind the name, within 63 characters.
MAX_NAME = 40
_HOST_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"


class InvalidResource(ValueError):
    """The object is not one that this release understands; the message says what to write instead."""


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


class SecretRef(StrictModel):
    """A Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the Secret. Its key `token` holds the access token.")


class SecretName(StrictModel):
    """A Secret in the resource's namespace that pods name."""

    name: ObjectName = Field(description="Name of the Secret.")


class FineTuneJobRef(StrictModel):
    """A FineTuneJob in the resource's namespace."""

    name: ObjectName = Field(
        description="Name of the FineTuneJob. Its artefact is used once it has succeeded."
    )


class BaseModelSource(StrictModel):
    """The model that is tuned or served."""

    uri: ModelUri = Field(
        description="Where the model lies: pvc://claim/path for a folder in a claim, or "
        "hf://org/repo@revision for the Hugging Face Hub. Without a revision, the one found at the start is "
        "kept and shown in status."
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret whose key `token` opens a private or gated repository. Read by the pods only.",
    )


class DataSource(StrictModel):
    """Rows of data."""

    uri: DataUri = Field(
        description="Where the rows lie, one JSON object a line: pvc://claim/file.jsonl, "
        "configmap://name/key for small data, or hf://org/repo/file@revision (opened with the token of "
        "baseModel.secretRef)."
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


class PodTemplate(StrictModel):
    """What the pods get beside their containers. Security settings are the operator's."""

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=16)] | None = Field(
        None, description="Labels that a node must have."
    )
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] | None = Field(
        None, description="Taints that the pods tolerate."
    )
    priority_class_name: ClassName | None = Field(None, description="PriorityClass of the pods.")
    service_account_name: ClassName | None = Field(
        None,
        description="ServiceAccount of the pods. They get no token for the Kubernetes API, whichever it is.",
    )
    image_pull_secrets: Annotated[tuple[SecretName, ...], Field(max_length=8)] | None = Field(
        None,
        description="Secrets to pull images with.",
        json_schema_extra=keyed_by("name"),
    )


class Resources(StrictModel):
    """What a container asks for and may use, beside GPUs."""

    rules = (
        Rule(
            "[has(self.requests) ? self.requests : {}, has(self.limits) ? self.limits : {}]"
            ".all(r, r.all(k, !k.endsWith('/gpu')))",
            "Write the number of GPUs in gpusPerNode or gpus, not in resources.",
            lambda model: (
                not any(key.endswith("/gpu") for key in [*(model.requests or {}), *(model.limits or {})])
            ),
        ),
    )

    requests: Annotated[dict[str, Quantity], Field(max_length=8)] | None = Field(
        None, description='Reserved for the container, such as {cpu: "4", memory: 16Gi}.'
    )
    limits: Annotated[dict[str, Quantity], Field(max_length=8)] | None = Field(
        None, description="The most that the container may use. Above the memory limit it is killed."
    )


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

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.size() <= {MAX_NAME}",
            f"metadata.name may have at most {MAX_NAME} characters: the names of its pods are made of it.",
            lambda resource: len(resource.metadata.name) <= MAX_NAME,
        ),
        Rule(
            f"self.metadata.name.matches(r'{_HOST_NAME}')",
            "metadata.name must begin with a letter and hold lower-case letters, digits and dashes only: "
            "host names are made of it.",
            lambda resource: re.search(_HOST_NAME, resource.metadata.name) is not None,
        ),
    )

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
