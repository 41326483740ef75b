"""Status of a FineTuneJob, rebuilt on each reconcile."""

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
from tunesmith.api.reasons import ConditionType, FineTuneJobPhase, FineTuneJobReason, RunReason
from tunesmith.api.search import SearchStatus
from tunesmith.api.status import ContainerRequests
from tunesmith.api.values import format_duration
from tunesmith.decide.conditions import ConditionUpdate, merge_conditions
from tunesmith.decide.fit.admission import admission_conditions, shown_gpu_memory, shown_memory
from tunesmith.decide.fit.requests import shown_requests
from tunesmith.decide.run.finished_work import adopted_condition
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
from tunesmith.decide.run.suspension import describe_queue
from tunesmith.decide.search.status import build_search_status, describe_search
from tunesmith_contract.progress import (
    EVAL_REWARD,
    PART,
    REWARD,
    TOKENS_PER_SECOND,
    TRAINER_UPDATES,
    PreparePart,
    TrainerStatus,
    TrainPart,
)
from tunesmith_contract.report import DatasetReport, TrainingReport
from tunesmith_contract.search import TrialState
from tunesmith_contract.shared_rules.defaults import is_packed
from tunesmith_contract.stages import Stage
from tunesmith_search.results import best_trial

from .costs import build_estimate
from .data_status import build_dataset_status, build_generation_status, describe_dataset
from .results import Results
from .status_view import SearchView, TrainingView

#: Upper limit of the loss in the perplexity; the loss of a model that guesses is the logarithm of its vocabulary.
_MAX_NATS = 100.0

_ACTIVE = {
    Stage.GENERATE: FineTuneJobPhase.GENERATING,
    Stage.PREPARE: FineTuneJobPhase.PREPARING,
    Stage.TRAIN: FineTuneJobPhase.TRAINING,
}

_WORKING = {
    Stage.GENERATE: FineTuneJobReason.GENERATING,
    Stage.PREPARE: FineTuneJobReason.PREPARING,
    Stage.TRAIN: FineTuneJobReason.TRAINING,
}

_PARTS: Mapping[str, str] = {
    PreparePart.ASKING: "asking the teacher",
    PreparePart.READING: "reading rows",
    PreparePart.CLEANING: "cleaning rows",
    PreparePart.JUDGING: "judging rows",
    PreparePart.WRITING: "writing rows",
    TrainPart.MEASURING: "measuring the trained model and its base",
    TrainPart.EXPORTING: "exporting the other formats",
}
_STAGES_WITH_PARTS = frozenset({Stage.PREPARE, Stage.TRAIN})


def build_training_status(
    job: FineTuneJob, view: TrainingView, results: Results, now: datetime
) -> dict[str, Any]:
    """The whole status as a plain dict."""
    children, phase, prepared = view.step.children, _phase(view), view.step.report(Stage.PREPARE)
    dataset, training = prepared.dataset if prepared else None, view.training
    last = view.step.last_record(view.stage)
    over = phase in {FineTuneJobPhase.SUCCEEDED, FineTuneJobPhase.FAILED}
    status = FineTuneJobStatus(
        phase=phase,
        observed_generation=job.metadata.generation,
        method=job.spec.method.name,
        resolved=_resolved(job, view, results, dataset),
        generation=build_generation_status(job, view),
        dataset=build_dataset_status(dataset) if dataset else None,
        estimate=build_estimate(job, view),
        progress=_progress(job, view, training),
        memory_estimate=shown_memory(job.status, view.admission, training),
        checkpoints=results.checkpoints,
        curve=results.curve,
        best_step=training.best_step if training else None,
        search=_search(view),
        overfitting_step=results.overfitting_step,
        stopped_early=training.stopped_early if training else None,
        remedies=results.remedies,
        artifact=results.artifact,
        eval_run=view.eval_run,
        cost=results.cost,
        failure=build_failure(last) if phase is FineTuneJobPhase.FAILED else None,
        start_time=view.inputs.started if view.inputs else job.status.start_time,
        completion_time=last.ended_at if over and last else None,
        attempts=results.attempts,
        disruptions=children.disruptions,
    )
    verdicts = admission_conditions(view.admission) if view.admission else []
    updates = [*_conditions(job, view, phase, dataset, training), *verdicts]
    conditions = merge_conditions(conditions_of(job.status.conditions), updates, job.metadata.generation, now)
    return status.to_dict() | {"conditions": conditions}


