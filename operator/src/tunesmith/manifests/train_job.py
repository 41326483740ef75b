"""The train Job: trains on what was prepared and commits the artefact."""

from collections.abc import Mapping

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith_contract.layout import MICRO_BATCH_ENV
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.uris import StorageUri, parse_uri

from .environment import Environment
from .inputs_config_map import Inputs, inputs_name
from .objects import KubernetesObject
from .run_config_map import run_name
from .trainer_job import TrainerPod, build_trainer_job

STAGE = "train"
REQUESTS = {"cpu": "1", "memory": "4Gi"}

#: From the signal to the end: a step is finished and a checkpoint committed.
GRACE_SECONDS = 120


def build_train_job(
    job: FineTuneJob,
    inputs: Inputs,
    run: TrainConfig,
    attempt: int,
    environment: Environment,
    micro_batch_size: int | None = None,
    longest_seconds: int | None = None,
    secrets: Mapping[str, str] | None = None,
) -> KubernetesObject:
    """The Job of one attempt: a new gang that goes on from the last committed checkpoint.

    Args:
        micro_batch_size: other than the run's, after memory ran out.
        longest_seconds: how long its pods may run.
        secrets: what training opens, by role.
    """
    compute = job.spec.compute
    pod = TrainerPod(
        image=run.image,
        config_map=run_name(job),
        ca_config_map=inputs_name(job),
        reads=training_uris(run),
        writes=tuple(parse_uri(uri) for uri in (run.output, run.workspace) if uri),
        requests=REQUESTS,
        resources=compute.resources,
        template=compute.template,
        token_secret=inputs.token_secret or None,
        secrets=secrets or {},
        gpus=run.gpus_per_node,
        grace_seconds=GRACE_SECONDS,
        nodes=run.nodes,
        longest_seconds=longest_seconds,
        variables={MICRO_BATCH_ENV: str(micro_batch_size)} if micro_batch_size else {},
    )
    return build_trainer_job(job, STAGE, attempt, pod, environment)


def training_uris(run: TrainConfig) -> tuple[StorageUri, ...]:
    """What training reads: the base model, what it starts from, reward models, a teacher."""
    models = [reward.model for reward in run.method.rewards if reward.model]
    distillation = run.method.distillation
    uris = (
        run.base_model,
        run.initial.uri if run.initial else None,
        *(uri for model in models for uri in (model.uri, model.base_model)),
        distillation.teacher.uri if distillation else None,
    )
    return tuple(parse_uri(uri) for uri in uris if uri)
