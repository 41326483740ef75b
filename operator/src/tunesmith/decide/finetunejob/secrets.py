"""Secrets of a FineTuneJob by role, and those of each stage."""

from collections.abc import Mapping

from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith_contract.layout import SecretRole, reward_role, suite_role

from .generation import generation_secrets

#: Roles of each stage; those of rewards are train's alone.
PREPARE_ROLES = frozenset(
    {
        SecretRole.BASE_MODEL,
        SecretRole.TRAIN,
        SecretRole.VALIDATION,
        SecretRole.OUTPUT,
        SecretRole.WORKSPACE,
        SecretRole.TEACHER,
    }
)
TRAIN_ROLES = frozenset(
    {
        SecretRole.BASE_MODEL,
        SecretRole.OUTPUT,
        SecretRole.WORKSPACE,
        SecretRole.TEACHER,
        SecretRole.MLFLOW,
        SecretRole.WEIGHTS_AND_BIASES,
    }
)


def secret_fields(spec: FineTuneJobSpec) -> dict[str, tuple[str, str]]:
    """Role to the Secret's name and the field that names it."""
    data, tracking, method = spec.dataset, spec.tracking, spec.method
    teacher = method.distillation.teacher if method.distillation else None
    endpoint = teacher.endpoint if teacher else None
    written = {
        SecretRole.BASE_MODEL: (spec.base_model.secret_ref, "spec.baseModel"),
        SecretRole.TRAIN: (data.train.secret_ref if data.train else None, "spec.dataset.train"),
        SecretRole.VALIDATION: (data.validation.secret_ref, "spec.dataset.validation"),
        SecretRole.OUTPUT: (spec.output.secret_ref, "spec.output"),
        SecretRole.WORKSPACE: (spec.workspace.secret_ref if spec.workspace else None, "spec.workspace"),
        SecretRole.MLFLOW: (tracking.mlflow.secret_ref if tracking.mlflow else None, "spec.tracking.mlflow"),
        SecretRole.WEIGHTS_AND_BIASES: (
            tracking.weights_and_biases.secret_ref if tracking.weights_and_biases else None,
            "spec.tracking.weightsAndBiases",
        ),
        SecretRole.TEACHER: (
            (teacher.secret_ref if teacher else None) or (endpoint.secret_ref if endpoint else None),
            "spec.method.distillation.teacher",
        ),
    }
    named = {
        str(role): (reference.name, f"{field}.secretRef.name")
        for role, (reference, field) in written.items()
        if reference
    }
    for reward in method.rewards:
        opened = reward.model or reward.endpoint
        if opened is not None and opened.secret_ref is not None:
            field = f"spec.method.{method.key}.rewards[{reward.name}]"
            named[reward_role(reward.name)] = (opened.secret_ref.name, f"{field}.secretRef.name")
    return named | _suite_secrets(spec) | generation_secrets(spec)


def _suite_secrets(spec: FineTuneJobSpec) -> dict[str, tuple[str, str]]:
    """Secrets of the job's own suites, whose items are held out of its training data."""
    suites = spec.evaluation.suites if spec.evaluation else ()
    return {
        suite_role(suite.name): (
            suite.dataset.secret_ref.name,
            f"spec.evaluation.suites[{suite.name}].dataset.secretRef.name",
        )
        for suite in suites
        if suite.dataset is not None and suite.dataset.secret_ref is not None
    }


def resolve_secrets(spec: FineTuneJobSpec, earlier: Mapping[str, FineTuneJob | None]) -> dict[str, str]:
    """Secrets by role; an earlier job's artifact is opened with that job's Secrets, where the spec names no other."""
    secrets = {role: name for role, (name, _) in secret_fields(spec).items()}
    reference = spec.base_model.fine_tune_job_ref
    before = earlier.get(reference.name) if reference else None
    if before is not None and SecretRole.BASE_MODEL not in secrets:
        opened = before.spec.base_model.secret_ref
        if before.spec.adapter is None or opened is None:
            opened = before.spec.output.secret_ref
        if opened is not None:
            secrets[SecretRole.BASE_MODEL] = opened.name
    return secrets


def prepare_secrets(secrets: Mapping[str, str]) -> dict[str, str]:
    """Secrets of the prepare stage, by role."""
    suites = suite_role("")
    return {role: name for role, name in secrets.items() if role in PREPARE_ROLES or role.startswith(suites)}


def train_secrets(secrets: Mapping[str, str]) -> dict[str, str]:
    """Secrets of the train stage, by role."""
    rewards = reward_role("")
    return {role: name for role, name in secrets.items() if role in TRAIN_ROLES or role.startswith(rewards)}
