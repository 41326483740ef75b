"""Base models and parts shared by the three kinds: references, pod settings, conditions and metadata."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails

from .rules import Rule, keyed_by, matching, with_rules
from .uris import DataUri, ModelUri
from .values import ObjectName, ProxylessHost, ProxyUrl, Quantity, Timestamp

GROUP = "tunesmith.dev"
VERSION = "v1alpha1"
CATEGORY = "tunesmith"

#: Children carry ``-<uid6>-<stage>-<attempt>`` and a pod index behind the name, within 63 characters.
MAX_NAME = 40
_HOST_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"


class InvalidResource(ValueError):
    """Object that this release can't read; the message says what to write instead."""


class Model(BaseModel):
    """Frozen API object: camelCase in YAML, snake_case in Python."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _verify_rules(self) -> Self:
        for rule in self.rules:
            # Most rules are the API server's alone.
            if rule.check is not None:
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
        """Plain JSON types with camelCase keys, without absent members."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StrictModel(Model):
    """Part of a spec: an unknown field is an error and never ignored."""

    model_config = ConfigDict(extra="forbid")

    def to_snapshot(self, without: frozenset[str] = frozenset()) -> str:
        """JSON without fields that have their default value, so that an operator of an earlier release can read it.

        Args:
            without: names of further fields that are left out.
        """
        return self.model_dump_json(
            by_alias=True, exclude_none=True, exclude_defaults=True, exclude=set(without)
        )


class StatusModel(Model):
    """Part of a status: fields that a later release added are ignored."""


class Reuse(StrEnum):
    """Use of finished work of an earlier resource of the same name and spec, which was deleted.

    IF_UNCHANGED: it is taken over where a pod finds all that decides unchanged. NEVER: the work is done again.
    """

    IF_UNCHANGED = "IfUnchanged"
    NEVER = "Never"


class SecretRef(StrictModel):
    """A reference to a Secret with an access token, in the namespace of the resource."""

    name: ObjectName = Field(description="The name of the Secret. Its key `token` holds the access token.")


class SecretName(StrictModel):
    """A reference to a Secret in the namespace of the resource."""

    name: ObjectName = Field(description="The name of the Secret.")


class FineTuneJobRef(StrictModel):
    """A reference to a FineTuneJob in the namespace of the resource."""

    name: ObjectName = Field(
        description="The name of the FineTuneJob. Its artifact is used once the job has succeeded."
    )


class BaseModelSource(StrictModel):
    """The location of the base model, and the Secret to read it with."""

    uri: ModelUri = Field(
        description="The location of the model: pvc://claim/path for a folder on a PersistentVolumeClaim, or "
        "hf://org/repo@revision for a repository on the Hugging Face Hub. If the revision is omitted,"
        " the revision found at the start is used throughout and shown in status."
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="The Secret whose key `token` grants access to a private or gated repository. Only the pods "
        "read it.",
    )


class DataSource(StrictModel):
    """The location of rows of data."""

    uri: DataUri = Field(
        description="The location of the rows, one JSON object per line: pvc://claim/file.jsonl, "
        "configmap://name/key for small data, or hf://org/repo/file@revision, which is read with the "
        "token of baseModel.secretRef."
    )


class Toleration(StrictModel):
    """Allows pods on nodes with a matching taint, as in a Pod."""

    key: Annotated[str, Field(max_length=316)] | None = Field(
        None,
        description="The key of the taint. If unset, operator must be Exists, and every taint is tolerated.",
    )
    operator: Literal["Exists", "Equal"] = Field(
        "Equal",
        description="The comparison of key and value. Exists: any value of the taint matches. Equal: the values "
        "must be equal.",
    )
    value: Annotated[str, Field(max_length=63)] | None = Field(
        None, description="The value of the taint, with operator Equal."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="The effect of the taint. If unset, every effect is tolerated."
    )
    toleration_seconds: int | None = Field(
        None,
        ge=0,
        description="The time in seconds for which a NoExecute taint is tolerated. If unset, it is tolerated "
        "forever.",
    )


class Proxy(StrictModel):
    """The proxy through which pods reach addresses outside the cluster."""

    rules = (
        Rule(
            "has(self.secretRef) != (has(self.httpProxy) || has(self.httpsProxy))",
            "Write httpProxy and httpsProxy, or secretRef for a proxy that asks for a password.",
        ),
    )

    http_proxy: ProxyUrl | None = Field(
        None,
        description="The proxy for http URLs, such as http://proxy.example.com:3128. The pods get it as HTTP_PROXY.",
    )
    https_proxy: ProxyUrl | None = Field(
        None,
        description="The proxy for https URLs, such as http://proxy.example.com:3128. The pods get it as HTTPS_PROXY.",
    )
    no_proxy: Annotated[tuple[ProxylessHost, ...], Field(max_length=64)] = Field(
        (),
        description="Hosts and domains that are reached without the proxy, such as [.example.com, 10.0.0.8], beside "
        "those of the installation and the names of the cluster (.svc, .cluster.local).",
    )
    secret_ref: SecretName | None = Field(
        None,
        description="The Secret whose keys HTTP_PROXY and HTTPS_PROXY hold the proxy's URLs with user and password.",
    )


