"""Immutable ConfigMaps of a run: its inputs, the training configuration, and the note of a created EvalRun.

No later change of a resource, of the operator's settings or of its release reaches a run that has begun.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from tunesmith_contract.layout import CA_FILE, RUN_FILE
from tunesmith_contract.run_config import (
    EvaluateConfig,
    GenerateConfig,
    PrepareConfig,
    TrainConfig,
    parse_run_config,
    run_file_text,
)
from tunesmith_contract.sources import ArtifactSource

from .finished_work import FinishedRecord
from .names import Component, Owner, child_metadata, child_name
from .objects import Body, KubernetesObject

SPEC_KEY = "spec.json"
IMAGE_KEY = "image"
STARTED_KEY = "startTime"
TOKEN_SECRET_KEY = "tokenSecret"
SECRETS_KEY = "secrets.json"
INITIAL_KEY = "initial.json"
GENERATE_KEY = "generate.json"
PARAMETERS_KEY = "parameters"
EVAL_RUN_KEY = "evalRun"
FIT_KEY = "fit.json"
ENGINE_IMAGE_KEY = "engineImage"
FINISHED_KEY = "finished.json"


@dataclass(frozen=True, slots=True)
class FitVerdict:
    """Comparison of a run with the memory of its GPUs, before they were requested.

    Attributes:
        fits: None if it is not known.
        reason: a PascalCase word.
        message: an explanation for people, with numbers.
    """

    fits: bool | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of a run, as they were when the operator first saw the resource.

    Attributes:
        spec: JSON of the resource's spec.
        image: the trainer image.
        started: when the operator first acted, UTC, whole seconds.
        config: ``run.json`` of the first stage, or of the one behind ``generate``.
        token_secret: the Secret whose key ``token`` opens the hub; empty for none.
        ca_bundle: PEM of the operator's certificate authority.
        secrets: Secrets by the role in which pods find them.
        initial: the artifact of another job that training starts from.
        generate: ``run.json`` of the stage that generates rows; None where there is none.
        parameters: number of parameters of an evaluation's base model; None: unknown.
        fit: the memory verdict on an evaluation; None without GPUs.
        engine_image: serving image of an evaluation whose models answer by vLLM; else empty.
        finished: work of an earlier resource of the same name and spec, which is taken over if it is still valid.
    """

    spec: str
    image: str
    started: datetime
    config: PrepareConfig | EvaluateConfig
    ca_bundle: str
    token_secret: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    initial: ArtifactSource | None = None
    generate: GenerateConfig | None = None
    parameters: int | None = None
    fit: FitVerdict | None = None
    engine_image: str = ""
    finished: FinishedRecord | None = None


def inputs_name(owner: Owner) -> str:
    """Name of the ConfigMap with the inputs."""
    return child_name(owner, Component.INPUTS)


def build_inputs_config_map(owner: Owner, inputs: Inputs) -> KubernetesObject:
    """ConfigMap with the inputs."""
    data = {
        SPEC_KEY: inputs.spec,
        IMAGE_KEY: inputs.image,
        STARTED_KEY: inputs.started.isoformat(),
        RUN_FILE: run_file_text(inputs.config),
        TOKEN_SECRET_KEY: inputs.token_secret,
        CA_FILE: inputs.ca_bundle,
        SECRETS_KEY: json.dumps(dict(inputs.secrets), sort_keys=True),
    }
    if inputs.initial:
        data[INITIAL_KEY] = inputs.initial.to_json()
    if inputs.generate:
        data[GENERATE_KEY] = run_file_text(inputs.generate)
    if inputs.parameters:
        data[PARAMETERS_KEY] = str(inputs.parameters)
    if inputs.engine_image:
        data[ENGINE_IMAGE_KEY] = inputs.engine_image
    if inputs.finished:
        data[FINISHED_KEY] = inputs.finished.to_json()
    if inputs.fit:
        data[FIT_KEY] = json.dumps(asdict(inputs.fit), sort_keys=True)
    return _immutable_config_map(owner, Component.INPUTS, data)


def parse_inputs(config_map: Body) -> Inputs:
    """Inputs from their ConfigMap.

    Raises:
        KeyError, ValueError: it was written neither by this release nor by the last one.
    """
    data = config_map["data"]
    config = parse_run_config(data[RUN_FILE])
    if not isinstance(config, PrepareConfig | EvaluateConfig):
        raise ValueError(f"{config_map['metadata']['name']} holds the configuration of another stage")
    return Inputs(
        spec=data[SPEC_KEY],
        image=data[IMAGE_KEY],
        started=datetime.fromisoformat(data[STARTED_KEY]).astimezone(UTC),
        config=config,
        ca_bundle=data.get(CA_FILE, ""),
        token_secret=data.get(TOKEN_SECRET_KEY, ""),
        secrets=json.loads(data.get(SECRETS_KEY, "{}")),
        initial=ArtifactSource.model_validate_json(data[INITIAL_KEY]) if INITIAL_KEY in data else None,
        generate=GenerateConfig.model_validate_json(data[GENERATE_KEY]) if GENERATE_KEY in data else None,
        parameters=int(data[PARAMETERS_KEY]) if PARAMETERS_KEY in data else None,
        fit=FitVerdict(**json.loads(data[FIT_KEY])) if FIT_KEY in data else None,
        engine_image=data.get(ENGINE_IMAGE_KEY, ""),
        finished=FinishedRecord.model_validate_json(data[FINISHED_KEY]) if FINISHED_KEY in data else None,
    )


def run_name(owner: Owner) -> str:
    """Name of the ConfigMap with the training configuration."""
    return child_name(owner, Component.RUN)


def build_run_config_map(owner: Owner, config: TrainConfig) -> KubernetesObject:
    """ConfigMap with the training configuration, made once the data is prepared and every ``Auto`` is a number."""
    return _immutable_config_map(owner, Component.RUN, {RUN_FILE: run_file_text(config)})


def parse_run(config_map: Body) -> TrainConfig:
    """Training configuration from its ConfigMap.

    Raises:
        KeyError, ValueError: it was written neither by this release nor by the last one.
    """
    config = parse_run_config(config_map["data"][RUN_FILE])
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{config_map['metadata']['name']} holds the configuration of another stage")
    return config


def eval_run_note_name(owner: Owner) -> str:
    """Name of the ConfigMap that notes the created EvalRun."""
    return child_name(owner, Component.EVALUATION)


def build_eval_run_note(owner: Owner, eval_run: str | None) -> KubernetesObject:
    """ConfigMap that notes the created EvalRun, so that it is created once, even if somebody deletes it later.

    Args:
        eval_run: its name; None where an EvalRun of that name existed already.
    """
    return _immutable_config_map(owner, Component.EVALUATION, {EVAL_RUN_KEY: eval_run or ""})


def parse_eval_run_note(config_map: Body) -> str | None:
    """Name of the EvalRun in the note."""
    return config_map["data"][EVAL_RUN_KEY] or None


def _immutable_config_map(owner: Owner, component: Component, data: Mapping[str, str]) -> KubernetesObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, component),
        "immutable": True,
        "data": dict(data),
    }