def build_waiting_status(job: FineTuneJob, message: str, missing: bool, now: datetime) -> dict[str, Any]:
    """Status of a job that waits for the artifact of an earlier job.

    Args:
        missing: the earlier job does not exist.
    """
    status = FineTuneJobStatus(
        phase=FineTuneJobPhase.PENDING,
        observed_generation=job.metadata.generation,
        method=job.spec.method.name,
    )
    updates = waiting_conditions(FineTuneJobReason.WAITING_FOR_JOB, message, blocked=missing)
    # Patience with a missing job counts from this condition: it begins anew when something else was waited for.
    before = [
        condition
        for condition in conditions_of(job.status.conditions)
        if condition["type"] != ConditionType.READY or condition["message"] == message
    ]
    conditions = merge_conditions(before, updates, job.metadata.generation, now)
    return status.to_dict() | {"conditions": conditions}


def build_interrupted_status(job: FineTuneJob, message: str, now: datetime) -> dict[str, Any]:
    """Status of a job that has begun and can't go on before something comes back; the rest of it stays."""
    status = job.status.model_copy(
        update={
            "phase": job.status.phase or FineTuneJobPhase.PENDING,
            "observed_generation": job.metadata.generation,
            "method": job.spec.method.name,
        }
    )
    updates = waiting_conditions(FineTuneJobReason.WAITING_FOR_JOB, message)
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
            return FineTuneJobPhase.SEARCHING if _searches(view) else _ACTIVE[view.stage]


def _searches(view: TrainingView) -> bool:
    return view.stage is Stage.TRAIN and view.search is not None


def _search(view: TrainingView) -> SearchStatus | None:
    search = view.search
    return build_search_status(search.settings, search.trials, search.folder) if search else None


def _resolved(
    job: FineTuneJob, view: TrainingView, results: Results, dataset: DatasetReport | None
) -> Resolved | None:
    run, report = view.run, view.step.report(Stage.PREPARE)
    if view.inputs is None:
        # It was refused before there were any, or its snapshot was deleted.
        return job.status.resolved
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
        parameters=(report.model.parameters or None) if report and report.model else None,
        requests=_requests(job, view),
    )


def _requests(job: FineTuneJob, view: TrainingView) -> ContainerRequests | None:
    """Requests of the training pods; None before they are known."""
    return shown_requests(view.requests, job.spec.compute.resources) if view.requests else None


def _progress(job: FineTuneJob, view: TrainingView, training: TrainingReport | None) -> Progress | None:
    if training is not None:
        return _with_perplexity(job, _final_progress(training))
    if view.stage is not Stage.TRAIN:
        runs = view.step.state is StageState.RUNNING
        return _progress_without_steps(view.progress) if view.progress is not None and runs else None
    if view.search is not None and view.search.in_jobs:
        return _search_progress(view.search)
    before = job.status.progress
    if before is not None and not before.total_steps:
        before = None  # of an earlier stage, which has no steps
    if view.progress is None:
        return before
    return _with_perplexity(job, _live_progress(view.progress, before or Progress()))


def _search_progress(search: SearchView) -> Progress:
    """Progress of a search: its share of ended trials, and the loss of the best one."""
    ended = sum(trial.state is not TrialState.RUNNING for trial in search.trials)
    best = best_trial(search.trials)
    percent = f"{100 * ended // search.settings.trials}%"
    return Progress(percent=percent, eval_loss=decimal(best.loss) if best else None)


def _with_perplexity(job: FineTuneJob, progress: Progress) -> Progress:
    """Progress with the perplexity, for a method that learns plain text."""
    if job.spec.method.pretraining is None or progress.eval_loss is None:
        return progress
    loss = min(float(progress.eval_loss), _MAX_NATS)
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


def _progress_without_steps(update: TrainerStatus) -> Progress:
    """Progress of a stage without optimizer steps."""
    live = _live_progress(update, Progress())
    return Progress(percent=live.percent, remaining=live.remaining, last_update_time=live.last_update_time)


