"""What training brought: checkpoints, losses, kernels, remedies, the artefact and its exports, and what it cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tunesmith.api.finetunejob import FineTuneJob
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
from tunesmith.manifests.prepare_job import STAGE as PREPARE
from tunesmith.manifests.train_job import STAGE as TRAIN
from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.layout import checkpoints_uri, work_uri
from tunesmith_contract.progress import (
    CHECKPOINT_DIGEST,
    CHECKPOINT_EVAL_LOSS,
    CHECKPOINT_STEP,
    CHECKPOINT_TIME,
    KERNELS,
    OVERFITTING_STEP,
)
from tunesmith_contract.report import Checkpoint, TrainingReport
from tunesmith_contract.run_config import AdapterType, TrainConfig
from tunesmith_contract.uris import parse_uri

from .costs import build_job_cost
from .dataset_status import tell_issues
from .generation_status import tell_generation
from .status_view import TrainingView

_HEX_DIGEST = 64
_ADAPTER_KINDS = {AdapterType.RSLORA: ArtifactKind.RSLORA, AdapterType.DORA: ArtifactKind.DORA}


@dataclass(frozen=True, slots=True)
class Results:
    """Parts of the status; what only a pod knew stays as status has it until there is news."""

    checkpoints: tuple[CheckpointStatus, ...]
    remedies: tuple[Remedy, ...]
    cost: JobCost
    attempts: int
    micro_batch_size: int | None
    kernels: str | None
    overfitting_step: int | None
    curve: tuple[LossPoint, ...] = ()
    artifact: JobArtifact | None = None


def find_results(job: FineTuneJob, view: TrainingView) -> Results:
    """What is known so far."""
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


def news_of(job: FineTuneJob, results: Results, view: TrainingView) -> tuple[Event, ...]:
    """Events on what status did not say before."""
    prepared = view.step.report(PREPARE)
    events = [*tell_generation(job, view), *tell_issues(job, prepared.dataset if prepared else None)]
    if results.overfitting_step is not None and job.status.overfitting_step is None:
        message = f"The validation loss turned at step {results.overfitting_step} and went up."
        events.append(Event(FineTuneJobReason.OVERFITTING, message, "Warning"))
    if view.training is not None and view.training.stopped_early and not job.status.stopped_early:
        message = f"Stopped early after {view.training.steps} steps: the validation loss no longer fell."
        events.append(Event(FineTuneJobReason.STOPPED_EARLY, message))
    return tuple(events)


def _attempts(view: TrainingView) -> int:
    """Attempts of all stages."""
    last = {record.stage: 0 for record in view.step.children.records} | {view.stage: view.step.attempt}
    for record in view.step.children.records:
        last[record.stage] = max(last[record.stage], record.attempt)
    return sum(last.values())


def _remedies(view: TrainingView) -> tuple[Remedy, ...]:
    records = view.step.children.records_of(TRAIN)
    found = [
        Remedy(
            attempt=record.attempt + 1,
            micro_batch_size=record.remedy.micro_batch_size,
            time=record.ended_at,
        )
        for record in records
        if record.remedy
    ]
    return tuple(found[:MAX_REMEDIES])


def _checkpoints(job: FineTuneJob, view: TrainingView) -> tuple[CheckpointStatus, ...]:
    """The latest by step: from status, records, the news, and, when all is over, those that were kept."""
    if view.training is not None and view.training.checkpoints:
        return tuple(_checkpoint(checkpoint) for checkpoint in view.training.checkpoints)
    recorded = [record.checkpoint for record in view.step.children.records_of(TRAIN) if record.checkpoint]
    known = [*job.status.checkpoints, *map(_checkpoint, recorded)]
    if (news := _news_of_checkpoint(view)) is not None:
        known.append(news)
    by_step = {checkpoint.step: checkpoint for checkpoint in known}
    return tuple(by_step[step] for step in sorted(by_step)[-MAX_STATUS_CHECKPOINTS:])


def _checkpoint(checkpoint: Checkpoint) -> CheckpointStatus:
    return CheckpointStatus(
        step=checkpoint.step,
        uri=checkpoint.uri,
        digest=checkpoint.digest,
        eval_loss=decimal(checkpoint.eval_loss),
        time=checkpoint.time.replace(microsecond=0),
    )


def _news_of_checkpoint(view: TrainingView) -> CheckpointStatus | None:
    """A checkpoint that the pods say they committed: its numbers come together, or it is not believed."""
    step, time = _number(view.metrics, CHECKPOINT_STEP), _number(view.metrics, CHECKPOINT_TIME)
    digest, loss = view.metrics.get(CHECKPOINT_DIGEST, ""), _number(view.metrics, CHECKPOINT_EVAL_LOSS)
    if view.run is None or step is None or time is None or len(digest) != _HEX_DIGEST:
        return None
    owner = view.run.owner
    work = work_uri(parse_uri(view.run.workspace or view.run.output), owner.namespace, owner.uid)
    return CheckpointStatus(
        step=int(step),
        uri=str(checkpoints_uri(work).join(f"checkpoint-{int(step)}")),
        digest=f"sha256:{digest}",
        eval_loss=decimal(loss),
        time=datetime.fromtimestamp(int(time), UTC),
    )


def _overfitting_step(job: FineTuneJob, view: TrainingView) -> int | None:
    if view.training is not None:
        return view.training.overfitting_step
    news = _number(view.metrics, OVERFITTING_STEP)
    return job.status.overfitting_step if news is None else int(news)


def _number(metrics: Mapping[str, str], name: str) -> float | None:
    """A pod's word for a number from 0 on, if it is one: pods are not to be believed blindly."""
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
    found = JobArtifact.model_validate(training.artifact.to_dict())
    kind = _kind(view.run) if view.run else None
    servable = is_servable(job.status, view.admission)
    return found.model_copy(update={"kind": kind, "servable": servable, "exports": tuple(exports)})


def _kind(run: TrainConfig) -> ArtifactKind:
    if run.adapter is None:
        return ArtifactKind.REWARD_MODEL if run.method.reward else ArtifactKind.MODEL
    if run.method.reward:
        return ArtifactKind.REWARD_ADAPTER
    return _ADAPTER_KINDS.get(run.adapter.type, ArtifactKind.LORA)
