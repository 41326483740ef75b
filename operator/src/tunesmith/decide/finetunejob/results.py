"""Results of training for status: checkpoints, losses, kernels, remedies, artifact, exports and cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.api.job_status import (
    MAX_REMEDIES,
    MAX_STATUS_CHECKPOINTS,
    CheckpointStatus,
    ExportStatus,
    JobArtifact,
    JobCost,
    LossPoint,
    Remedy,
)
from tunesmith.api.reasons import FineTuneJobReason
from tunesmith.decide.fit.admission import is_servable
from tunesmith.decide.plan import Event
from tunesmith.decide.run.summary import decimal
from tunesmith.manifests.trial_job import search_of
from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.layout import checkpoint_name, checkpoints_uri, work_uri
from tunesmith_contract.progress import (
    CHECKPOINT_DIGEST,
    CHECKPOINT_EVAL_LOSS,
    CHECKPOINT_STEP,
    CHECKPOINT_TIME,
    KERNELS,
    OVERFITTING_STEP,
)
from tunesmith_contract.report import Checkpoint, TrainingReport
from tunesmith_contract.run_config import AdapterType
from tunesmith_contract.stages import Stage
from tunesmith_contract.uris import parse_uri

from .costs import build_job_cost
from .data_status import data_issue_events, generation_events
from .status_view import TrainingView

_HEX_DIGEST = 64
_ADAPTER_KINDS = {AdapterType.RSLORA: ArtifactKind.RSLORA, AdapterType.DORA: ArtifactKind.DORA}


@dataclass(frozen=True, slots=True)
class Results:
    """Results in the status; values that only a pod reports stay as they are until its next update."""

    checkpoints: tuple[CheckpointStatus, ...]
    remedies: tuple[Remedy, ...]
    cost: JobCost
    attempts: int
    micro_batch_size: int | None
    kernels: str | None
    overfitting_step: int | None
    curve: tuple[LossPoint, ...] = ()
    artifact: JobArtifact | None = None


def collect_results(job: FineTuneJob, view: TrainingView) -> Results:
    """Results so far."""
    training, before = view.training, job.status
    remedies = _remedies(view)
    resolved = before.resolved.kernels if before.resolved else None
    written = view.run.hyperparameters.micro_batch_size if view.run else None
    kernels = training.kernels if training else str(view.metrics.get(KERNELS, "")) or resolved
    return Results(
        checkpoints=_checkpoints(job, view),
        remedies=remedies,
        cost=build_job_cost(job, view),
        attempts=_attempts(view),
        micro_batch_size=remedies[-1].micro_batch_size if remedies else written,
        kernels=kernels or None,
        overfitting_step=_overfitting_step(job, view),
        curve=tuple(
            LossPoint(step=step, loss=decimal(loss), eval_loss=decimal(eval_loss), reward=decimal(reward))
            for step, loss, eval_loss, reward in (training.curve if training else ())
        ),
        artifact=_artifact(job, view, training) if training else None,
    )


def result_events(job: FineTuneJob, results: Results, view: TrainingView) -> tuple[Event, ...]:
    """Events about results that status did not have before."""
    prepared = view.step.report(Stage.PREPARE)
    events: list[Event] = []
    if search_of(job) is None:
        # A trial's rows are those of its search, which has told of them.
        dataset = prepared.dataset if prepared else None
        events += [*generation_events(job, view), *data_issue_events(job, dataset)]
    if results.overfitting_step is not None and job.status.overfitting_step is None:
        message = f"The validation loss turned at step {results.overfitting_step} and went up."
        events.append(Event(FineTuneJobReason.OVERFITTING, message, "Warning"))
    if view.training is not None and view.training.stopped_early and not job.status.stopped_early:
        message = f"Stopped early after {view.training.steps} steps: the validation loss no longer fell."
        events.append(Event(FineTuneJobReason.STOPPED_EARLY, message))
    return tuple(events)


def _attempts(view: TrainingView) -> int:
    """Number of attempts, over all stages."""
    last = {record.stage: 0 for record in view.step.children.records} | {view.stage: view.step.attempt}
    for record in view.step.children.records:
        last[record.stage] = max(last[record.stage], record.attempt)
    return sum(last.values())


def _remedies(view: TrainingView) -> tuple[Remedy, ...]:
    records = view.step.children.records_of(Stage.TRAIN)
    remedies = [
        Remedy(
            attempt=record.attempt + 1,
            micro_batch_size=record.remedy.micro_batch_size,
            time=record.ended_at,
        )
        for record in records
        if record.remedy
    ]
    return tuple(remedies[:MAX_REMEDIES])


def _checkpoints(job: FineTuneJob, view: TrainingView) -> tuple[CheckpointStatus, ...]:
    """The latest by step: from status, records and the pods' update; at the end, those that were kept."""
    if view.training is not None and view.training.checkpoints:
        return tuple(_checkpoint(checkpoint) for checkpoint in view.training.checkpoints)
    recorded = [
        record.checkpoint for record in view.step.children.records_of(Stage.TRAIN) if record.checkpoint
    ]
    checkpoints = [*job.status.checkpoints, *map(_checkpoint, recorded)]
    if (announced := _announced_checkpoint(view)) is not None:
        checkpoints.append(announced)
    by_step = {checkpoint.step: checkpoint for checkpoint in checkpoints}
    return tuple(by_step[step] for step in sorted(by_step)[-MAX_STATUS_CHECKPOINTS:])


