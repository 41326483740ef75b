"""The stages of a FineTuneJob."""

from collections.abc import Sequence

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.decide.plan import Manifest as Body
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.limits import Limits, budget_seconds_left
from tunesmith.decide.run.stage import Stage
from tunesmith.decide.run.waiting import References
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.gang_service import build_gang_service
from tunesmith.manifests.generate_job import STAGE as GENERATE
from tunesmith.manifests.generate_job import build_generate_job
from tunesmith.manifests.inputs_config_map import Inputs
from tunesmith.manifests.names import QUEUE_LABEL
from tunesmith.manifests.prepare_job import STAGE as PREPARE
from tunesmith.manifests.prepare_job import build_prepare_job
from tunesmith.manifests.result_config_map import AttemptRecord, Remedy
from tunesmith.manifests.train_job import STAGE as TRAIN
from tunesmith.manifests.train_job import build_train_job
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import TrainConfig

from .generation import for_generate
from .inputs import data_fields
from .observed import ObservedTraining
from .out_of_memory import find_remedy, micro_batch_size, without_remedy
from .secrets import for_prepare, for_train, secret_fields


def generate_stage(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, environment: Environment
) -> Stage:
    """Let a teacher make rows."""
    assert inputs.generate is not None
    secrets = for_generate(inputs.secrets, inputs.generate)
    return Stage(
        owner=job,
        name=GENERATE,
        build=lambda attempt, _: (build_generate_job(job, inputs, attempt, environment, secrets),),
        backoff_limit=job.spec.backoff_limit,
        limits=Limits(deadline_seconds=job.spec.active_deadline_seconds),
        references=_references(job, observed),
        started=FineTuneJobReason.GENERATING,
        ended=None,
        suspended=job.spec.suspend,
        queued=QUEUE_LABEL in job.metadata.labels,
        lost_pod_seconds=environment.lost_pod_seconds,
    )


def prepare_stage(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, environment: Environment
) -> Stage:
    """Read, check and convert the data."""
    secrets = for_prepare(inputs.secrets)
    return Stage(
        owner=job,
        name=PREPARE,
        build=lambda attempt, _: (build_prepare_job(job, inputs, attempt, environment, secrets),),
        backoff_limit=job.spec.backoff_limit,
        limits=Limits(deadline_seconds=job.spec.active_deadline_seconds),
        references=_references(job, observed),
        started=FineTuneJobReason.PREPARING,
        ended=FineTuneJobReason.PREPARED,
        suspended=job.spec.suspend,
        queued=QUEUE_LABEL in job.metadata.labels,
        lost_pod_seconds=environment.lost_pod_seconds,
    )


def train_stage(
    job: FineTuneJob,
    observed: ObservedTraining,
    inputs: Inputs,
    run: TrainConfig | None,
    environment: Environment,
) -> Stage:
    """Train in gangs of all nodes."""
    compute, secrets = job.spec.compute, for_train(inputs.secrets)
    hours = job.spec.budget.gpu_hours if job.spec.budget else None
    limits = Limits(
        deadline_seconds=job.spec.active_deadline_seconds,
        budget_gpu_seconds=float(hours) * 3600 if hours else None,
        gpus=compute.nodes * compute.gpus_per_node,
    )

    def build(attempt: int, children: Children) -> tuple[Body, ...]:
        assert run is not None
        micro = micro_batch_size(run, children.records_of(TRAIN))
        changed = micro != run.hyperparameters.micro_batch_size
        longest = budget_seconds_left(limits, children)
        made = build_train_job(
            job, inputs, run, attempt, environment, micro if changed else None, longest, secrets
        )
        return (build_gang_service(job, TRAIN, attempt), made) if run.nodes > 1 else (made,)

    def remedy(failure: Failure, records: Sequence[AttemptRecord]) -> Remedy | Failure:
        if run is None:
            return failure
        return find_remedy(run, failure, records) or without_remedy(run, failure, records)

    return Stage(
        owner=job,
        name=TRAIN,
        build=build,
        backoff_limit=job.spec.backoff_limit,
        references=_references(job, observed),
        started=FineTuneJobReason.TRAINING,
        ended=FineTuneJobReason.TRAINED,
        limits=limits,
        nodes=compute.nodes,
        remedy=remedy,
        suspended=job.spec.suspend,
        queued=QUEUE_LABEL in job.metadata.labels,
        lost_pod_seconds=environment.lost_pod_seconds,
    )


def _references(job: FineTuneJob, observed: ObservedTraining) -> References:
    spec = job.spec
    teacher = spec.method.distillation.teacher if spec.method.distillation else None
    written = {
        "spec.baseModel.uri": spec.base_model.uri,
        **data_fields(spec),
        "spec.workspace.uri": spec.workspace.uri if spec.workspace else None,
        "spec.output.uri": spec.output.uri,
        "spec.method.distillation.teacher.uri": teacher.uri if teacher else None,
    }
    for reward in spec.method.rewards:
        field = f"spec.method.{spec.method.key}.rewards[{reward.name}].model.uri"
        written[field] = reward.model.uri if reward.model else None
    secrets = {field: name for name, field in secret_fields(spec).values()}
    around = observed.around
    return References.of(
        job.metadata.namespace, written, secrets, around.missing_config_maps, around.mount_failures
    )
