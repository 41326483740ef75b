"""The train Job: trains on what was prepared and commits the artefact."""

from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith_contract.layout import MICRO_BATCH_ENV
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.uris import parse_uri

from .environment import Environment
from .inputs_config_map import Inputs, inputs_name
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
) -> dict[str, Any]:
    """The Job of one attempt: a new gang that goes on from the last committed checkpoint.

    Args:
        micro_batch_size: other than the run's, after memory ran out.
        longest_seconds: how long its pods may run.
    """
    compute = job.spec.compute
    pod = TrainerPod(
        image=run.image,
        config_map=run_name(job),
        ca_config_map=inputs_name(job),
        reads=(parse_uri(run.base_model),),
        writes=(parse_uri(run.output),),
        requests=REQUESTS,
        resources=compute.resources,
        template=compute.template,
        token_secret=inputs.token_secret or None,
        gpus=run.gpus_per_node,
        grace_seconds=GRACE_SECONDS,
        nodes=run.nodes,
        longest_seconds=longest_seconds,
        variables={MICRO_BATCH_ENV: str(micro_batch_size)} if micro_batch_size else {},
    )
    return build_trainer_job(job, STAGE, attempt, pod, environment)
