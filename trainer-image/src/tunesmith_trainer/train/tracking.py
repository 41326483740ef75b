"""Where metrics go while training, by transformers' own integrations."""

import os
from collections.abc import MutableMapping
from pathlib import Path

from tunesmith_contract.layout import SECRETS_DIR, SecretRole
from tunesmith_contract.progress import SERVER_URL_ENV
from tunesmith_contract.run_config import TrainConfig
from tunesmith_trainer.failures import UserError

_MLFLOW_ADDRESS = "MLFLOW_TRACKING_URI"
_WANDB_KEY = "WANDB_API_KEY"


def set_up_tracking(
    config: TrainConfig,
    tensor_board: Path,
    environment: MutableMapping[str, str] = os.environ,
    secrets: Path = Path(SECRETS_DIR),
) -> list[str]:
    """Transformers' ``report_to``; the integrations' variables come from the files of their Secrets.

    Args:
        tensor_board: the folder of TensorBoard's event files.
        environment: is added to.
        secrets: the folder with a folder per role.

    Raises:
        UserError: a Secret lacks the key that its tracker needs.
    """
    tracking, names = config.tracking, []
    if SERVER_URL_ENV in environment:
        names.append("kubeflow")
    if tracking.tensor_board:
        environment["TENSORBOARD_LOGGING_DIR"] = str(tensor_board)
        names.append("tensorboard")
    if tracking.mlflow is not None:
        _take_variables(secrets / SecretRole.MLFLOW, "MLFLOW_", _MLFLOW_ADDRESS, environment)
        environment["MLFLOW_EXPERIMENT_NAME"] = tracking.mlflow.experiment
        names.append("mlflow")
    if tracking.weights_and_biases is not None:
        _take_variables(secrets / SecretRole.WEIGHTS_AND_BIASES, "WANDB_", _WANDB_KEY, environment)
        environment["WANDB_PROJECT"] = tracking.weights_and_biases.project
        if tracking.weights_and_biases.entity:
            environment["WANDB_ENTITY"] = tracking.weights_and_biases.entity
        names.append("wandb")
    return names


def run_name(config: TrainConfig) -> str:
    """The run's name in every tracker."""
    return f"{config.owner.namespace}/{config.owner.name}"


def _take_variables(folder: Path, prefix: str, required: str, environment: MutableMapping[str, str]) -> None:
    """Each key of a Secret as the variable of its name; other keys are none of the tracker's business."""
    files = sorted(folder.glob(f"{prefix}*")) if folder.is_dir() else []
    environment.update({file.name: file.read_text().strip() for file in files})
    if required not in environment:
        message = f"the Secret of {folder.name} has no key {required}: add it"
        raise UserError("SecretKeyMissing", message)
