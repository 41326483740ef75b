"""The prepare Job: reads, checks and converts the data, without a GPU."""

from collections.abc import Mapping
from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith_contract.run_config import PrepareConfig
from tunesmith_contract.uris import StorageUri, parse_uri

from .environment import Environment
from .inputs_config_map import Inputs, inputs_name
from .trainer_job import TrainerPod, build_trainer_job

STAGE = "prepare"

#: A million rows are to go through a gibibyte. There is no limit: rows that are wider than most cost time, not the run.
REQUESTS = {"cpu": "500m", "memory": "1Gi"}


def build_prepare_job(
    job: FineTuneJob,
    inputs: Inputs,
    attempt: int,
    environment: Environment,
    secrets: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The Job of one attempt: placed as the training pods are, without their GPUs and size.

    Args:
        secrets: what prepare opens, by role.
    """
    assert isinstance(inputs.config, PrepareConfig)
    pod = TrainerPod(
        image=inputs.image,
        config_map=inputs_name(job),
        ca_config_map=inputs_name(job),
        reads=data_uris(inputs.config),
        writes=tuple(parse_uri(uri) for uri in (inputs.config.output, inputs.config.workspace) if uri),
        requests=REQUESTS,
        template=job.spec.compute.template,
        token_secret=inputs.token_secret or None,
        secrets=secrets or {},
    )
    return build_trainer_job(job, STAGE, attempt, pod, environment)


def data_uris(config: PrepareConfig) -> tuple[StorageUri, ...]:
    """URIs that prepare reads: base model and teacher (tokenizer and configuration), rows, and held-out rows."""
    distillation = config.method.distillation
    teacher = distillation.teacher.uri if distillation else None
    held_out = (each.uri for each in config.held_out)
    rows = (*config.train, config.generated, config.validation.uri, *held_out)
    uris = (config.base_model, *rows, teacher)
    return tuple(parse_uri(uri) for uri in uris if uri)
