"""Experiment trackers: MLflow, TensorBoard, Weights & Biases, by the integrations of transformers."""

import logging
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

from tunesmith_contract.layout import SECRETS_DIR, SecretRole
from tunesmith_contract.progress import SERVER_URL_ENV
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.failures import UserError

log = logging.getLogger(__name__)

_TRACKERS = (MLflowCallback, TensorBoardCallback, WandbCallback)
_MLFLOW_URI_ENV = "MLFLOW_TRACKING_URI"
_WANDB_KEY_ENV = "WANDB_API_KEY"


def set_up_tracking(
    config: TrainConfig,
    tensor_board: Path,
    environment: MutableMapping[str, str] = os.environ,
    secrets: Path = Path(SECRETS_DIR),
    *,
    reports_steps: bool = True,
) -> list[str]:
    """Set the trackers' environment variables from their mounted Secrets.

    Args:
        config: the run.
        tensor_board: folder of TensorBoard event files.
        environment: variables to extend.
        secrets: folder with one folder of Secret files per role.
        reports_steps: transformers reports each step to the operator.

    Returns:
        Value of transformers' ``report_to``.

    Raises:
        UserError: a Secret lacks the key that its tracker needs.
    """
    tracking, names = config.tracking, []
    if reports_steps and SERVER_URL_ENV in environment:
        names.append("kubeflow")
    if tracking.tensor_board:
        environment["TENSORBOARD_LOGGING_DIR"] = str(tensor_board)
        names.append("tensorboard")
    if tracking.mlflow is not None:
        _load_secret(secrets / SecretRole.MLFLOW, "MLFLOW_", _MLFLOW_URI_ENV, environment)
        environment["MLFLOW_EXPERIMENT_NAME"] = tracking.mlflow.experiment
        names.append("mlflow")
    if tracking.weights_and_biases is not None:
        _load_secret(secrets / SecretRole.WEIGHTS_AND_BIASES, "WANDB_", _WANDB_KEY_ENV, environment)
        environment["WANDB_PROJECT"] = tracking.weights_and_biases.project
        if tracking.weights_and_biases.entity:
            environment["WANDB_ENTITY"] = tracking.weights_and_biases.entity
        names.append("wandb")
    return names


def run_name(config: TrainConfig) -> str:
    """Name of the run in every tracker."""
    return f"{config.owner.namespace}/{config.owner.name}"


def end_tracked_run(config: TrainConfig) -> None:
    """End the run that a tracker would continue with the next training of this process."""
    if config.tracking.weights_and_biases is not None:
        import wandb

        wandb.finish()


def _load_secret(folder: Path, prefix: str, required: str, environment: MutableMapping[str, str]) -> None:
    """Set a variable for each key of a Secret that starts with the tracker's prefix.

    Raises:
        UserError: the required variable is still not set.
    """
    files = sorted(folder.glob(f"{prefix}*")) if folder.is_dir() else []
    environment.update({file.name: file.read_text().strip() for file in files})
    if required not in environment:
        message = f"the Secret of {folder.name} has no key {required}: add it"
        raise UserError("SecretKeyMissing", message)


class IsolatedTracker(TrainerCallback):
    """Tracker whose failure ends the tracking, but not the training.

    Args:
        tracker: one of transformers' integrations.
    """

    def __init__(self, tracker: TrainerCallback) -> None:
        self._tracker: TrainerCallback | None = tracker

    def _forward(self, event: str, *arguments: Any, **more: Any) -> None:
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, event)(*arguments, **more)
        except Exception as error:  # a tracker may raise anything
            log.warning(
                "%s failed and is disabled for the rest of the run: %s", type(self._tracker).__name__, error
            )
            self._tracker = None

    def on_train_begin(self, *arguments: Any, **more: Any) -> None:
        """Forward the event to the tracker."""
        self._forward("on_train_begin", *arguments, **more)

    def on_log(self, *arguments: Any, **more: Any) -> None:
        """Forward the event to the tracker."""
        self._forward("on_log", *arguments, **more)

    def on_train_end(self, *arguments: Any, **more: Any) -> None:
        """Forward the event to the tracker."""
        self._forward("on_train_end", *arguments, **more)


def isolate_trackers(trainer: Any) -> None:
    """Wrap all trackers of a trainer, so that their failures do not end training.

    Model uploads of the integrations (``on_save``) are not forwarded, since the run publishes its own artifacts.
    """
    handler = trainer.callback_handler
    handler.callbacks = [
        IsolatedTracker(callback) if isinstance(callback, _TRACKERS) else callback
        for callback in handler.callbacks
    ]
