"""Inputs of a job that has begun and whose snapshot was deleted: rebuilt from what is left of it.

The spec can't change once a job has begun, and the training configuration, the status and the Jobs hold the rest.
"""

from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.objects import created_at, image_of
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.pods import mounted_secrets
from tunesmith.manifests.run_snapshots import Inputs, parse_run
from tunesmith.manifests.trial_job import search_of
from tunesmith_contract.stages import Stage

from .inputs import Sources
from .method import resolve_method
from .observed import ObservedTraining
from .referenced_jobs import NotReady, find_artifacts, resolve_base
from .trial import adopt_preparation


def has_begun(job: FineTuneJob, observed: ObservedTraining) -> bool:
    """True for a job that had inputs, or was refused before it could have them.

    A trial copies the records of its search before it takes its inputs.
    """
    records = observed.children.records
    if search_of(job) is not None:
        records = observed.children.records_of(Stage.TRAIN)
    return bool(records or observed.children.jobs or observed.run)


def rebuild_inputs(
    job: FineTuneJob, observed: ObservedTraining, now: datetime, environment: Environment
) -> Inputs | NotReady:
    """The inputs that the job had, or what has to come back before they can be known."""
    search = search_of(job)
    if search is not None:
        adoption = adopt_preparation(job, search.name, observed.related.trial_source)
        if not isinstance(adoption, NotReady):
            return adoption.inputs
    sources = _find_sources(job, observed, now)
    if isinstance(sources, NotReady):
        return sources
    return sources.to_inputs(
        job, _find_image(job, observed, environment), _find_start(job, observed, now), environment
    )


def _find_start(job: FineTuneJob, observed: ObservedTraining, now: datetime) -> datetime:
    """When the job began; where its status was lost as well, when its first attempt did."""
    attempts = [record.started_at for record in observed.children.records if record.started_at]
    attempts += map(created_at, observed.children.jobs)
    return job.status.start_time or min(attempts, default=now)


def _find_sources(job: FineTuneJob, observed: ObservedTraining, now: datetime) -> Sources | NotReady:
    """What the job starts from: of the training configuration, else of the jobs that it names."""
    earlier, mounted = observed.related.earlier, _mounted_secrets(observed)
    if observed.run is not None:
        run = parse_run(observed.run)
        return Sources(run.base_model, run.initial, run.method, earlier, mounted)
    artifacts = find_artifacts(job, earlier, now)
    if isinstance(artifacts, NotReady):
        return NotReady(_describe(artifacts.message), artifacts.missing)
    if not isinstance(artifacts, dict):
        return NotReady(_describe(artifacts.message or ""), missing=True)
    base_model, initial = resolve_base(job.spec, artifacts)
    return Sources(base_model, initial, resolve_method(job.spec, artifacts), earlier, mounted)


def _describe(message: str) -> str:
    return f"The ConfigMap with the job's inputs was deleted, and can't be made again: {message}"


def _mounted_secrets(observed: ObservedTraining) -> dict[str, str]:
    return {role: name for job in observed.children.jobs for role, name in mounted_secrets(job).items()}


def _find_image(job: FineTuneJob, observed: ObservedTraining, environment: Environment) -> str:
    """The image that the job began with."""
    if observed.run is not None:
        return parse_run(observed.run).image
    if job.status.resolved is not None and job.status.resolved.image:
        return job.status.resolved.image
    images = (image_of(body) for body in observed.children.jobs)
    return next(images, job.spec.compute.image or environment.trainer_image)
