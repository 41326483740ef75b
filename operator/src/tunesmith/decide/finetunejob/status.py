"""The status of a FineTuneJob, made anew each time from what is known."""

from collections.abc import Mapping
from datetime import datetime
from math import exp
from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import (
    FineTuneJobStatus,
    Progress,
    Resolved,
)
from tunesmith.api.reasons import ConditionType, FineTuneJobPhase, FineTuneJobReason
from tunesmith.api.values import format_duration
from tunesmith.decide.conditions import ConditionUpdate, merge_conditions
from tunesmith.decide.fit.admission import admission_conditions, shown_gpu_memory, shown_memory
from tunesmith.decide.run.stage import StageState
from tunesmith.decide.run.summary import (
    attempt_conditions,
    build_failure,
    conditions_of,
    decimal,
    ended_conditions,
    stage_condition,
    waiting_conditions,
)
from tunesmith.manifests.generate_job import STAGE as GENERATE
from tunesmith.manifests.prepare_job import STAGE as PREPARE
from tunesmith.manifests.train_job import STAGE as TRAIN
from tunesmith_contract.progress import EVAL_REWARD, PART, REWARD, PreparePart, TrainerStatus
from tunesmith_contract.report import DatasetReport, TrainingReport
from tunesmith_contract.shared_rules.defaults import is_packed

from .costs import build_estimate
from .dataset_status import describe_dataset, show_dataset
from .generation_status import show_generation
from .results import Results
from .status_view import TrainingView

#: A model that guesses has the logarithm of its vocabulary; e to the power of more than this says nothing.
_MOST_NATS = 100.0

_ACTIVE = {
    GENERATE: FineTuneJobPhase.GENERATING,
    PREPARE: FineTuneJobPhase.PREPARING,
    TRAIN: FineTuneJobPhase.TRAINING,
}

_WORKING = {
    GENERATE: FineTuneJobReason.GENERATING,
    PREPARE: FineTuneJobReason.PREPARING,
    TRAIN: FineTuneJobReason.TRAINING,
}

_PARTS: Mapping[str, str] = {
    PreparePart.ASKING: "asking the teacher",
    PreparePart.READING: "reading rows",
    PreparePart.CLEANING: "cleaning rows",
    PreparePart.JUDGING: "judging rows",
    PreparePart.WRITING: "writing rows",
}


def build_training_status(
    job: FineTuneJob, view: TrainingView, results: Results, now: datetime
) -> dict[str, Any]:
    """The whole status as a plain dict."""
    children, phase, prepared = view.step.children, _phase(view), view.step.report(PREPARE)
    dataset, training = prepared.dataset if prepared else None, view.training
    last = view.step.last_record(view.stage)
    over = phase in {FineTuneJobPhase.SUCCEEDED, FineTuneJobPhase.FAILED}
    status = FineTuneJobStatus(
        phase=phase,
        observed_generation=job.metadata.generation,
        method=job.spec.method.name,
        resolved=_resolved(job, view, results, dataset),
        generation=show_generation(job, view),
        dataset=show_dataset(dataset) if dataset else None,
        estimate=build_estimate(job, view),
        progress=_progress(job, view, training),
        memory_estimate=shown_memory(job.status, view.admission, training),
        checkpoints=results.checkpoints,
        curve=results.curve,
        best_step=training.best_step if training else None,
        overfitting_step=results.overfitting_step,
        stopped_early=training.stopped_early if training else None,
        remedies=results.remedies,
        artifact=results.artifact,
        eval_run=view.eval_run,
        cost=results.cost,
        failure=build_failure(last) if phase is FineTuneJobPhase.FAILED else None,
        start_time=view.inputs.started if view.inputs else None,
        completion_time=last.ended_at if over and last else None,
        attempts=results.attempts,
        disruptions=children.disruptions,
    )
    verdicts = admission_conditions(view.admission) if view.admission else []
    updates = [*_conditions(job, view, phase, dataset, training), *verdicts]
    conditions = merge_conditions(conditions_of(job.status.conditions), updates, job.metadata.generation, now)
    return status.to_dict() | {"conditions": conditions}


def build_waiting_status(job: FineTuneJob, message: str, missing: bool, now: datetime) -> dict[str, Any]:
    """Nothing has begun: an earlier job has not made its artefact.

    Args:
        missing: it is not there at all.
    """
    status = FineTuneJobStatus(
        phase=FineTuneJobPhase.PENDING,
        observed_generation=job.metadata.generation,
        method=job.spec.method.name,
    )
    updates = waiting_conditions(FineTuneJobReason.WAITING_FOR_JOB, message, hindered=missing)
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
            return _ACTIVE[view.stage]


def _resolved(
    job: FineTuneJob, view: TrainingView, results: Results, dataset: DatasetReport | None
) -> Resolved | None:
    run = view.run
    if view.inputs is None:
        return None
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
        micro_batch_size=results.micro_batch_size,
        kernels=results.kernels,
        precision=(view.training.precision or None) if view.training else None,
        packing=is_packed(run.method),
        parallelism=run.parallelism,
        offload=run.offload,
        activation_checkpointing=run.activation_checkpointing,
        gpu_memory=shown_gpu_memory(job.status, view.admission),
    )


def _progress(job: FineTuneJob, view: TrainingView, training: TrainingReport | None) -> Progress | None:
    if training is not None:
        return _with_perplexity(job, _final_progress(training))
    if view.stage != TRAIN:
        runs = view.step.state is StageState.RUNNING
        return _share_done(view.progress) if view.progress is not None and runs else None
    before = _of_steps(job.status.progress)
    if view.progress is None:
        return before
    return _with_perplexity(job, _live_progress(view.progress, before or Progress()))


def _of_steps(before: Progress | None) -> Progress | None:
    """What status has of training: a share without steps is of the stage before it."""
    return before if before is not None and before.total_steps else None


def _with_perplexity(job: FineTuneJob, progress: Progress) -> Progress:
    """What people call the loss of a language: of answers alone nobody asks for it."""
    if job.spec.method.pretraining is None or progress.eval_loss is None:
        return progress
    loss = min(float(progress.eval_loss), _MOST_NATS)
    return progress.model_copy(update={"perplexity": decimal(exp(loss))})


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


def _share_done(news: TrainerStatus) -> Progress:
    """How far a stage is that has no optimizer steps."""
    live = _live_progress(news, Progress())
    return Progress(percent=live.percent, remaining=live.remaining, last_update_time=live.last_update_time)


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
    found = describe_dataset(dataset) if dataset else ""
    stage = GENERATE if view.stage == GENERATE else PREPARE
    data = stage_condition(
        ConditionType.DATA_READY, step, stage, FineTuneJobReason.PREPARED, found, _WORKING[stage]
    )
    if view.stage != TRAIN:
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
        return FineTuneJobReason.SUSPENDED, f"{name} is held by its queue: {_through_queue(view)}"
    return _WORKING[view.stage], f"{name} runs{_part(view)}."


def _part(view: TrainingView) -> str:
    """What prepare is at, if its pod has said so in a word that is known."""
    known = _PARTS.get(view.metrics.get(PART, "")) if view.stage == PREPARE else None
    return f": {known}" if known else ""


def _through_queue(view: TrainingView) -> str:
    if view.step.children.workloads:
        return "its Workload is inactive, and its pods are ended."
    return (
        "there is no Workload of it to make inactive. Is Kueue there, and does it look at this namespace? Without "
        "its queue's label the job would be held at once."
    )
