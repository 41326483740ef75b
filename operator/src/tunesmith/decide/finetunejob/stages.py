"""Definitions of the stages of a FineTuneJob: generate, prepare and train."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import FineTuneJobPhase, FineTuneJobReason
from tunesmith.decide.fit.grace_period import training_grace_seconds
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.claims import (
    CACHE_FIELD,
    DATA_TEMPLATE_FIELD,
    TEMPLATE_FIELD,
    cache_uri,
    volume_fields,
)
from tunesmith.decide.run.limits import RunLimits, budget_seconds_left
from tunesmith.decide.run.outbound import authority_fields, proxy_secret_fields
from tunesmith.decide.run.references import References
from tunesmith.decide.run.stage import BegunAttempts, StageDefinition, starts_nothing
from tunesmith.decide.run.summary import is_job_refused
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.gang_service import build_gang_service
from tunesmith.manifests.names import QUEUE_LABEL
from tunesmith.manifests.objects import KubernetesObject
from tunesmith.manifests.result_config_map import AttemptRecord, Remedy
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith.manifests.stage_jobs import SMALL_REQUESTS, build_data_job, build_train_job
from tunesmith.manifests.trial_job import STOP_ANNOTATION, search_of
from tunesmith_contract.report import Failure, ModelReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.stages import Stage

from .claims import model_fields
from .finished import work_to_check
from .generation import generate_secrets
from .inputs import data_fields
from .observed import ObservedTraining
from .out_of_memory import find_remedy, micro_batch_size, without_remedy
from .secrets import prepare_secrets, secret_fields, train_secrets


def generate_stage(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, environment: Environment
) -> StageDefinition:
    """Stage in which a teacher makes rows."""
    assert inputs.generate is not None
    secrets = generate_secrets(inputs.secrets, inputs.generate)
    return _define_stage(
        job,
        observed,
        environment,
        Stage.GENERATE,
        build=lambda attempt, _: (
            build_data_job(job, inputs, Stage.GENERATE, attempt, environment, secrets),
        ),
        started=FineTuneJobReason.GENERATING,
        ended=None,
    )


def prepare_stage(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, environment: Environment
) -> StageDefinition:
    """Stage that reads, checks and converts the data."""
    secrets, finished = prepare_secrets(inputs.secrets), work_to_check(inputs)
    return _define_stage(
        job,
        observed,
        environment,
        Stage.PREPARE,
        build=lambda attempt, _: (
            build_data_job(job, inputs, Stage.PREPARE, attempt, environment, secrets, finished),
        ),
        started=FineTuneJobReason.PREPARING,
        ended=FineTuneJobReason.PREPARED,
    )


def train_stage(
    job: FineTuneJob,
    observed: ObservedTraining,
    inputs: Inputs,
    run: TrainConfig | None,
    environment: Environment,
    requests: Mapping[str, str] = SMALL_REQUESTS,
) -> StageDefinition:
    """Stage that trains, in gangs over all nodes.

    Args:
        requests: default requests of its pods.
    """
    limits, secrets = _training_limits(job), train_secrets(inputs.secrets)

    def build(attempt: int, children: Children) -> tuple[KubernetesObject, ...]:
        assert run is not None
        micro_batch = micro_batch_size(run, children.records_of(Stage.TRAIN))
        train_job = build_train_job(
            job,
            inputs,
            run,
            attempt,
            environment,
            micro_batch if micro_batch != run.hyperparameters.micro_batch_size else None,
            budget_seconds_left(limits, children),
            secrets,
            requests,
            grace_seconds=training_grace_seconds(_prepared_model(children), run),
        )
        return (build_gang_service(job, Stage.TRAIN, attempt), train_job) if run.nodes > 1 else (train_job,)

    def remedy(failure: Failure, records: Sequence[AttemptRecord]) -> Remedy | Failure:
        if run is None:
            return failure
        return find_remedy(run, failure, records) or without_remedy(run, failure, records)

    stage = _define_stage(
        job,
        observed,
        environment,
        Stage.TRAIN,
        build=build,
        started=FineTuneJobReason.TRAINING,
        ended=FineTuneJobReason.TRAINED,
    )
    return replace(stage, limits=limits, nodes=job.spec.compute.nodes, remedy=remedy)


def unknown_stage(
    job: FineTuneJob, observed: ObservedTraining, name: Stage, environment: Environment
) -> StageDefinition:
    """Stage of a job whose inputs are lost: its live attempt goes on, and another can't be started."""
    stage = _define_stage(
        job, observed, environment, name, build=starts_nothing, started=FineTuneJobReason.TRAINING, ended=None
    )
    if name is not Stage.TRAIN:
        return stage
    return replace(stage, limits=_training_limits(job), nodes=job.spec.compute.nodes)


