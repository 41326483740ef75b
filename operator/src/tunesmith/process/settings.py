"""The operator's settings: one frozen value, from arguments or the environment."""

import argparse
import os
import re
import socket
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import from_json

from tunesmith.api.common import Toleration
from tunesmith.api.pod_settings import GPU_RESOURCE
from tunesmith.cluster.gpu_time import label_name
from tunesmith.manifests.container_resources import LimitRules
from tunesmith.manifests.environment import ServingNetwork
from tunesmith.manifests.outbound import HUB_VARIABLE, NO_PROXY, CABundle, Outbound, Variable

PREFIX = "TUNESMITH_"

#: User and password in a URL.
_USER_INFO = re.compile(r"://[^/?#]*@")
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)


def _parse_json(value: object) -> object:
    return from_json(value or "[]") if isinstance(value, str) else value


def _parse_json_object(value: object) -> object:
    return from_json(value or "{}") if isinstance(value, str) else value


def _parse_optional_json(value: object) -> object:
    return from_json(value or "null") if isinstance(value, str) else value


def _check_distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    names = [label_name(label) for label in labels]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{', '.join(labels)}: give each a metrics' label of its own, not twice {max(names, key=names.count)}"
        )
    return labels


class Peer(BaseModel):
    """A source that a NetworkPolicy admits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    podSelector: dict[str, Any] | None = None
    namespaceSelector: dict[str, Any] | None = None
    ipBlock: dict[str, Any] | None = None


class ServingSources(BaseModel):
    """Sources that the NetworkPolicies of serving pods let in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clients: tuple[Peer, ...] = ()
    monitoring: tuple[Peer, ...] = ()

    def to_network(self) -> ServingNetwork:
        """The sources as manifests take them."""
        clients, monitoring = (
            tuple(peer.model_dump(exclude_none=True) for peer in peers)
            for peers in (self.clients, self.monitoring)
        )
        return ServingNetwork(clients, monitoring)


class GPUPrice(BaseModel):
    """Price of an hour of a GPU, by the name of its extended resource."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resource: str = Field(min_length=1)
    perHour: float = Field(gt=0)
    currency: str = Field(min_length=1, max_length=8)


class LimitRatios(BaseModel):
    """Limits of containers that nobody limits, as multiples of their requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: Decimal | None = Field(None, ge=1, le=1000)
    memory: Decimal | None = Field(None, ge=1, le=1000)
    ephemeral_storage: Decimal | None = Field(None, alias="ephemeral-storage", ge=1, le=1000)

    def to_rules(self) -> LimitRules:
        """The ratios as manifests take them."""
        return LimitRules(
            {name: str(ratio) for name, ratio in self.model_dump(by_alias=True).items() if ratio}
        )


class KeyReference(BaseModel):
    """A key of a Secret or ConfigMap in the namespace of the pod."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    key: str = Field(min_length=1)


class VariableSource(BaseModel):
    """Where the value of a variable lies: exactly one of the members."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secretKeyRef: KeyReference | None = None
    configMapKeyRef: KeyReference | None = None


class DefaultVariable(BaseModel):
    """A variable of all pods that reach addresses outside the cluster, as in a container."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    value: str | None = None
    valueFrom: VariableSource | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what would show a password, and what the operator itself sets."""
        if self.name.startswith(PREFIX):
            raise ValueError(f"{self.name} is a variable of the operator's own: leave it out")
        if (self.value is None) == (self.valueFrom is None):
            raise ValueError(f"{self.name}: write either value or valueFrom")
        if self.name.upper() == NO_PROXY and self.value is None:
            raise ValueError(f"{self.name}: write its value, which the names of the cluster are added to")
        if self.value is not None and (_USER_INFO.search(self.value) or _SECRET_NAME.search(self.name)):
            raise ValueError(f"{self.name} holds a password: write valueFrom.secretKeyRef instead of value")
        return self

    def to_variable(self) -> Variable:
        """The variable without its name, as manifests take it."""
        return self.model_dump(exclude_none=True, exclude={"name"})