def _live_progress(update: TrainerStatus, before: Progress) -> Progress:
    """Progress after an update of the pods.

    Steps that it leaves out stay: the last update of transformers has none. An update by the trainer's own callbacks
    (a commit, the kernels, overfitting) has no measurements: these stay too, as the latest ones.
    """
    metrics = {metric.name: metric.value for metric in update.metrics}
    measured = before if metrics.keys() & TRAINER_UPDATES else Progress()
    step = _whole(metrics, "current_step")
    percent, seconds = update.progress_percentage, update.estimated_remaining_seconds
    remaining = measured.remaining if seconds is None else format_duration(min(seconds, 10**7))
    return Progress(
        step=before.step if step is None else step,
        total_steps=_whole(metrics, "total_steps") or before.total_steps,
        percent=None if percent is None else f"{percent}%",
        epoch=_number(metrics, "current_epoch") or measured.epoch,
        loss=_number(metrics, "loss") or measured.loss,
        eval_loss=_number(metrics, "eval_loss") or measured.eval_loss,
        reward=_number(metrics, REWARD) or measured.reward,
        eval_reward=_number(metrics, EVAL_REWARD) or measured.eval_reward,
        tokens_per_second=_number(metrics, TOKENS_PER_SECOND) or measured.tokens_per_second,
        remaining=remaining,
        last_update_time=update.last_updated_time.replace(microsecond=0),
    )


def _whole(metrics: Mapping[str, str], name: str) -> int | None:
    number = _number(metrics, name)
    return max(0, int(float(number))) if number else None


def _number(metrics: Mapping[str, str], name: str) -> str | None:
    """A metric of a pod as a decimal string; None for anything that is no number: pods are not trusted."""
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
    """Ready, Reconciling, Stalled and Succeeded; DataReady and Trained for those who wait for a stage."""
    step, last = view.step, view.step.last_record(view.stage)
    if training is not None:
        message = f"The artifact is {training.artifact.digest}."
        common = ended_conditions(True, RunReason.SUCCEEDED, message)
    elif phase is FineTuneJobPhase.FAILED and last is not None:
        common = ended_conditions(False, last.reason, last.failure.message if last.failure else "")
    else:
        common = attempt_conditions(step, last, _activity(job, view, phase))
    prepared = describe_dataset(dataset) if dataset else ""
    stage = Stage.GENERATE if view.stage is Stage.GENERATE else Stage.PREPARE
    data = stage_condition(
        ConditionType.DATA_READY, step, stage, FineTuneJobReason.PREPARED, prepared, _WORKING[stage]
    )
    if view.stage is not Stage.TRAIN:
        return [*common, data]
    done = f"{training.steps} steps." if training else ""
    trained = stage_condition(
        ConditionType.TRAINED, step, Stage.TRAIN, FineTuneJobReason.TRAINED, done, FineTuneJobReason.TRAINING
    )
    return [*common, data, trained, *adopted_condition(step.last_record(Stage.TRAIN), job.kind)]


def _activity(job: FineTuneJob, view: TrainingView, phase: FineTuneJobPhase) -> tuple[str, str]:
    """Reason and message while nothing blocks the job."""
    name = f"Attempt {view.step.attempt} of {view.stage}"
    match phase:
        case FineTuneJobPhase.SUSPENDED:
            return RunReason.SUSPENDED, "Suspended by spec.suspend; write false to resume."
        case FineTuneJobPhase.QUEUED:
            return RunReason.QUEUED, f"{name} {describe_queue(job, view.step.children.workloads or ())}"
    if view.search is not None and view.search.in_jobs:
        return FineTuneJobReason.SEARCHING, describe_search(view.search.settings, view.search.trials)
    if job.spec.suspend:
        return RunReason.SUSPENDED, f"{name} is suspended through its queue: {_workload_state(view)}"
    part = _PARTS.get(view.metrics.get(PART, "")) if view.stage in _STAGES_WITH_PARTS else None
    return _WORKING[view.stage], f"{name} runs{f': {part}' if part else ''}."


def _workload_state(view: TrainingView) -> str:
    if view.step.children.workloads:
        return "its Workload is inactive, and its pods end."
    return (
        "it has no Workload to make inactive. Check that Kueue is installed and manages this namespace. Without the "
        "label of a queue the job would be suspended at once."
    )
