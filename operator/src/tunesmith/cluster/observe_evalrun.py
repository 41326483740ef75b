"""What a plan needs to know of an EvalRun."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.controller_runtime.client import Client
from tunesmith.decide.evalrun.planning import ObservedEvaluation, assemble_evaluation
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import API_VERSION
from tunesmith.manifests.run_snapshots import inputs_name

from .live import Live
from .observe_run import (
    RunChildren,
    observe_missing_config_maps,
    observe_mount_failures,
    observe_run_children,
)


async def observe_evalrun(
    client: Client, run: EvalRun, live: Live, environment: Environment
) -> ObservedEvaluation:
    """Read the run's children, and its candidate's FineTuneJob until the snapshot is taken.

    Raises:
        ApiError: a read failed.
    """
    children = await observe_run_children(client, run.metadata)
    candidate = None if _is_begun(run, children) else await _observe_candidate(client, run)
    few_shot = run.spec.few_shot_from.uri if run.spec.few_shot_from else None
    uris = (*(suite.dataset.uri for suite in run.spec.suites), few_shot)
    missing = await observe_missing_config_maps(client, run.metadata.namespace, children, uris)
    mounts = await observe_mount_failures(client, run.metadata.namespace, children)
    return assemble_evaluation(
        run, children.config_maps, children.jobs, children.pods, candidate, missing, mounts
    )


def waiting_runs(body: Mapping[str, Any], known: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The EvalRuns whose candidate this FineTuneJob is to make, once it has ended.

    Args:
        body: the changed resource.
        known: bodies of EvalRuns.
    """
    metadata = body["metadata"]
    if body["kind"] != "FineTuneJob" or (body.get("status") or {}).get("phase") not in {
        "Succeeded",
        "Failed",
    }:
        return
    for run in known:
        reference = run["spec"]["candidate"].get("fineTuneJobRef") or {}
        if (run["metadata"]["namespace"], reference.get("name")) == (metadata["namespace"], metadata["name"]):
            yield run


def _is_begun(run: EvalRun, children: RunChildren) -> bool:
    return any(body["metadata"]["name"] == inputs_name(run) for body in children.config_maps)


async def _observe_candidate(client: Client, run: EvalRun) -> FineTuneJob | None:
    reference = run.spec.candidate.fine_tune_job_ref
    if reference is None:
        return None
    body = await client.get(API_VERSION, "FineTuneJob", run.metadata.namespace, reference.name)
    return FineTuneJob.parse(body) if body is not None else None