class Settings(BaseModel):
    """Values given as ``--some-name value`` or as ``TUNESMITH_SOME_NAME``; the argument wins.

    The kubeconfig of a process outside a cluster is named by ``KUBECONFIG``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str = Field("tunesmith-system", description="namespace of the operator itself")
    watch_namespaces: tuple[str, ...] = Field((), description="comma-separated; empty: all namespaces")
    trainer_image: str = Field("tunesmith/trainer:dev", description="default image of training pods")
    trainer_cuda: int = Field(13, ge=12, le=13, description="major version of CUDA in that training image")
    serving_image: str = Field(
        "tunesmith/serving:dev", description="default image of serving pods without GPUs"
    )
    serving_gpu_image: str = Field(
        "tunesmith/serving-gpu:dev",
        description="default image of serving pods with GPUs; empty: there is none",
    )
    serving_gpu_cuda: int = Field(
        13, ge=12, le=13, description="major version of CUDA in that serving image for GPUs"
    )
    service_name: str = Field("tunesmith", description="Service in front of the TLS port")
    service_port: int = Field(8443, description="port of that Service")
    tls_secret: str = Field("tunesmith-tls", description="Secret that keeps the operator's own certificates")
    lease_name: str = Field("tunesmith", description="Lease by which replicas elect their leader")
    controller_name: str = Field(
        "",
        pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$",
        description="the operator acts on resources with this value of the label tunesmith.dev/controller only; "
        "empty: on those without the label",
    )
    claim_namespace: str = Field(
        "",
        description="namespace of the Lease by which one installation of a controller name acts on all namespaces; "
        "empty: nothing keeps a second one from acting too",
    )
    pod_name: str = Field(default_factory=socket.gethostname, description="name of this replica")
    host: str = Field("", description="address to listen on; empty: all")
    http_port: int = Field(8080, description="port of /metrics, /livez and /readyz")
    tls_port: int = Field(8443, description="port for training pods and serving agents")
    lost_pod_seconds: float = Field(
        300.0,
        gt=0,
        description="seconds beyond its grace period until a pod on an unreachable node counts as lost",
    )
    gpu_runtime_class: str = Field("", description="default RuntimeClass of pods with GPUs, such as nvidia")
    gpu_tolerations: Annotated[tuple[Toleration, ...], BeforeValidator(_parse_json)] = Field(
        (), description="tolerations of all pods with GPUs, as a JSON list"
    )
    gpu_prices: Annotated[tuple[GPUPrice, ...], BeforeValidator(_parse_json)] = Field(
        (),
        description="prices of GPUs in metrics, as a JSON list of objects with resource, perHour and currency",
    )
    metrics_owner_labels: Annotated[
        tuple[str, ...], BeforeValidator(_parse_json), AfterValidator(_check_distinct)
    ] = Field(
        (), description="labels of resources that become labels of the metrics of GPU time, as a JSON list"
    )
    gpu_resource: str = Field(
        GPU_RESOURCE, description="extended resource of GPUs where no resource names one"
    )
    limit_request_ratio: Annotated[LimitRatios, BeforeValidator(_parse_json_object)] = Field(
        LimitRatios(),
        description="limits of all containers that nobody limits, by the ratio to their requests, as a JSON object of "
        "decimal numbers for cpu, memory and ephemeral-storage",
    )
    serving_network: Annotated[ServingSources | None, BeforeValidator(_parse_optional_json)] = Field(
        None,
        description="sources that may reach serving pods, as JSON with clients and monitoring, each a list of "
        "NetworkPolicyPeers; empty: no NetworkPolicy is made",
    )
    traces_endpoint: str = Field(
        "", description="default endpoint of serving pods for traces (OTLP over HTTP); empty: no traces"
    )
    traces_ratio: float = Field(
        0.01, ge=0, le=1, description="default share of requests that are recorded in traces"
    )
    platform: Literal["Auto", "Kubernetes", "OpenShift"] = Field(
        "Auto",
        description="OpenShift: pods get the users and groups that their namespace assigns; Kubernetes: pods have "
        "fixed ones; Auto: OpenShift where the API server knows SecurityContextConstraints",
    )
    default_env: Annotated[tuple[DefaultVariable, ...], BeforeValidator(_parse_json)] = Field(
        (), description="variables of all pods, such as those of a proxy, as a JSON list"
    )
    ca_config_map: str = Field(
        "", description="ConfigMap in each namespace with authorities that all pods trust; empty: none"
    )
    ca_key: str = Field("ca.crt", description="key of that ConfigMap")
    hf_endpoint: str = Field("", description="URL of a mirror of the Hugging Face Hub; empty: the hub itself")
    workers: int = Field(16, ge=1, le=256, description="resources that are reconciled at a time")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="lowest level to log")
    log_format: Literal["json", "text"] = Field("json", description="form of the log lines")

    @property
    def outbound(self) -> Outbound:
        """What all pods need to reach addresses outside the cluster."""
        variables = {variable.name: variable.to_variable() for variable in self.default_env}
        if self.hf_endpoint:
            variables[HUB_VARIABLE] = {"value": self.hf_endpoint}
        return Outbound(variables, CABundle(self.ca_config_map, self.ca_key) if self.ca_config_map else None)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names under which pods reach the operator; the first is the one in their configuration."""
        service = f"{self.service_name}.{self.namespace}.svc"
        return (service, f"{service}.cluster.local")

    @property
    def operator_url(self) -> str:
        """The URL under which pods reach the operator."""
        return f"https://{self.hosts[0]}:{self.service_port}"


def read_settings(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of these arguments and this environment.

    Raises:
        SystemExit: an unknown argument.
        ValueError: a value that does not fit.
    """
    parser = argparse.ArgumentParser(prog="python -m tunesmith", description=__doc__)
    for name, field in Settings.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, help=field.description)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    for name in Settings.model_fields:
        if name not in given and f"{PREFIX}{name.upper()}" in environ:
            given[name] = environ[f"{PREFIX}{name.upper()}"]
    if isinstance(given.get("watch_namespaces"), str):
        given["watch_namespaces"] = tuple(part for part in given["watch_namespaces"].split(",") if part)
    return Settings.model_validate(given)
