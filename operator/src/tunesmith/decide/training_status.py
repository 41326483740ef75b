"""The status of a FineTuneJob, made anew each time from what is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import (
    DatasetStatus,
    FineTuneJobStatus,
    JobArtifact,
    JobCost,
    Progress,
    Resolved,
)
from tunesmith.api.reasons import ConditionType, FineTuneJobPhase, FineTuneJobReason
from tunesmith.api.values import format_duration
from tunesmith.manifests.inputs_config_map import Inputs
from tunesmith.manifests.prepare_job import STAGE as PREPARE
from tunesmith.manifests.train_job import STAGE as TRAIN
from tunesmith_contract.progress import EVAL_REWARD, REWARD, TrainerStatus
from tunesmith_contract.report import DatasetReport, TrainingReport
from tunesmith_contract.run_config import TrainConfig

from .attempts import StageState, Step
from .conditions import ConditionUpdate, merge_conditions
from .defaults import is_packed
from .summary import (
    attempt_conditions,
    build_cost,
    build_failure,
    conditions_of,
    decimal,
    ended_conditions,
    stage_condition,
)


@dataclass(frozen=True, slots=True)
class TrainingView:
    """What a status is made of.

    Attributes:
        inputs, run: the snapshots; ``run`` is None until the data is prepared.
        step: where the current stage stands.
        stage: ``prepare`` or ``train``.
        eval_run: name of the EvalRun that was made.
        progress: the latest news from the current attempt.
    """

    inputs: Inputs
    run: TrainConfig | None
    step: Step
    stage: str
    eval_run: str | None
    progress: TrainerStatus | None


def build_training_status(job: FineTuneJob, view: TrainingView, now: datetime) -> dict[str, Any]:
    """The whole status as a plain dict."""
    children, phase = view.step.children, _phase(view)
    prepared, trained = view.step.report(PREPARE), view.step.report(TRAIN)
    dataset = prepared.dataset if prepared else None
    training = trained.training if trained else None
    last = view.step.last_record(view.stage)
    over = phase in {FineTuneJobPhase.SUCCEEDED, FineTuneJobPhase.FAILED}
    status = FineTuneJobStatus(
        phase=phase,
        observed_generation=job.metadata.generation,
        method=job.spec.method.name,
        resolved=_resolved(view, dataset),
        dataset=DatasetStatus.model_validate(dataset.to_dict()) if dataset else None,
        progress=_progress(job, view, training),
        artifact=JobArtifact.model_validate(training.artifact.to_dict()) if training else None,
        eval_run=view.eval_run,
        cost=JobCost(gpu_seconds=build_cost(children.gpu_seconds).gpu_seconds),
        failure=build_failure(last) if phase is FineTuneJobPhase.FAILED else None,
        start_time=view.inputs.started,
        completion_time=last.ended_at if over and last else None,
        attempts=view.step.attempt,
        disruptions=children.disruptions,
    )
    updates = _conditions(job, view, phase, dataset, training)
    conditions = merge_conditions(conditions_of(job.status.conditions), updates, job.metadata.generation, now)
    return status.to_dict() | {"conditions": conditions}


def _phase(view: TrainingView) -> FineTuneJobPhase:
    match view.step.state:
        case StageState.SUCCEEDED:
            return FineTuneJobPhase.SUCCEEDED
        case StageState.FAILED:
            return FineTuneJobPhase.FAILED
        case StageState.SUSPENDED:
            return FineTuneJobPhase.SUSPENDED
        case StageState.QUEUED:
            return FineTuneJobPhase.QUEUED
        case StageState.RUNNING | StageState.BACKING_OFF:
            return FineTuneJobPhase.PREPARING if view.stage == PREPARE else FineTuneJobPhase.TRAINING


def _resolved(view: TrainingView, dataset: DatasetReport | None) -> Resolved:
    run = view.run
    if run is None:
        return Resolved(image=view.inputs.image, dataset_digest=dataset.digest if dataset else None)
    return Resolved(
        base_model=run.base_model,
        base_model_revision=run.base_model_revision,
        initial_digest=run.initial.digest if run.initial else None,
        dataset_digest=run.dataset_digest,
        image=run.image,
        learning_rate=decimal(run.hyperparameters.learning_rate),
        batch_size=run.hyperparameters.batch_size,
        micro_batch_size=run.hyperparameters.micro_batch_size,
        packing=is_packed(run.method),
        parallelism=run.parallelism,
        offload=run.offload,
        activation_checkpointing=run.activation_checkpointing,
    )


def _progress(job: FineTuneJob, view: TrainingView, training: TrainingReport | None) -> Progress | None:
    if training is not None:
        return _final_progress(training)
    if view.stage != TRAIN:
        return None
    if view.progress is None:
        return job.status.progress
    return _live_progress(view.progress, job.status.progress or Progress())


def _final_progress(training: TrainingReport) -> Progress:
    return Progress(
        step=training.steps,
        total_steps=training.steps,
        percent="100%",
        epoch=decimal(training.epochs),
        loss=decimal(training.loss),
        eval_loss=decimal(training.eval_loss),
        reward=decimal(training.reward),
        eval_reward=decimal(training.eval_reward),
        tokens_per_second=decimal(training.tokens_per_second),
    )


def _live_progress(news: TrainerStatus, before: Progress) -> Progress:
    """The news; what they leave out of the steps stays as it was: transformers' last word names none."""
    metrics = {metric.name: metric.value for metric in news.metrics}
    percent, remaining = news.progress_percentage, news.estimated_remaining_seconds
    return Progress(
        step=_whole(metrics, "current_step") or before.step,
        total_steps=_whole(metrics, "total_steps") or before.total_steps,
        percent=None if percent is None else f"{percent}%",
        epoch=_number(metrics, "current_epoch"),
        loss=_number(metrics, "loss"),
        eval_loss=_number(metrics, "eval_loss"),
        reward=_number(metrics, REWARD),
        eval_reward=_number(metrics, EVAL_REWARD),
        tokens_per_second=_number(metrics, "tokens_per_second"),
        remaining=None if remaining is None else format_duration(min(remaining, 10**7)),
        last_update_time=news.last_updated_time.replace(microsecond=0),
    )


