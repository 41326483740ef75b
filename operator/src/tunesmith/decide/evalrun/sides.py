"""Configuration of an evaluation: candidate, baseline, references and suites."""

from tunesmith.api.evalrun import EvalRun, few_shot_needs_file
from tunesmith.api.evaluation_sides import ComparedModel, Prompting
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobArtifact
from tunesmith.api.reasons import EvalRunReason, FineTuneJobPhase
from tunesmith.decide.finetunejob.generation import generated_rows
from tunesmith.decide.finetunejob.referenced_jobs import NotReady, base_model_of
from tunesmith_contract.artifact import ArtifactKind
from tunesmith_contract.base import canonical_json
from tunesmith_contract.evaluation import Decoding, MetricSettings, Side, Suite
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import EvaluateConfig, Owner
from tunesmith_contract.sources import ArtifactSource
from tunesmith_contract.uris import Scheme, parse_uri

_KEEPS_NO_WORK = frozenset({Scheme.OCI, Scheme.HF})


def resolve_sides(run: EvalRun, job: FineTuneJob | None) -> EvaluateConfig | NotReady | Failure:
    """Configuration of the evaluation; or why the candidate is not ready, or the failure.

    Args:
        job: the FineTuneJob that the candidate names, if it is there.
    """
    reference = run.spec.candidate.fine_tune_job_ref
    if reference is None:
        candidate = run.spec.candidate
        assert candidate.uri is not None
        assert candidate.digest is not None
        return _config(run, None, ArtifactSource(uri=candidate.uri, digest=candidate.digest))
    if job is None:
        where = f"namespace {run.metadata.namespace}"
        return NotReady(f'FineTuneJob "{reference.name}" does not exist in {where}: create it.')
    if job.status.phase is FineTuneJobPhase.FAILED:
        cause = job.status.failure.message if job.status.failure else ""
        return Failure(
            category=FailureCategory.USER_ERROR,
            reason=EvalRunReason.CANDIDATE_FAILED,
            message=f'FineTuneJob "{job.metadata.name}" failed, so there is nothing to judge: {cause}'[:2048],
        )
    artifact = job.status.artifact
    if job.status.phase is not FineTuneJobPhase.SUCCEEDED or artifact is None:
        phase = job.status.phase or FineTuneJobPhase.PENDING
        return NotReady(f'FineTuneJob "{reference.name}" has not succeeded yet: it is {phase}.')
    if (failure := _reward_model_failure(job, artifact) or _examples_failure(run, job)) is not None:
        return failure
    return _config(run, job, ArtifactSource(uri=artifact.uri, digest=artifact.digest))


def resolve_secrets(run: EvalRun, job: FineTuneJob | None) -> dict[str, str]:
    """Secrets by role: those of the base model, and of the job's artifact, rows and workspace."""
    model = run.spec.base_model or (job.spec.base_model if job else None)
    written = {
        SecretRole.BASE_MODEL: model.secret_ref if model else None,
        SecretRole.OUTPUT: job.spec.output.secret_ref if job else None,
        SecretRole.TRAIN: job.spec.dataset.train.secret_ref if job and job.spec.dataset.train else None,
        SecretRole.WORKSPACE: job.spec.workspace.secret_ref if job and job.spec.workspace else None,
    }
    return {str(role): reference.name for role, reference in written.items() if reference}


def policy_of(run: EvalRun) -> str:
    """Canonical JSON of the policy: suites, gates and confidence."""
    spec = run.spec.to_dict()
    return canonical_json({key: spec[key] for key in ("suites", "gates", "confidence")}).decode()


def _reward_model_failure(job: FineTuneJob, artifact: JobArtifact) -> Failure | None:
    """Failure for a candidate that gives no answers: a reward model."""
    if artifact.kind not in {ArtifactKind.REWARD_ADAPTER, ArtifactKind.REWARD_MODEL}:
        return None
    return Failure(
        category=FailureCategory.USER_ERROR,
        reason=EvalRunReason.CANDIDATE_FAILED,
        message=f'The artifact of FineTuneJob "{job.metadata.name}" is a reward model, which gives numbers and no '
        "answers: evaluate a model that was trained with it.",
    )