def _training_limits(job: FineTuneJob) -> RunLimits:
    compute, hours = job.spec.compute, job.spec.budget.gpu_hours if job.spec.budget else None
    return RunLimits(
        deadline_seconds=job.spec.active_deadline_seconds,
        budget_gpu_seconds=float(hours) * 3600 if hours else None,
        gpus=compute.nodes * compute.gpus_per_node,
        stopped=job.metadata.annotations.get(STOP_ANNOTATION, "") if search_of(job) else "",
    )


def _prepared_model(children: Children) -> ModelReport | None:
    """The base model's sizes, as the last attempt of prepare reported them."""
    reports = [record.report for record in children.records_of(Stage.PREPARE) if record.report]
    return reports[-1].model if reports else None


def _define_stage(
    job: FineTuneJob,
    observed: ObservedTraining,
    environment: Environment,
    name: Stage,
    build: Callable[[int, Children], tuple[KubernetesObject, ...]],
    started: FineTuneJobReason,
    ended: FineTuneJobReason | None,
) -> StageDefinition:
    """The settings that all stages of the job share."""
    return StageDefinition(
        owner=job,
        name=name,
        build=build,
        backoff_limit=job.spec.backoff_limit,
        references=_references(job, observed, environment),
        started=started,
        ended=ended,
        limits=RunLimits(deadline_seconds=job.spec.active_deadline_seconds),
        suspended=job.spec.suspend,
        queued=QUEUE_LABEL in job.metadata.labels,
        lost_pod_seconds=environment.lost_pod_seconds,
        begun=begun_attempts(job),
    )


def begun_attempts(job: FineTuneJob) -> BegunAttempts:
    """Attempts that have begun, as status tells them."""
    if job.status.phase in {FineTuneJobPhase.SUCCEEDED, FineTuneJobPhase.FAILED}:
        return BegunAttempts()
    progress, refused = job.status.progress, is_job_refused(job.status.conditions)
    return BegunAttempts(job.status.attempts - refused, progress.last_update_time if progress else None)


def _references(job: FineTuneJob, observed: ObservedTraining, environment: Environment) -> References:
    spec = job.spec
    data = spec.dataset.compute.template if spec.dataset.compute else None
    written = {
        "spec.baseModel.uri": spec.base_model.uri,
        **data_fields(spec),
        "spec.workspace.uri": spec.workspace.uri if spec.workspace else None,
        "spec.output.uri": spec.output.uri,
        **model_fields(spec),
        CACHE_FIELD: cache_uri(spec.compute.cache_volume),
        **volume_fields(data, DATA_TEMPLATE_FIELD),
        **volume_fields(spec.compute.template, TEMPLATE_FIELD),
        **authority_fields(spec.compute.template, environment.outbound),
        **(authority_fields(data, environment.outbound, DATA_TEMPLATE_FIELD) if data else {}),
    }
    secrets = {
        **{field: name for name, field in secret_fields(spec).values()},
        **proxy_secret_fields(spec.compute.template, environment.outbound),
        **(proxy_secret_fields(data, environment.outbound, DATA_TEMPLATE_FIELD) if data else {}),
    }
    related = observed.related
    return References.of(
        job.metadata.namespace,
        written,
        secrets,
        related.missing_config_maps,
        related.mount_failures,
        related.creation_failures,
    )