def _whole(metrics: Mapping[str, str], name: str) -> int:
    number = _number(metrics, name)
    return max(0, int(float(number))) if number else 0


def _number(metrics: Mapping[str, str], name: str) -> str | None:
    """A pod's word for a number, if it is one: pods are not to be believed blindly."""
    try:
        value = float(metrics.get(name, ""))
        return decimal(value) if abs(value) < 10**15 else None
    except ValueError:
        return None


def _conditions(
    job: FineTuneJob,
    view: TrainingView,
    phase: FineTuneJobPhase,
    dataset: DatasetReport | None,
    training: TrainingReport | None,
) -> list[ConditionUpdate]:
    """Ready, Reconciling, Stalled and Succeeded for all; DataReady and Trained for who waits for a stage."""
    step, last = view.step, view.step.last_record(view.stage)
    if training is not None:
        message = f"The artefact is {training.artifact.digest}."
        common = ended_conditions(True, FineTuneJobReason.SUCCEEDED, message)
    elif phase is FineTuneJobPhase.FAILED and last is not None:
        common = ended_conditions(False, last.reason, last.failure.message if last.failure else "")
    else:
        common = attempt_conditions(step, last, _activity(job, view, phase))
    found = f"{dataset.train_rows} rows to train on, {dataset.validation_rows} held out." if dataset else ""
    data = stage_condition(
        ConditionType.DATA_READY,
        step,
        PREPARE,
        FineTuneJobReason.PREPARED,
        found,
        FineTuneJobReason.PREPARING,
    )
    if view.stage == PREPARE:
        return [*common, data]
    done = f"{training.steps} steps." if training else ""
    trained = stage_condition(
        ConditionType.TRAINED, step, TRAIN, FineTuneJobReason.TRAINED, done, FineTuneJobReason.TRAINING
    )
    return [*common, data, trained]


def _activity(job: FineTuneJob, view: TrainingView, phase: FineTuneJobPhase) -> tuple[str, str]:
    """Reason and message while nothing hinders."""
    name = f"Attempt {view.step.attempt} of {view.stage}"
    match phase:
        case FineTuneJobPhase.SUSPENDED:
            return FineTuneJobReason.SUSPENDED, "Held by spec.suspend; false lets it go on."
        case FineTuneJobPhase.QUEUED:
            return FineTuneJobReason.QUEUED, f"{name} waits in its queue."
    if job.spec.suspend:
        return (
            FineTuneJobReason.SUSPENDED,
            f"{name} belongs to a queue, which alone may hold it: no other attempt starts while spec.suspend is "
            "true. To stop this one, set spec.active: false on its Workload.",
        )
    reason = FineTuneJobReason.PREPARING if view.stage == PREPARE else FineTuneJobReason.TRAINING
    return reason, f"{name} runs."
