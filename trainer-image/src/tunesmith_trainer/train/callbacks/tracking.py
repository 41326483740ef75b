"""Where metrics go while training, by transformers' own integrations."""

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


class Forgiving(TrainerCallback):
    """A tracker whose failure ends the tracking, never the training.

    Args:
        tracker: one of transformers' integrations.
    """

    def __init__(self, tracker: TrainerCallback) -> None:
        self._tracker: TrainerCallback | None = tracker

    def _pass_on(self, event: str, *arguments: Any, **more: Any) -> None:
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, event)(*arguments, **more)
        except Exception as error:  # a tracker may raise anything: it is somebody else's server
            log.warning("%s failed, and is left out from now on: %s", type(self._tracker).__name__, error)
            self._tracker = None

    def on_train_begin(self, *arguments: Any, **more: Any) -> None:
        """Pass the event on."""
        self._pass_on("on_train_begin", *arguments, **more)

    def on_log(self, *arguments: Any, **more: Any) -> None:
        """Pass the event on."""
        self._pass_on("on_log", *arguments, **more)

    def on_train_end(self, *arguments: Any, **more: Any) -> None:
        """Pass the event on."""
        self._pass_on("on_train_end", *arguments, **more)


def forgive_trackers(trainer: Any) -> None:
    """Let no tracker of a built trainer end its training.

    Model uploads of the integrations (``on_save``) are not passed on: artefacts have a place of their own.
    """
    handler = trainer.callback_handler
    handler.callbacks = [
        Forgiving(callback) if isinstance(callback, _TRACKERS) else callback for callback in handler.callbacks
    ]
