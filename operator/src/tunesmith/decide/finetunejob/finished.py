"""Finished training of an earlier job of the same name and spec: looked for, taken over, and kept for a later one."""

from dataclasses import replace
from datetime import datetime

from tunesmith.api.common import Reuse
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.plan import Action, Create, Event
from tunesmith.decide.run.children import Children
from tunesmith.decide.run.finished_work import (
    adopted_event,
    adopted_work,
    find_finished,
    identify_work,
    keep_finished,
)
from tunesmith.decide.search.settings import runs_trial_jobs
from tunesmith.manifests.finished_work import FinishedRecord
from tunesmith.manifests.result_config_map import AttemptRecord, build_result_config_map
from tunesmith.manifests.run_snapshots import Inputs, build_run_config_map
from tunesmith.manifests.trial_job import search_of
from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.run_config import PrepareConfig, TrainConfig, parse_run_config, run_file_text
from tunesmith_contract.sources import ArtifactSource
from tunesmith_contract.stages import Stage

from .observed import ObservedTraining


def with_finished(job: FineTuneJob, inputs: Inputs, observed: ObservedTraining) -> Inputs:
    """The inputs of a new job with the finished training that it may take over, if there is one."""
    if job.spec.reuse is Reuse.NEVER or not _is_kept(job, inputs):
        return inputs
    finished = find_finished(job, identify_training(job, inputs), observed.finished)
    return inputs if finished is None or _to_check(finished) is None else replace(inputs, finished=finished)


def work_to_check(inputs: Inputs) -> FinishedWork | None:
    """What the pod that prepares the data compares with what it finds."""
    return _to_check(inputs.finished) if inputs.finished is not None else None


def adopt_training(
    job: FineTuneJob, observed: ObservedTraining, inputs: Inputs, children: Children, now: datetime
) -> tuple[ObservedTraining, tuple[Action, ...], tuple[Event, ...]] | None:
    """The job as if it had trained, with the actions that make it so; None if it has to train.

    Its own preparation has found rows, base model and artifact unchanged.
    """
    prepared, finished = _last(children, Stage.PREPARE), inputs.finished
    begun = children.records_of(Stage.TRAIN) or children.job_of(Stage.TRAIN, 1) is not None
    if finished is None or prepared is None or prepared.report is None or begun:
        return None
    run = _parse_run(finished)
    if prepared.report.reused != finished.uid or run is None:
        return None
    config = inputs.config
    assert isinstance(config, PrepareConfig)
    snapshot = build_run_config_map(job, run.model_copy(update={"owner": config.owner}))
    adopted = adopted_work(finished)
    record = finished.record.model_copy(
        update={
            "attempt": 1,
            "started_at": None,
            "ended_at": prepared.ended_at,
            "ran_seconds": 0.0,
            "gpu_seconds": 0.0,
            "recorded_at": now,
            "adopted": adopted,
        }
    )
    seen = replace(observed, run=snapshot, children=children.with_record(record))
    actions = (Create(snapshot), Create(build_result_config_map(job, record)))
    return seen, actions, (adopted_event(adopted, job.kind),)


def keep_training(
    job: FineTuneJob,
    observed: ObservedTraining,
    inputs: Inputs | None,
    children: Children,
    run: TrainConfig | None,
) -> tuple[Action, ...]:
    """Actions that keep the training of a job that has succeeded, for one that is applied again."""
    if inputs is None or run is None or not _is_kept(job, inputs):
        return ()
    identity, record = identify_training(job, inputs), _last(children, Stage.TRAIN)
    return keep_finished(job, identity, record, observed.finished, run_file_text(run))


def identify_training(job: FineTuneJob, inputs: Inputs) -> str:
    """Digest of the spec and of the models that it refers to; rows and base model are compared by the pod."""
    config = inputs.config
    assert isinstance(config, PrepareConfig)
    resolved = {
        "baseModel": config.base_model,
        "initial": inputs.initial.digest if inputs.initial else None,
        "method": config.method.to_short_dict(),
    }
    return identify_work(job, inputs.spec, resolved)


def _is_kept(job: FineTuneJob, inputs: Inputs) -> bool:
    """True for a job whose result follows from its spec and rows, and is one artifact.

    A teacher's rows are others each time. Trials are the parts of a search.
    """
    return inputs.generate is None and search_of(job) is None and not runs_trial_jobs(job.spec.search)


def _to_check(finished: FinishedRecord) -> FinishedWork | None:
    run, report = _parse_run(finished), finished.record.report
    if run is None or report is None or report.training is None:
        return None
    stored = (report.training.artifact, *(export.artifact for export in report.training.exports))
    return FinishedWork(
        uid=finished.uid,
        artifacts=tuple(ArtifactSource(uri=artifact.uri, digest=artifact.digest) for artifact in stored),
        dataset_digest=run.dataset_digest,
        base_model_revision=run.base_model_revision,
    )


def _parse_run(finished: FinishedRecord) -> TrainConfig | None:
    """The configuration of the training; None where another release wrote one that this one can't read."""
    try:
        run = parse_run_config(finished.run)
    except ValueError:
        return None
    return run if isinstance(run, TrainConfig) else None


def _last(children: Children, stage: Stage) -> AttemptRecord | None:
    records = children.records_of(stage)
    return records[-1] if records else None