class CABundleSource(StrictModel):
    """The certificate authorities that pods trust beside the public ones."""

    config_map_name: ObjectName = Field(
        description="The name of the ConfigMap, in the namespace of the resource. trust-manager can copy it to all "
        "namespaces."
    )
    key: Annotated[
        str,
        Field(max_length=253),
        matching(r"^[-._a-zA-Z0-9]+$", "Write a key of the ConfigMap, such as ca.crt."),
    ] = Field("ca.crt", description="The key of the ConfigMap that holds the certificates in PEM.")


#: Extended resources that stand for GPUs, as a pattern.
GPU_NAMES = (
    r"^nvidia\.com/(gpu|mig-)|^amd\.com/[sdtqc]px_|^gpu\.intel\.com/(i915|xe)$|^habana\.ai/gaudi|/gpu$"
)


class Resources(StrictModel):
    """Resource requests and limits of a container, except GPUs."""

    rules = (
        Rule(
            "[has(self.requests) ? self.requests : {}, has(self.limits) ? self.limits : {}]"
            f".all(r, r.all(k, !k.matches(r'{GPU_NAMES}')))",
            "Write the number of GPUs in gpusPerNode or gpus, not in resources, and another kind of GPU, such as "
            "nvidia.com/mig-1g.10gb, in gpuResource.",
        ),
    )

    requests: Annotated[dict[str, Quantity], Field(max_length=8)] | None = Field(
        None, description='Resources reserved for the container, such as {cpu: "4", memory: 16Gi}.'
    )
    limits: Annotated[dict[str, Quantity], Field(max_length=8)] | None = Field(
        None,
        description="The maximum resources of the container. A container that exceeds its memory limit is killed.",
    )


class Condition(StatusModel):
    """One aspect of the observed state, as read by `kubectl wait --for=condition=…`."""

    type: str = Field(max_length=64, description="The type of the condition in CamelCase, such as Ready.")
    status: Literal["True", "False", "Unknown"] = Field(description="The status of the condition.")
    reason: str = Field(max_length=64, description="The reason for the status as a single CamelCase word.")
    message: str = Field("", max_length=2048, description="A sentence that explains the status.")
    observed_generation: int = Field(
        0, ge=0, description="The metadata.generation that the condition is based on."
    )
    last_transition_time: Timestamp = Field(
        description="The time at which the status of the condition last changed."
    )


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        description="The conditions of the resource. GitOps tools read Ready, Reconciling and Stalled.",
        json_schema_extra=keyed_by("type"),
    ),
]


class OwnerReference(Model):
    """Reference of an object to its owner."""

    kind: str = Field(description="The kind of the owner.")
    name: str = Field(description="The name of the owner.")
    uid: str = Field(description="The unique identifier of the owner.")
    controller: bool = Field(False, description="True for the owner that manages the object.")


class FieldsManager(Model):
    """A writer of an object, and the fields that it wrote."""

    manager: str = Field("", description="The name of the program.")
    time: datetime | None = Field(None, description="The time of its latest change.")
    fields_v1: Mapping[str, Any] = Field({}, description="The fields, as nested members that start with f:.")

    def has_annotation(self, name: str) -> bool:
        """True if this writer set the annotation."""
        annotations = (self.fields_v1.get("f:metadata") or {}).get("f:annotations") or {}
        return f"f:{name}" in annotations


class ObjectMeta(Model):
    """Object metadata that the operator reads."""

    name: str = Field(description="The name, unique within the namespace.")
    namespace: str = Field("", description="The namespace.")
    uid: str = Field("", description="The unique identifier, set by the API server.")
    generation: int = Field(0, description="A number that grows with each change of spec.")
    resource_version: str = Field("", description="A value that changes with each write.")
    labels: Mapping[str, str] = Field({}, description="The labels.")
    annotations: Mapping[str, str] = Field({}, description="The annotations.")
    managed_fields: tuple[FieldsManager, ...] = Field(
        (), description="The writers of the annotation for actions; others are not kept."
    )
    owner_references: tuple[OwnerReference, ...] = Field((), description="The owners of the object.")
    creation_timestamp: datetime | None = Field(None, description="The time of creation.")
    deletion_timestamp: datetime | None = Field(
        None, description="The time of deletion, if the object is being deleted."
    )


class Resource(Model):
    """Custom resource of one of the three kinds."""

    kind_name: ClassVar[str]
    plural: ClassVar[str]
    short_name: ClassVar[str]

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.size() <= {MAX_NAME}",
            f"metadata.name must have at most {MAX_NAME} characters: the names of pods are derived from it.",
        ),
        Rule(
            f"self.metadata.name.matches(r'{_HOST_NAME}')",
            "metadata.name must start with a letter and contain only lower-case letters, digits and dashes: "
            "host names are derived from it.",
        ),
    )

    api_version: Literal["tunesmith.dev/v1alpha1"] = "tunesmith.dev/v1alpha1"
    metadata: ObjectMeta

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Resource from an object of the API server.

        Raises:
            InvalidResource: the message lists every fault with the path of its field and what to write.
        """
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise InvalidResource(describe_faults(error)) from None


def describe_faults(error: ValidationError) -> str:
    """All faults, each with the path of its field and what to write."""
    return describe_details(error.errors())


def describe_details(details: Iterable[ErrorDetails]) -> str:
    """These faults of an error, each with the path of its field and what to write."""
    return "; ".join(map(_describe_fault, details))


def _describe_fault(detail: ErrorDetails) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"])
    message = "unknown field" if detail["type"] == "extra_forbidden" else detail["msg"]
    return f"{''.join(steps).lstrip('.')}: {message.removeprefix('Value error, ')}"
