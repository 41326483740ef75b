"""Secrets of an evaluation by role, and the fields in which people wrote them."""

from collections.abc import Sequence

from tunesmith.api.evalrun import EvalRunSpec
from tunesmith.api.evaluation_sides import ComparedModel
from tunesmith_contract.evaluation import MAX_LINEAGE
from tunesmith_contract.layout import (
    SecretRole,
    metric_role,
    side_model_role,
    side_role,
    suite_role,
    trained_rows_role,
)

from .sides import ResolvedSide, base_of_run, named_sides, workspace_secret
from .suites import metric_endpoints

_ITS_JOB = "of its FineTuneJob"


def resolve_secrets(spec: EvalRunSpec, sides: Sequence[ResolvedSide]) -> dict[str, str]:
    """Secrets by role; those of a FineTuneJob open what the job wrote, where the spec names no other."""
    job = sides[0].job if spec.candidate.fine_tune_job_ref else None
    _, base = base_of_run(spec, sides[0])
    written: dict[str, str | None] = {SecretRole.BASE_MODEL: base}
    if spec.output is not None:
        written[SecretRole.OUTPUT] = spec.output.secret_ref.name if spec.output.secret_ref else None
    else:
        written[SecretRole.OUTPUT] = dict(sides[0].secrets).get(side_role(sides[0].side.name))
    if job is not None:
        train = job.spec.dataset.train
        opened = train.secret_ref if train else None
        written[SecretRole.TRAIN] = opened.name if opened else None
        written[SecretRole.WORKSPACE] = workspace_secret(job)
    if spec.few_shot_from is not None:
        opened = spec.few_shot_from.secret_ref
        written[SecretRole.EXAMPLES] = opened.name if opened else None
    for suite in spec.suites:
        if suite.dataset is not None and suite.dataset.secret_ref is not None:
            written[suite_role(suite.name)] = suite.dataset.secret_ref.name
    for name, index, _, endpoint in metric_endpoints(spec):
        written[metric_role(name, index)] = endpoint.secret_ref.name if endpoint.secret_ref else None
    for resolved in sides:
        written |= resolved.secrets
    return {str(role): name for role, name in written.items() if name}


def secret_fields(spec: EvalRunSpec) -> dict[str, str]:
    """The field to correct for each role that a run of this spec may have."""
    fields: dict[str, str] = {
        SecretRole.BASE_MODEL: "spec.baseModel.secretRef.name"
        if spec.base_model
        else f"baseModel.secretRef {_ITS_JOB}",
        SecretRole.OUTPUT: "spec.output.secretRef.name" if spec.output else f"output.secretRef {_ITS_JOB}",
        SecretRole.TRAIN: f"dataset.train.secretRef {_ITS_JOB}",
        SecretRole.WORKSPACE: f"workspace.secretRef {_ITS_JOB}",
        SecretRole.EXAMPLES: "spec.fewShotFrom.secretRef.name",
    }
    for suite in spec.suites:
        fields[suite_role(suite.name)] = f"spec.suites[{suite.name}].dataset.secretRef.name"
    for name, index, field, _ in metric_endpoints(spec):
        fields[metric_role(name, index)] = f"{field}.secretRef.name"
    for name, path, written in named_sides(spec):
        fields[side_role(name)] = _side_field(path, written)
        fields[side_model_role(name)] = f"baseModel.secretRef of the source of {path}"
        for generation in range(MAX_LINEAGE):
            role = trained_rows_role(name, generation)
            fields[role] = f"workspace.secretRef of the FineTuneJob behind {path}"
    return fields


def _side_field(path: str, written: ComparedModel) -> str:
    for member in ("model", "endpoint", "answers"):
        if getattr(written, member) is not None:
            return f"{path}.{member}.secretRef.name"
    if written.fine_tune_job_ref is not None:
        return f'output.secretRef of FineTuneJob "{written.fine_tune_job_ref.name}"'
    if written.adapter_deployment_ref is not None:
        return f'artifactSecretRef of AdapterDeployment "{written.adapter_deployment_ref.name}"'
    return f"{path}.secretRef.name"
