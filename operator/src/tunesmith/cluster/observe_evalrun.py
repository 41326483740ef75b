"""Observation of an EvalRun: its children, the sources of its compared models, and its pods' progress."""

import re
from collections.abc import Iterable, Iterator, Mapping

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.controller_runtime.bodies import Key, Reference
from tunesmith.decide.evalrun.claims import shared_claim_names
from tunesmith.decide.evalrun.config import resolve_evaluation
from tunesmith.decide.evalrun.planning import ObservedEvaluation, assemble_evaluation, begun_attempts
from tunesmith.decide.evalrun.sides import ServedAliases, SideSources, named_sides, resolve_sides
from tunesmith.decide.finetunejob.referenced_jobs import NotReady
from tunesmith.decide.objects import job_end, terminated
from tunesmith.decide.serving.records.stored import read_stored
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import parse_result, record_text
from tunesmith.manifests.run_snapshots import inputs_name, parse_inputs
from tunesmith.manifests.verdict_records import has_verdicts
from tunesmith_contract.evaluation import MAX_LINEAGE
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.stages import Stage

from .children import observe_children, observe_finished_work, observe_verdicts
from .observe_run import (
    RunChildren,
    has_ended,
    live_progress,
    observe_claims,
    observe_creation_failures,
    observe_missing_config_maps,
    observe_mount_failures,
    observe_run_children,
)
from .reconciler import Reader
from .related import find_job, parse_or_none

_DIGEST = re.compile("sha256:[0-9a-f]{64}")


async def observe_evalrun(reader: Reader, run: EvalRun) -> ObservedEvaluation:
    """Read the run's children, and the sources of its compared models until the snapshot is taken.

    Raises:
        ApiError: a read failed.
    """
    client, namespace = reader.client, run.metadata.namespace
    children = await observe_run_children(client, run.metadata, begun_attempts(run).count)
    begun = any(body["metadata"]["name"] == inputs_name(run) for body in children.config_maps)
    sources = SideSources() if begun else await _observe_sources(reader, run)
    # What waits reads nothing: each change of a source, and each minute, leads to another pass.
    begins = not begun and not isinstance(resolve_sides(run.spec, namespace, sources), NotReady)
    claims = _names_of_shared_claims(run, children, sources)
    few_shot = run.spec.few_shot_from.uri if run.spec.few_shot_from else None
    uris = (*(suite.dataset.uri for suite in run.spec.suites if suite.dataset), few_shot)
    return assemble_evaluation(
        run,
        children.config_maps,
        children.jobs,
        children.pods,
        sources,
        await observe_missing_config_maps(client, namespace, children, uris),
        await observe_mount_failures(reader, run.metadata, children),
        await _observe_reports(reader, sources),
        await reader.cluster.nodes(client) if begins and run.spec.compute.gpus else (),
        live_progress(reader.live.progress.latest(run.metadata.uid)),
        _observe_other_runs(reader, run, children) if begun else (),
        await observe_claims(client, namespace, claims),
        await observe_verdicts(client, namespace, _compared_digests(children)),
        await observe_creation_failures(reader, namespace, children),
        await observe_finished_work(client, run) if not begun or has_ended(children, Stage.EVALUATE) else (),
    )


def _names_of_shared_claims(run: EvalRun, children: RunChildren, sources: SideSources) -> tuple[str, ...]:
    """Names of the claims that the pods of the next attempt share; none while an attempt runs."""
    if run.spec.parallelism == 1 or any(job_end(job) is None for job in children.jobs):
        return ()
    bodies = (body for body in children.config_maps if body["metadata"]["name"] == inputs_name(run))
    inputs = next(map(parse_inputs, bodies), None)
    resolved = inputs or resolve_evaluation(run, sources)
    if isinstance(resolved, NotReady | Failure) or not isinstance(resolved.config, EvaluateConfig):
        return ()
    return shared_claim_names(run.spec, resolved.config)


def _compared_digests(children: RunChildren) -> frozenset[str]:
    """Digests in this run's records, and in the reports of which a record is about to be made.

    Of the candidate, and of whatever else it was compared by.
    """
    records = (record_text(config_map) for config_map in children.config_maps)
    reports = (state.get("message") for pod in children.pods if (state := terminated(pod)))
    return frozenset(digest for text in (*records, *reports) if text for digest in _DIGEST.findall(text))


def _candidates(config_maps: Iterable[Body]) -> frozenset[str]:
    """Digest, or revision, of the candidate that this run's records tell."""
    reports = (record.report for config_map in config_maps if (record := parse_result(config_map)))
    evaluations = (report.evaluation for report in reports if report is not None)
    return frozenset(found.compared[0].digest for found in evaluations if found and found.compared)


