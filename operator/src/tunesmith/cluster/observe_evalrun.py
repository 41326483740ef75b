"""Observation of an EvalRun: its children and its candidate."""

from collections.abc import Iterator

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import FineTuneJobPhase
from tunesmith.controller_runtime.bodies import Key, Reference
from tunesmith.decide.evalrun.planning import ObservedEvaluation, assemble_evaluation
from tunesmith.manifests.run_snapshots import inputs_name

from .children import observe_children
from .observe_run import (
    observe_gpu_nodes,
    observe_missing_config_maps,
    observe_mount_failures,
    observe_run_children,
)
from .reconciler import Reader


async def observe_evalrun(reader: Reader, run: EvalRun) -> ObservedEvaluation:
    """Read the run's children, and its candidate's FineTuneJob until the snapshot is taken.

    Raises:
        ApiError: a read failed.
    """
    client, namespace = reader.client, run.metadata.namespace
    children = await observe_run_children(client, run.metadata)
    begun = any(body["metadata"]["name"] == inputs_name(run) for body in children.config_maps)
    few_shot = run.spec.few_shot_from.uri if run.spec.few_shot_from else None
    candidate = None if begun else _observe_candidate(reader, run)
    ready = candidate is not None and candidate.status.phase is FineTuneJobPhase.SUCCEEDED
    # A candidate that a URI names waits for nothing.
    named = ready or (not begun and run.spec.candidate.fine_tune_job_ref is None)
    uris = (*(suite.dataset.uri for suite in run.spec.suites if suite.dataset), few_shot)
    return assemble_evaluation(
        run,
        children.config_maps,
        children.jobs,
        children.pods,
        candidate,
        await observe_missing_config_maps(client, namespace, children, uris),
        await observe_mount_failures(client, namespace, children),
        await observe_children(client, "v1", "ConfigMap", candidate.metadata) if candidate and ready else (),
        await observe_gpu_nodes(client) if named and run.spec.compute.gpus else (),
    )


def evalrun_references(run: EvalRun) -> Iterator[Reference]:
    """The FineTuneJob whose artifact is the candidate."""
    reference = run.spec.candidate.fine_tune_job_ref
    if reference is not None:
        yield Reference("FineTuneJob", reference.name)


def _observe_candidate(reader: Reader, run: EvalRun) -> FineTuneJob | None:
    reference = run.spec.candidate.fine_tune_job_ref
    if reference is None:
        return None
    body = reader.bodies.get(Key("FineTuneJob", run.metadata.namespace, reference.name))
    return FineTuneJob.parse(body) if body is not None else None
