"""Compared models of an evaluation, resolved from the sources in the spec to the pods' configuration."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRunSpec
from tunesmith.api.evaluation_sides import AliasRef, ComparedModel
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import EvalRunReason, FineTuneJobPhase
from tunesmith.decide.finetunejob.referenced_jobs import NotReady, base_model_of, is_whole_model
from tunesmith_contract.agent import Version
from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.evaluation import MAX_LINEAGE, Side, StoredAnswers, TrainedRows
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.layout import (
    TRAIN_FILE,
    is_checkpoint,
    prepared_uri,
    side_model_role,
    side_role,
    trained_rows_role,
    work_uri,
)
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import OutputFormat
from tunesmith_contract.sources import ArtifactSource
from tunesmith_contract.uris import parse_uri

from .suites import priced_endpoint

CANDIDATE, BASELINE = "candidate", "baseline"

_NO_ANSWERS = frozenset({ArtifactKind.REWARD_ADAPTER, ArtifactKind.REWARD_MODEL})


@dataclass(frozen=True, slots=True)
class ServedAliases:
    """An AdapterDeployment with the stable version of each alias that has one."""

    deployment: AdapterDeployment
    stable: Mapping[str, Version]


@dataclass(frozen=True, slots=True)
class SideSources:
    """Observed resources that the compared models name.

    Attributes:
        jobs: FineTuneJobs by name: those that are named, and those whose artifacts they started from; None for one
            that does not exist.
        deployments: AdapterDeployments by name; None for one that does not exist.
        makers: FineTuneJobs by the digest of an artifact that they made, for artifacts that are named by digest.
    """

    jobs: Mapping[str, FineTuneJob | None] = field(default_factory=dict)
    deployments: Mapping[str, ServedAliases | None] = field(default_factory=dict)
    makers: Mapping[str, FineTuneJob] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResolvedSide:
    """A compared model with all that is known of its source.

    Attributes:
        side: the side, without its base model.
        job: the FineTuneJob that made it, if it is known.
        base_model: the base model that its source names; None if the source names none.
        base_secret: the Secret that opens that base model.
        whole: it needs no base model.
        secrets: Secrets by role.
        rows: rows that it was trained on.
        notes: sentences for people.
    """

    side: Side
    job: FineTuneJob | None = None
    base_model: str | None = None
    base_secret: str | None = None
    whole: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[TrainedRows, ...] = ()
    notes: tuple[str, ...] = ()


def named_sides(spec: EvalRunSpec) -> Iterator[tuple[str, str, ComparedModel]]:
    """Name, field and settings of each compared model: candidate, baseline, then references."""
    yield CANDIDATE, "spec.candidate", spec.candidate
    yield BASELINE, "spec.baseline", spec.baseline
    for reference in spec.references:
        yield reference.name, f"spec.references[{reference.name}]", reference


def resolve_sides(
    spec: EvalRunSpec, namespace: str, sources: SideSources
) -> tuple[ResolvedSide, ...] | NotReady | Failure:
    """All compared models; or what is waited for, or the failure."""
    resolved = []
    for name, path, written in named_sides(spec):
        outcome = _resolve(name, path, written, namespace, sources)
        if not isinstance(outcome, ResolvedSide):
            return outcome
        resolved.append(_with_lineage(outcome, sources))
    return _on_their_bases(spec, resolved)


def base_of_run(spec: EvalRunSpec, candidate: ResolvedSide) -> tuple[str | None, str | None]:
    """Base model of the sides that name none, and the Secret that opens it; None where each side names its own."""
    if spec.base_model is not None:
        return spec.base_model.uri, spec.base_model.secret_ref.name if spec.base_model.secret_ref else None
    return candidate.base_model, candidate.base_secret


def _on_their_bases(spec: EvalRunSpec, sides: list[ResolvedSide]) -> tuple[ResolvedSide, ...]:
    """Sides with the base models that are not that of the run."""
    base, _ = base_of_run(spec, sides[0])
    placed = []
    for resolved in sides:
        own = resolved.base_model
        if own is not None and own != base and not resolved.whole:
            secrets = dict(resolved.secrets)
            if resolved.base_secret:
                secrets[side_model_role(resolved.side.name)] = resolved.base_secret
            resolved = replace(
                resolved, side=resolved.side.model_copy(update={"model": own}), secrets=secrets
            )
        placed.append(resolved)
    return tuple(placed)


def _resolve(
    name: str, path: str, written: ComparedModel, namespace: str, sources: SideSources
) -> ResolvedSide | NotReady | Failure:
    prompting = _prompting(path, written)
    if isinstance(prompting, Failure):
        return prompting
    side = Side(name=name, **prompting)
    if written.fine_tune_job_ref is not None:
        return _of_job(side, path, written, namespace, sources)
    if written.adapter_deployment_ref is not None:
        return _of_alias(side, path, written.adapter_deployment_ref, namespace, sources)
    if written.uri is not None and written.digest is not None:
        secret = written.secret_ref.name if written.secret_ref else None
        source = ArtifactSource(uri=written.uri, digest=written.digest)
        if is_checkpoint(parse_uri(source.uri)):
            secrets = {side_role(name): secret} if secret else {}
            return ResolvedSide(side.model_copy(update={"checkpoint": source}), secrets=secrets)
        return _of_artifact(side, path, source, secret, sources)
    return _of_other_source(side, written)


def _of_other_source(side: Side, written: ComparedModel) -> ResolvedSide:
    """A side that names no resource of the cluster: a model, an endpoint, stored answers."""
    opened = written.model or written.endpoint or written.answers
    secret = opened.secret_ref if opened else None
    secrets = {side_role(side.name): secret.name} if secret else {}
    changes: dict[str, Any] = {}
    if written.model is not None:
        changes["model"] = written.model.uri
    if written.endpoint is not None:
        changes["endpoint"] = priced_endpoint(written.endpoint)
    if written.answers is not None:
        stored = written.answers
        changes["answers"] = StoredAnswers(uri=stored.uri, digest=stored.digest, side=stored.side)
    return ResolvedSide(side.model_copy(update=changes), secrets=secrets)


def _of_job(
    side: Side, path: str, written: ComparedModel, namespace: str, sources: SideSources
) -> ResolvedSide | NotReady | Failure:
    assert written.fine_tune_job_ref is not None
    name = written.fine_tune_job_ref.name
    job = sources.jobs.get(name)
    if job is None:
        return NotReady(f'FineTuneJob "{name}" does not exist in namespace {namespace}: create it.')
    if written.checkpoint_step is not None:
        return _of_checkpoint(side, path, written.checkpoint_step, job)
    if job.status.phase is FineTuneJobPhase.FAILED:
        cause = job.status.failure.message if job.status.failure else ""
        return _failure(f'FineTuneJob "{name}" failed, so {path} has nothing to judge: {cause}')
    artifact = job.status.artifact
    if job.status.phase is not FineTuneJobPhase.SUCCEEDED or artifact is None:
        phase = job.status.phase or FineTuneJobPhase.PENDING
        return NotReady(f'FineTuneJob "{name}" has not succeeded yet: it is {phase}.')
    if (refusal := _refuse_kind(path, job, artifact.kind)) is not None:
        return refusal
    source = ArtifactSource(uri=artifact.uri, digest=artifact.digest)
    secret = job.spec.output.secret_ref
    return ResolvedSide(
        side.model_copy(update={"adapter": source}),
        job,
        base_model_of(job),
        _base_secret(job),
        is_whole_model(job, artifact),
        {side_role(side.name): secret.name} if secret else {},
    )


def _of_checkpoint(side: Side, path: str, step: int, job: FineTuneJob) -> ResolvedSide | NotReady | Failure:
    """One of the job's checkpoints; the weights are an adapter's, or those of a whole model."""
    name, listed = job.metadata.name, {item.step: item for item in job.status.checkpoints}
    checkpoint = listed.get(step)
    if checkpoint is None:
        steps = ", ".join(map(str, sorted(listed))) or "none"
        message = f'FineTuneJob "{name}" has no checkpoint of step {step}; status.checkpoints lists {steps}'
        if job.status.phase in {FineTuneJobPhase.SUCCEEDED, FineTuneJobPhase.FAILED}:
            return _failure(f"{message}: write one of them in {path}.checkpointStep, or leave it out.")
        return NotReady(f"{message}.")
    if job.status.phase is FineTuneJobPhase.SUCCEEDED and not job.spec.checkpoints.retain:
        return _failure(
            f'FineTuneJob "{name}" has succeeded, and its checkpoints were deleted with its work files: write '
            f"checkpoints.retain: true in the job to keep them, or leave {path}.checkpointStep out."
        )
    if job.spec.method.reward is not None:
        return _reward_failure(path, name)
    opened = job.spec.workspace.secret_ref if job.spec.workspace else job.spec.output.secret_ref
    source = ArtifactSource(uri=checkpoint.uri, digest=checkpoint.digest)
    return ResolvedSide(
        side.model_copy(update={"checkpoint": source}),
        job,
        base_model_of(job),
        _base_secret(job),
        job.spec.adapter is None,
        {side_role(side.name): opened.name} if opened else {},
    )


def _of_alias(
    side: Side, path: str, reference: AliasRef, namespace: str, sources: SideSources
) -> ResolvedSide | NotReady | Failure:
    """The version that an alias serves now, by digest."""
    served = sources.deployments.get(reference.name)
    if served is None:
        return NotReady(
            f'AdapterDeployment "{reference.name}" does not exist in namespace {namespace}: create it.'
        )
    deployment, alias = served.deployment, reference.adapter
    aliases = [adapter.name for adapter in deployment.spec.adapters]
    if alias not in aliases:
        known = ", ".join(aliases) or "none"
        return NotReady(
            f'AdapterDeployment "{reference.name}" has no adapter "{alias}" (it has {known}): correct '
            f"{path}.adapterDeploymentRef.adapter in another EvalRun, or add the adapter."
        )
    version = served.stable.get(alias)
    if version is None:
        return NotReady(
            f'Adapter "{alias}" of AdapterDeployment "{reference.name}" serves no version yet. If its first version '
            f"waits for this run, compare with {path.rpartition('.')[2]}: {{base: {{}}}} instead."
        )
    source = ArtifactSource(uri=version.uri, digest=version.digest)
    opened = deployment.spec.artifact_secret_ref
    named = side.model_copy(update={"served_as": f"{reference.name}/{alias}"})
    resolved = _of_artifact(named, path, source, opened.name if opened else None, sources)
    if isinstance(resolved, Failure) or resolved.base_model is not None:
        return resolved
    base = deployment.spec.base_model
    return replace(
        resolved, base_model=base.uri, base_secret=base.secret_ref.name if base.secret_ref else None
    )


def _of_artifact(
    side: Side, path: str, source: ArtifactSource, secret: str | None, sources: SideSources
) -> ResolvedSide | Failure:
    """An artifact by URI and digest; the job that made it, where it is still there, tells more of it."""
    side = side.model_copy(update={"adapter": source})
    secrets = {side_role(side.name): secret} if secret else {}
    job = sources.makers.get(source.digest)
    if job is None or job.status.artifact is None:
        return ResolvedSide(side, secrets=secrets)
    artifact = job.status.artifact
    formats = {export.digest: export.format for export in artifact.exports}
    if formats.get(source.digest) is OutputFormat.GGUF:
        return _failure(
            f"{path} names a GGUF file, which the engines of an evaluation do not load: name the artifact of "
            f'FineTuneJob "{job.metadata.name}" itself ({artifact.uri}).'
        )
    if (refusal := _refuse_kind(path, job, artifact.kind)) is not None:
        return refusal
    whole = source.digest in formats or is_whole_model(job, artifact)
    if secret is None and job.spec.output.secret_ref and _is_below(source.uri, job.spec.output.uri):
        secrets = {side_role(side.name): job.spec.output.secret_ref.name}
    return ResolvedSide(side, job, base_model_of(job), _base_secret(job), whole, secrets)


def _is_below(uri: str, output: str) -> bool:
    """True if both name the same store, so that its Secret may be sent there."""
    place, base = parse_uri(uri), parse_uri(output)
    return (place.scheme, place.name) == (base.scheme, base.name)


def _base_secret(job: FineTuneJob) -> str | None:
    return job.spec.base_model.secret_ref.name if job.spec.base_model.secret_ref else None


def _refuse_kind(path: str, job: FineTuneJob, kind: str | None) -> Failure | None:
    """Failure for an artifact that gives no answers."""
    if kind not in _NO_ANSWERS:
        return None
    return _reward_failure(path, job.metadata.name)


def _reward_failure(path: str, name: str) -> Failure:
    return _failure(
        f'The artifact of FineTuneJob "{name}" is a reward model, which gives numbers and no answers: name a model '
        f"that was trained with it in {path}."
    )


def _with_lineage(resolved: ResolvedSide, sources: SideSources) -> ResolvedSide:
    """The side with the rows of its job, and of the jobs from whose artifacts that one started."""
    rows: list[TrainedRows] = []
    secrets, notes = dict(resolved.secrets), list(resolved.notes)
    job, name = resolved.job, resolved.side.name
    while job is not None:
        generation = len(rows)
        digest = job.status.resolved.dataset_digest if job.status.resolved else None
        rows.append(
            TrainedRows(side=name, uri=prepared_rows(job), digest=digest or None, generation=generation)
        )
        if opened := workspace_secret(job):
            secrets[trained_rows_role(name, generation)] = opened
        earlier = job.spec.base_model.fine_tune_job_ref
        if earlier is None:
            break
        job = sources.jobs.get(earlier.name)
        if job is None or len(rows) == MAX_LINEAGE:
            notes.append(
                f'The items were not compared with the training rows of FineTuneJob "{earlier.name}", from which '
                f"{name} descends: {'it no longer exists' if job is None else 'its lineage is too long'}."
            )
            break
    return replace(resolved, rows=tuple(rows), secrets=secrets, notes=tuple(notes))


def prepared_rows(job: FineTuneJob) -> str:
    """URI of the prepared training rows of a job, without leaks; they stay after training."""
    place = parse_uri(job.spec.workspace.uri if job.spec.workspace else job.spec.output.uri)
    work = work_uri(place, job.metadata.namespace, job.metadata.uid)
    return str(prepared_uri(work).join(TRAIN_FILE))


def workspace_secret(job: FineTuneJob) -> str | None:
    """The Secret that opens the work files of a job."""
    opened = job.spec.workspace.secret_ref if job.spec.workspace else job.spec.output.secret_ref
    return opened.name if opened else None


def _prompting(path: str, written: ComparedModel) -> dict[str, Any] | Failure:
    """Prompt settings of a side; the arguments of its template are JSON."""
    arguments: dict[str, Any] = {}
    for key, text in (written.template_arguments or {}).items():
        try:
            arguments[key] = json.loads(text)
        except ValueError:
            return _failure(
                f"{path}.templateArguments.{key} is no JSON: {text!r}. Write true, false, a number, or a string in "
                "two pairs of quotes, such as '\"low\"'.",
                EvalRunReason.INVALID_SPEC,
            )
    return {
        "system_prompt": written.system_prompt,
        "few_shot": written.few_shot,
        "context_column": written.context_column,
        "template_arguments": arguments,
    }


def _failure(message: str, reason: EvalRunReason = EvalRunReason.CANDIDATE_FAILED) -> Failure:
    return Failure(category=FailureCategory.USER_ERROR, reason=reason, message=message[:2048])