def _observe_other_runs(reader: Reader, run: EvalRun, children: RunChildren) -> tuple[Body, ...]:
    """The other EvalRuns of the namespace that have a verdict, at least those on the candidate of this run's record."""
    candidates = _candidates(children.config_maps)
    # A model's revision is no digest by which a run could be found.
    known = candidates if all(map(has_verdicts, candidates)) else _compared_digests(children)
    bodies = reader.bodies.mentioning("EvalRun", run.metadata.namespace, known) if candidates else ()
    return tuple(
        body
        for body in bodies
        if (body.get("status") or {}).get("verdict") and body["metadata"]["uid"] != run.metadata.uid
    )


def evalrun_references(run: EvalRun) -> Iterator[Reference]:
    """The FineTuneJobs and AdapterDeployments whose artifacts are compared."""
    for _, _, side in named_sides(run.spec):
        if side.fine_tune_job_ref is not None:
            yield Reference("FineTuneJob", side.fine_tune_job_ref.name)
        if side.adapter_deployment_ref is not None:
            yield Reference("AdapterDeployment", side.adapter_deployment_ref.name)


async def _observe_sources(reader: Reader, run: EvalRun) -> SideSources:
    """The resources that the compared models name, and the FineTuneJobs that made what is named by digest."""
    namespace = run.metadata.namespace
    references = set(evalrun_references(run))
    deployments = {
        name: await _observe_aliases(reader, namespace, name)
        for kind, name in references
        if kind == "AdapterDeployment" and name
    }
    digests = {side.digest for _, _, side in named_sides(run.spec) if side.digest}
    for served in filter(None, deployments.values()):
        digests |= {version.digest for version in served.stable.values()}
    makers = _find_makers(reader, namespace, digests)
    named = [name for kind, name in references if kind == "FineTuneJob" and name]
    jobs: dict[str, FineTuneJob | None] = {job.metadata.name: job for job in makers.values()}
    jobs |= {name: find_job(reader, namespace, name) for name in named}
    return SideSources(_with_earlier(reader, namespace, jobs), deployments, makers)


async def _observe_aliases(reader: Reader, namespace: str, name: str) -> ServedAliases | None:
    """An AdapterDeployment with its stable versions, from the operator's own records: anybody may write a status."""
    body = reader.bodies.get(Key("AdapterDeployment", namespace, name))
    deployment = parse_or_none(AdapterDeployment, body)
    if deployment is None:
        return None
    config_maps = await observe_children(reader.client, "v1", "ConfigMap", deployment.metadata)
    revisions = await observe_children(reader.client, "apps/v1", "ControllerRevision", deployment.metadata)
    records = read_stored(deployment, config_maps, None, revisions).records
    served = {adapter.name: records[adapter.name].stable for adapter in deployment.spec.adapters}
    return ServedAliases(deployment, {alias: stable for alias, stable in served.items() if stable})


def _find_makers(reader: Reader, namespace: str, digests: set[str]) -> dict[str, FineTuneJob]:
    """FineTuneJobs of the namespace that made artifacts of these digests."""
    if not digests:
        return {}
    makers: dict[str, FineTuneJob] = {}
    for body in reader.bodies.mentioning("FineTuneJob", namespace, digests):
        made = digests & _made(body)
        job = parse_or_none(FineTuneJob, body) if made else None
        if job is not None:
            makers |= dict.fromkeys(made, job)
    return makers


def _made(body: Body) -> set[str]:
    """Digests of the artifacts that a FineTuneJob's status lists."""
    artifact = (body.get("status") or {}).get("artifact") or {}
    return {item["digest"] for item in (artifact, *(artifact.get("exports") or ())) if item.get("digest")}


def _with_earlier(
    reader: Reader, namespace: str, jobs: Mapping[str, FineTuneJob | None]
) -> dict[str, FineTuneJob | None]:
    """The jobs, and those from whose artifacts they started."""
    found, latest = dict(jobs), dict(jobs)
    for _ in range(MAX_LINEAGE):
        references = (job.spec.base_model.fine_tune_job_ref for job in latest.values() if job)
        names = {reference.name for reference in references if reference} - found.keys()
        latest = {name: find_job(reader, namespace, name) for name in names}
        found |= latest
    return found


async def _observe_reports(reader: Reader, sources: SideSources) -> dict[str, tuple[Body, ...]]:
    """ConfigMaps of the jobs whose artifacts may be compared; they hold the sizes of their base models."""
    jobs = [*sources.jobs.values(), *sources.makers.values()]
    made = {job.metadata.name: job for job in jobs if job and job.status.artifact}
    return {
        name: await observe_children(reader.client, "v1", "ConfigMap", job.metadata)
        for name, job in made.items()
    }
