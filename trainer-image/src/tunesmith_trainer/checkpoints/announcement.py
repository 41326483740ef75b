"""Tells the launcher and the operator of the newest committed checkpoint, while there is somebody to tell it."""

import os
from collections.abc import Mapping
from pathlib import Path

from tunesmith_contract.layout import CHECKPOINT_FILE_ENV
from tunesmith_contract.progress import (
    CHECKPOINT_DIGEST,
    CHECKPOINT_EVAL_LOSS,
    CHECKPOINT_STEP,
    CHECKPOINT_TIME,
)
from tunesmith_contract.report import Checkpoint
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.storage import write_atomically


class LastCheckpoint:
    """Keeps the newest commit in a file of the launcher, which outlives a killed worker.

    Args:
        progress: sends it to the operator.
        environment: where the launcher names its file.
    """

    def __init__(self, progress: ProgressReporter, environment: Mapping[str, str] = os.environ) -> None:
        file = environment.get(CHECKPOINT_FILE_ENV)
        self._file = Path(file) if file else None
        self._progress = progress

    def announce(self, checkpoint: Checkpoint, step: int, steps: int) -> None:
        """Say that a checkpoint is committed, ``step`` of ``steps`` being done."""
        self.remember(checkpoint)
        metrics = {
            CHECKPOINT_STEP: checkpoint.step,
            CHECKPOINT_DIGEST: checkpoint.digest.removeprefix("sha256:"),
            CHECKPOINT_TIME: int(checkpoint.time.timestamp()),
        }
        if checkpoint.eval_loss is not None:
            metrics[CHECKPOINT_EVAL_LOSS] = checkpoint.eval_loss
        self._progress.announce(step, steps, **metrics)

    def remember(self, checkpoint: Checkpoint) -> None:
        """Leave it for the launcher's last word."""
        if self._file is not None:
            write_atomically(self._file, checkpoint.to_json().encode())