def _examples_failure(run: EvalRun, job: FineTuneJob) -> Failure | None:
    """Failure for few-shot examples without a single file to draw them from."""
    spec = run.spec
    uses_examples = any(side.few_shot for side in (spec.candidate, spec.baseline, *spec.references))
    train = job.spec.dataset.train
    # Generated rows, for which there is no ``train``, are a file as well.
    trained_on_file = train is None or train.is_files
    if not uses_examples or spec.few_shot_from is not None or trained_on_file:
        return None
    return Failure(
        category=FailureCategory.USER_ERROR,
        reason=EvalRunReason.INVALID_SPEC,
        message=few_shot_needs_file(f'dataset.train of FineTuneJob "{job.metadata.name}"', "fewShotFrom"),
    )


def _config(run: EvalRun, job: FineTuneJob | None, candidate: ArtifactSource) -> EvaluateConfig:
    spec, meta = run.spec, run.metadata
    references = (_side(side.name, side, _adapter(side)) for side in spec.references)
    sides = (
        _side("candidate", spec.candidate, candidate),
        _side("baseline", spec.baseline, _adapter(spec.baseline)),
        *references,
    )
    return EvaluateConfig(
        owner=Owner(kind="EvalRun", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        base_model=_base_model(run, job),
        sides=sides,
        suites=_suites(run),
        few_shot_from=_few_shot_from(run, job) if any(side.few_shot for side in sides) else None,
        confidence=float(spec.confidence),
        policy=policy_of(run),
        gpus=spec.compute.gpus,
        workspace=_workspace(job, candidate.uri),
        output=_output(candidate.uri),
    )


def _side(name: str, prompting: Prompting, adapter: ArtifactSource | None) -> Side:
    return Side(
        name=name, adapter=adapter, system_prompt=prompting.system_prompt, few_shot=prompting.few_shot
    )


def _adapter(side: ComparedModel) -> ArtifactSource | None:
    if side.uri is None or side.digest is None:
        return None
    return ArtifactSource(uri=side.uri, digest=side.digest)


def _suites(run: EvalRun) -> tuple[Suite, ...]:
    return tuple(
        Suite(
            name=suite.name,
            dataset=suite.dataset.uri if suite.dataset else None,
            metrics=tuple(MetricSettings(type=metric.type, name=metric.name) for metric in suite.metrics),
            limit=suite.limit,
            decoding=Decoding(max_new_tokens=suite.max_new_tokens),
        )
        for suite in run.spec.suites
    )


def _base_model(run: EvalRun, job: FineTuneJob | None) -> str:
    """URI of the model under all sides, with the revision that was tuned."""
    if run.spec.base_model is not None:
        return run.spec.base_model.uri
    assert job is not None
    return base_model_of(job)


def _few_shot_from(run: EvalRun, job: FineTuneJob | None) -> str | None:
    if run.spec.few_shot_from is not None:
        return run.spec.few_shot_from.uri
    if job is None:
        return None
    train = job.spec.dataset.train
    if train is None:
        return generated_rows(job)
    return train.locations[0] if train.locations else None


def _workspace(job: FineTuneJob | None, candidate: str) -> str | None:
    """URI of the report where it can't lie beside the artifacts: registries and hubs keep no work files."""
    if parse_uri(candidate).scheme not in _KEEPS_NO_WORK or job is None or job.spec.workspace is None:
        return None
    return job.spec.workspace.uri


def _output(candidate: str) -> str:
    """URI of the report beside the artifacts: ``pvc://claim/folder`` of ``…/folder/sha256/<hex>``."""
    uri = parse_uri(candidate)
    if uri.scheme is Scheme.OCI:
        return str(uri._replace(revision=None))
    folder, separator, _ = f"/{uri.path}".rpartition("/sha256/")
    return str(uri._replace(path=folder.strip("/") if separator else ""))
