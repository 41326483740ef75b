"""The Secrets that a FineTuneJob names: what each opens, and where it is written."""

from typing import NamedTuple

from tunesmith_contract.layout import SecretRole, reward_role

from .common import SecretName
from .finetunejob import FineTuneJobSpec


class NamedSecret(NamedTuple):
    """A Secret by the role that pods know it by.

    Attributes:
        role: what it opens, a ``SecretRole`` or that of a reward.
        name: of the Secret.
        field: where a person wrote it, such as ``spec.output.secretRef.name``.
    """

    role: str
    name: str
    field: str


def named_secrets(spec: FineTuneJobSpec) -> tuple[NamedSecret, ...]:
    """The Secrets of a job, one a role. ``hf://`` rows without one of their own are opened as the base model is."""
    data, tracking = spec.dataset, spec.tracking
    written: list[tuple[str, SecretName | None, str]] = [
        (SecretRole.BASE_MODEL, spec.base_model.secret_ref, "baseModel"),
        (SecretRole.TRAIN, data.train.secret_ref, "dataset.train"),
        (SecretRole.VALIDATION, data.validation.secret_ref, "dataset.validation"),
        (SecretRole.OUTPUT, spec.output.secret_ref, "output"),
    ]
    if spec.workspace:
        written.append((SecretRole.WORKSPACE, spec.workspace.secret_ref, "workspace"))
    if tracking.mlflow:
        written.append((SecretRole.MLFLOW, tracking.mlflow.secret_ref, "tracking.mlflow"))
    if tracking.weights_and_biases:
        secret = tracking.weights_and_biases.secret_ref
        written.append((SecretRole.WEIGHTS_AND_BIASES, secret, "tracking.weightsAndBiases"))
    written += _teachers(spec)
    written += _rewards(spec)
    return tuple(
        NamedSecret(str(role), secret.name, f"spec.{field}.secretRef.name")
        for role, secret, field in written
        if secret
    )


def _teachers(spec: FineTuneJobSpec) -> list[tuple[str, SecretName | None, str]]:
    if spec.method.distillation is None:
        return []
    teacher, field = spec.method.distillation.teacher, "method.distillation.teacher"
    if teacher.endpoint:
        return [(SecretRole.TEACHER, teacher.endpoint.secret_ref, f"{field}.endpoint")]
    return [(SecretRole.TEACHER, teacher.secret_ref, field)]


def _rewards(spec: FineTuneJobSpec) -> list[tuple[str, SecretName | None, str]]:
    method = spec.method.key
    found: list[tuple[str, SecretName | None, str]] = []
    for index, reward in enumerate(spec.method.rewards):
        place = f"method.{method}.rewards[{index}]"
        if reward.model:
            found.append((reward_role(reward.name), reward.model.secret_ref, f"{place}.model"))
        if reward.endpoint:
            found.append((reward_role(reward.name), reward.endpoint.secret_ref, f"{place}.endpoint"))
    return found
