"""What a plan needs to know of a FineTuneJob."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.errors import Refused
from tunesmith.decide.finetunejob.claims import shared_claims
from tunesmith.decide.finetunejob.inputs import data_fields
from tunesmith.decide.finetunejob.observed import (
    LiveProgress,
    ObservedTraining,
    RelatedObjects,
    assemble_training,
)
from tunesmith.decide.finetunejob.referenced_jobs import referred_jobs
from tunesmith.decide.fit.admission import asks_for_nodes, is_judged
from tunesmith.decide.objects import is_suspended, job_end
from tunesmith.decide.refusal import without_invalid
from tunesmith.decide.run.children import Children
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.eval_run import eval_run_name
from tunesmith.manifests.names import API_VERSION, ATTEMPT_LABEL, QUEUE_LABEL, STAGE_LABEL
from tunesmith.manifests.run_snapshots import inputs_name, run_name
from tunesmith_contract.stages import Stage

from .live import Live, Progress
from .observe_run import (
    RunChildren,
    observe_missing_config_maps,
    observe_mount_failures,
    observe_run_children,
    observe_services,
    observe_workloads,
)


async def observe_finetunejob(
    client: Client, job: FineTuneJob, live: Live, environment: Environment
) -> ObservedTraining:
    """Read the job's children, what it refers to, its EvalRun, and the latest news from its pods.

    Raises:
        ApiError: a read failed.
    """
    meta = job.metadata
    found = await observe_run_children(client, meta)
    children = Children(
        jobs=found.jobs,
        pods=found.pods,
        services=await observe_services(client, meta) if job.spec.compute.nodes > 1 else (),
        workloads=await observe_workloads(client, meta, found.jobs) if _is_queued(job, found) else None,
    )
    related = await _observe_surroundings(client, job, found)
    progress = _live_progress(live.progress.latest(meta.uid))
    return assemble_training(job, found.config_maps, children, related, progress)


def waiting_jobs(body: Mapping[str, Any], known: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The FineTuneJobs that wait for what this one makes, once it has ended.

    Args:
        body: the changed resource.
        known: bodies of FineTuneJobs.
    """
    metadata, phase = body["metadata"], (body.get("status") or {}).get("phase")
    if body["kind"] != "FineTuneJob" or phase not in {"Succeeded", "Failed"}:
        return
    for job in known:
        here = job["metadata"]["namespace"] == metadata["namespace"]
        if here and _waits(job) and metadata["name"] in _referred_names(job["spec"]):
            yield job


def _waits(job: Mapping[str, Any]) -> bool:
    return (job.get("status") or {}).get("phase") in {None, "Pending"}


def _referred_names(spec: Mapping[str, Any]) -> set[str]:
    members = (member for member in spec.get("method", {}).values() if isinstance(member, dict))
    rewards = (reward.get("model") or {} for member in members for reward in member.get("rewards", ()))
    sources = (spec.get("baseModel", {}), *rewards)
    return {source["fineTuneJobRef"]["name"] for source in sources if source.get("fineTuneJobRef")}


def _is_queued(job: FineTuneJob, children: RunChildren) -> bool:
    """Whether a queue holds a Job, or is to hold one."""
    live = [body for body in children.jobs if job_end(body) is None]
    wanted = job.spec.suspend or any(is_suspended(body) for body in live)
    return QUEUE_LABEL in job.metadata.labels and bool(live) and wanted


async def _observe_surroundings(client: Client, job: FineTuneJob, children: RunChildren) -> RelatedObjects:
    meta, uris = job.metadata, data_fields(job.spec).values()
    eval_run = None
    if job.spec.evaluation is not None:
        eval_run = await client.get(API_VERSION, "EvalRun", meta.namespace, eval_run_name(job))
    begun = any(body["metadata"]["name"] == inputs_name(job) for body in children.config_maps)
    trains = any(body["metadata"]["labels"].get(STAGE_LABEL) == Stage.TRAIN for body in children.jobs)
    return RelatedObjects(
        eval_run=eval_run,
        earlier={} if begun else await _observe_earlier(client, job),
        claims={} if trains else await _observe_claims(client, job),
        gpu_nodes=await _observe_gpu_nodes(client, job, children),
        missing_config_maps=await observe_missing_config_maps(client, meta.namespace, children, uris),
        mount_failures=await observe_mount_failures(client, meta.namespace, children),
    )


async def _observe_earlier(client: Client, job: FineTuneJob) -> dict[str, FineTuneJob | None]:
    names, namespace = referred_jobs(job.spec), job.metadata.namespace
    bodies = {name: await client.get(API_VERSION, "FineTuneJob", namespace, name) for name in names}
    return {name: FineTuneJob.parse(without_invalid(body)) if body else None for name, body in bodies.items()}


async def _observe_claims(client: Client, job: FineTuneJob) -> dict[str, tuple[str, ...]]:
    """Access modes of the claims that pods on several nodes would mount; those that are not there are left out."""
    namespace = job.metadata.namespace
    names = shared_claims(job)
    bodies = {name: await client.get("v1", "PersistentVolumeClaim", namespace, name) for name in names}
    return {name: tuple(body["spec"].get("accessModes") or ()) for name, body in bodies.items() if body}


async def _observe_gpu_nodes(
    client: Client, job: FineTuneJob, children: RunChildren
) -> tuple[dict[str, Any], ...]:
    """The nodes, when their labels are to say what GPUs there are; none where the operator may not list them."""
    names = {body["metadata"]["name"] for body in children.config_maps}
    prepared = any(
        body["metadata"].get("labels", {}).get(STAGE_LABEL) == Stage.PREPARE for body in children.config_maps
    )
    begun = run_name(job) in names and is_judged(job.status)
    if begun or not prepared or not asks_for_nodes(job.spec):
        return ()
    try:
        return tuple(await client.list("v1", "Node", None))
    except Refused:
        return ()


def _live_progress(news: Progress | None) -> LiveProgress | None:
    if news is None or not news.labels.get(ATTEMPT_LABEL, "").isdecimal():
        return None
    return LiveProgress(news.labels.get(STAGE_LABEL, ""), int(news.labels[ATTEMPT_LABEL]), news.status)
