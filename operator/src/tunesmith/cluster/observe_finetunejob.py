"""Observation of a FineTuneJob: its children, the resources it refers to, and the latest progress of its pods."""

from collections.abc import Iterator

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.controller_runtime.bodies import Key, Reference
from tunesmith.decide.finetunejob.claims import shared_claims
from tunesmith.decide.finetunejob.inputs import data_fields
from tunesmith.decide.finetunejob.observed import (
    ObservedTraining,
    RelatedObjects,
    assemble_training,
)
from tunesmith.decide.finetunejob.referenced_jobs import referred_jobs
from tunesmith.decide.finetunejob.stages import begun_attempts
from tunesmith.decide.fit.admission import asks_for_nodes, is_judged
from tunesmith.decide.objects import is_suspended, job_end
from tunesmith.decide.run.children import Children
from tunesmith.decide.search.settings import runs_trial_jobs
from tunesmith.manifests.eval_run import eval_run_name
from tunesmith.manifests.names import QUEUE_LABEL, STAGE_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.run_snapshots import inputs_name, run_name
from tunesmith.manifests.trial_job import search_of
from tunesmith_contract.stages import Stage

from .children import observe_children, observe_finished_work
from .observe_run import (
    RunChildren,
    has_ended,
    live_progress,
    observe_claims,
    observe_creation_failures,
    observe_missing_config_maps,
    observe_mount_failures,
    observe_run_children,
    observe_workloads,
)
from .observe_trials import observe_ended_trials, observe_trial_jobs, observe_trial_source, trial_names
from .reconciler import Reader
from .related import find_job


async def observe_finetunejob(reader: Reader, job: FineTuneJob) -> ObservedTraining:
    """Read the job's children, what it refers to, its EvalRun, and the latest progress of its pods.

    Raises:
        ApiError: a read failed.
    """
    client, metadata = reader.client, job.metadata
    run = await observe_run_children(client, metadata, begun_attempts(job).count)
    several_nodes = job.spec.compute.nodes > 1
    children = Children(
        jobs=run.jobs,
        pods=run.pods,
        services=await observe_children(client, "v1", "Service", metadata) if several_nodes else (),
        workloads=await _observe_workloads(reader, job, run),
    )
    related = await _observe_related(reader, job, run)
    progress = live_progress(reader.live.progress.latest(metadata.uid))
    trials = observe_trial_jobs(reader, job, run.config_maps)
    ended = await observe_ended_trials(client, job, trials)
    finished = await observe_finished_work(client, job) if _reads_finished_work(job, run) else ()
    return assemble_training(job, run.config_maps, children, related, progress, trials, ended, finished)


def finetunejob_references(job: FineTuneJob) -> Iterator[Reference]:
    """Other resources that its plan reads.

    The FineTuneJobs whose artifacts it begins with, the trials of its search, the search that it is a trial of, and the
    EvalRun whose GPU time it tells.
    """
    search = search_of(job)
    for name in (*referred_jobs(job.spec), *trial_names(job), *((search.name,) if search else ())):
        yield Reference("FineTuneJob", name)
    if job.spec.evaluation is not None:
        yield Reference("EvalRun", eval_run_name(job))


def _reads_finished_work(job: FineTuneJob, children: RunChildren) -> bool:
    """True before the job begins, and once it has trained."""
    begun = any(body["metadata"]["name"] == inputs_name(job) for body in children.config_maps)
    return not begun or has_ended(children, Stage.TRAIN)


async def _observe_workloads(
    reader: Reader, job: FineTuneJob, children: RunChildren
) -> tuple[Body, ...] | None:
    if not _is_queued(job, children):
        reader.workloads.forget(job.metadata.uid)
        return None
    return await observe_workloads(reader, job.metadata, children.jobs, job.spec.suspend)


def _is_queued(job: FineTuneJob, children: RunChildren) -> bool:
    """True where a queue holds one of the Jobs, or will."""
    live = [body for body in children.jobs if job_end(body) is None]
    suspended = job.spec.suspend or any(is_suspended(body) for body in live)
    return QUEUE_LABEL in job.metadata.labels and bool(live) and suspended


async def _observe_related(reader: Reader, job: FineTuneJob, children: RunChildren) -> RelatedObjects:
    client, namespace, uris = reader.client, job.metadata.namespace, data_fields(job.spec).values()
    begun = any(body["metadata"]["name"] == inputs_name(job) for body in children.config_maps)
    trains = any(body["metadata"]["labels"].get(STAGE_LABEL) == Stage.TRAIN for body in children.jobs)
    evaluated = job.spec.evaluation is not None
    return RelatedObjects(
        eval_run=reader.bodies.get(Key("EvalRun", namespace, eval_run_name(job))) if evaluated else None,
        earlier={} if begun else _observe_earlier(reader, job),
        claims={} if trains else await observe_claims(client, namespace, shared_claims(job)),
        gpu_nodes=await _observe_gpu_nodes(reader, job, children),
        missing_config_maps=await observe_missing_config_maps(client, namespace, children, uris),
        mount_failures=await observe_mount_failures(reader, job.metadata, children),
        creation_failures=await observe_creation_failures(reader, namespace, children),
        trial_source=None if begun else await observe_trial_source(reader, job),
    )


def _observe_earlier(reader: Reader, job: FineTuneJob) -> dict[str, FineTuneJob | None]:
    names, namespace = referred_jobs(job.spec), job.metadata.namespace
    return {name: find_job(reader, namespace, name) for name in names}


async def _observe_gpu_nodes(reader: Reader, job: FineTuneJob, children: RunChildren) -> tuple[Body, ...]:
    """The nodes, while the plan reads GPUs from their labels; none where the operator may not list them."""
    names = {body["metadata"]["name"] for body in children.config_maps}
    prepared = any(
        body["metadata"].get("labels", {}).get(STAGE_LABEL) == Stage.PREPARE for body in children.config_maps
    )
    resolved = run_name(job) in names
    begun = resolved and is_judged(job.status)
    # Trials have nodes observed for themselves; the job with the search only for the best of them.
    searches = runs_trial_jobs(job.spec.search) and not resolved
    if begun or searches or not prepared or not asks_for_nodes(job.spec):
        return ()
    return await reader.cluster.nodes(reader.client)
