"""What a plan needs to know of a FineTuneJob."""

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.objects import is_suspended, job_end
from tunesmith.decide.training import LiveProgress, ObservedTraining, assemble_training
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.eval_run import eval_run_name
from tunesmith.manifests.names import API_VERSION, ATTEMPT_LABEL, QUEUE_LABEL, STAGE_LABEL

from .client import Client
from .live import Live, Progress
from .observe_run import (
    RunChildren,
    observe_missing_config_maps,
    observe_run_children,
    observe_services,
    observe_workloads,
)


async def observe_finetunejob(
    client: Client, job: FineTuneJob, live: Live, environment: Environment
) -> ObservedTraining:
    """Read the job's children, its EvalRun, and the latest news from its pods.

    Raises:
        ApiError: a read failed.
    """
    meta, data = job.metadata, job.spec.dataset
    children = await observe_run_children(client, meta)
    uris = (data.train.uri, data.validation.uri)
    missing = await observe_missing_config_maps(client, meta.namespace, children, uris)
    eval_run = None
    if job.spec.evaluation is not None:
        eval_run = await client.get(API_VERSION, "EvalRun", meta.namespace, eval_run_name(job))
    return assemble_training(
        job,
        children.config_maps,
        children.jobs,
        children.pods,
        eval_run,
        _live_progress(live.progress.latest(meta.uid)),
        missing,
        services=await observe_services(client, meta) if job.spec.compute.nodes > 1 else (),
        workloads=await observe_workloads(client, meta, children.jobs) if _is_queued(job, children) else None,
    )


def _is_queued(job: FineTuneJob, children: RunChildren) -> bool:
    """Whether a queue holds a Job, or is to hold one."""
    live = [body for body in children.jobs if job_end(body) is None]
    wanted = job.spec.suspend or any(is_suspended(body) for body in live)
    return QUEUE_LABEL in job.metadata.labels and bool(live) and wanted


def _live_progress(news: Progress | None) -> LiveProgress | None:
    if news is None or not news.labels.get(ATTEMPT_LABEL, "").isdecimal():
        return None
    return LiveProgress(news.labels.get(STAGE_LABEL, ""), int(news.labels[ATTEMPT_LABEL]), news.status)