def _checkpoint(checkpoint: Checkpoint) -> CheckpointStatus:
    return CheckpointStatus(
        step=checkpoint.step,
        uri=checkpoint.uri,
        digest=checkpoint.digest,
        eval_loss=decimal(checkpoint.eval_loss),
        time=checkpoint.time.replace(microsecond=0),
    )


def _announced_checkpoint(view: TrainingView) -> CheckpointStatus | None:
    """A checkpoint that the pods announce; None unless all of its numbers are there."""
    step, time = _number(view.metrics, CHECKPOINT_STEP), _number(view.metrics, CHECKPOINT_TIME)
    digest, loss = view.metrics.get(CHECKPOINT_DIGEST, ""), _number(view.metrics, CHECKPOINT_EVAL_LOSS)
    if view.run is None or step is None or time is None or len(digest) != _HEX_DIGEST:
        return None
    owner = view.run.owner
    work = work_uri(parse_uri(view.run.workspace or view.run.output), owner.namespace, owner.uid)
    return CheckpointStatus(
        step=int(step),
        uri=str(checkpoints_uri(work).join(checkpoint_name(int(step)))),
        digest=f"sha256:{digest}",
        eval_loss=decimal(loss),
        time=datetime.fromtimestamp(int(time), UTC),
    )


def _overfitting_step(job: FineTuneJob, view: TrainingView) -> int | None:
    if view.training is not None:
        return view.training.overfitting_step
    announced = _number(view.metrics, OVERFITTING_STEP)
    return job.status.overfitting_step if announced is None else int(announced)


def _number(metrics: Mapping[str, str], name: str) -> float | None:
    """A metric of a pod as a number from 0 on; None for anything else: pods are not trusted."""
    try:
        value = float(metrics.get(name, ""))
    except ValueError:
        return None
    return value if 0 <= value < 10**10 else None


def _artifact(job: FineTuneJob, view: TrainingView, training: TrainingReport) -> JobArtifact:
    exports = (
        ExportStatus.model_validate({**export.artifact.to_dict(), "format": export.format})
        for export in training.exports
    )
    shown = JobArtifact.model_validate(training.artifact.to_dict())
    servable = is_servable(job.status, view.admission)
    return shown.model_copy(update={"kind": _kind(job.spec), "servable": servable, "exports": tuple(exports)})


def _kind(spec: FineTuneJobSpec) -> ArtifactKind:
    if spec.adapter is None:
        return ArtifactKind.REWARD_MODEL if spec.method.reward else ArtifactKind.MODEL
    if spec.method.reward:
        return ArtifactKind.REWARD_ADAPTER
    return _ADAPTER_KINDS.get(spec.adapter.type, ArtifactKind.LORA)
