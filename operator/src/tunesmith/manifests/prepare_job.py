"""The prepare Job: reads, checks and converts the data, without a GPU."""

from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith_contract.run_config import PrepareConfig
from tunesmith_contract.uris import StorageUri, parse_uri

from .environment import Environment
from .inputs_config_map import Inputs, inputs_name
from .trainer_job import TrainerPod, build_trainer_job

STAGE = "prepare"
REQUESTS = {"cpu": "500m", "memory": "1Gi"}


def build_prepare_job(
    job: FineTuneJob, inputs: Inputs, attempt: int, environment: Environment
) -> dict[str, Any]:
    """The Job of one attempt: placed as the training pods are, without their GPUs and size."""
    assert isinstance(inputs.config, PrepareConfig)
    pod = TrainerPod(
        image=inputs.image,
        config_map=inputs_name(job),
        ca_config_map=inputs_name(job),
        reads=data_uris(inputs.config),
        writes=(parse_uri(inputs.config.output),),
        requests=REQUESTS,
        template=job.spec.compute.template,
        token_secret=inputs.token_secret or None,
    )
    return build_trainer_job(job, STAGE, attempt, pod, environment)


def data_uris(config: PrepareConfig) -> tuple[StorageUri, ...]:
    """What prepare reads: the base model (its tokenizer and configuration) and the rows."""
    uris = (config.base_model, config.train, config.validation.uri)
    return tuple(parse_uri(uri) for uri in uris if uri)
