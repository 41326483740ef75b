"""The generate Job: lets a teacher make rows, without a GPU."""

from collections.abc import Mapping

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith_contract.run_config import GenerateConfig
from tunesmith_contract.uris import Scheme, StorageUri, parse_uri

from .environment import Environment
from .inputs_config_map import GENERATE_KEY, Inputs, inputs_name
from .objects import KubernetesObject
from .trainer_job import TrainerPod, build_trainer_job

STAGE = "generate"
REQUESTS = {"cpu": "250m", "memory": "512Mi"}

#: From the signal to the end: answers that are on their way are paid for, so they are waited for.
GRACE_SECONDS = 120


def build_generate_job(
    job: FineTuneJob,
    inputs: Inputs,
    attempt: int,
    environment: Environment,
    secrets: Mapping[str, str] | None = None,
) -> KubernetesObject:
    """The Job of one attempt: placed as the training pods are, without their GPUs and size.

    Args:
        secrets: what generation opens, by role.
    """
    assert inputs.generate is not None
    reads = generation_uris(inputs.generate)
    fetches = any(uri.scheme is Scheme.HF for uri in reads)
    pod = TrainerPod(
        image=inputs.image,
        config_map=inputs_name(job),
        config_key=GENERATE_KEY,
        ca_config_map=inputs_name(job),
        reads=reads,
        writes=tuple(parse_uri(uri) for uri in (inputs.generate.output, inputs.generate.workspace) if uri),
        requests=REQUESTS,
        template=job.spec.compute.template,
        token_secret=(inputs.token_secret or None) if fetches else None,
        secrets=secrets or {},
        grace_seconds=GRACE_SECONDS,
    )
    return build_trainer_job(job, STAGE, attempt, pod, environment)


def generation_uris(config: GenerateConfig) -> tuple[StorageUri, ...]:
    """What generation reads: the rows it starts from, those it keeps clear of, and a tokenizer if rewards count."""
    uris = (config.base_model, config.generation.source, *(each.uri for each in config.held_out))
    return tuple(parse_uri(uri) for uri in uris if uri)
