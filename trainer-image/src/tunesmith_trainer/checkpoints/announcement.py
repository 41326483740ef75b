"""Announcement of the newest committed checkpoint to the operator and the launcher."""

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


class CheckpointAnnouncer:
    """Sender of committed checkpoints to the operator, with a copy in a file of the launcher.

    The launcher outlives a killed worker, and names the checkpoint in the termination message.

    Args:
        progress: connection to the operator.
        environment: variables that name the launcher's file.
    """

    def __init__(self, progress: ProgressReporter, environment: Mapping[str, str] = os.environ) -> None:
        file = environment.get(CHECKPOINT_FILE_ENV)
        self._file = Path(file) if file else None
        self._progress = progress

    def announce(self, checkpoint: Checkpoint, step: int, steps: int) -> None:
        """Announce a committed checkpoint, with ``step`` of ``steps`` done."""
        self.write_for_launcher(checkpoint)
        metrics: dict[str, float | int | str] = {
            CHECKPOINT_STEP: checkpoint.step,
            CHECKPOINT_DIGEST: checkpoint.digest.removeprefix("sha256:"),
            CHECKPOINT_TIME: int(checkpoint.time.timestamp()),
        }
        if checkpoint.eval_loss is not None:
            metrics[CHECKPOINT_EVAL_LOSS] = checkpoint.eval_loss
        self._progress.announce(step, steps, **metrics)

    def write_for_launcher(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint to the launcher's file, without an announcement to the operator."""
        if self._file is not None:
            write_atomically(self._file, checkpoint.to_json().encode())
