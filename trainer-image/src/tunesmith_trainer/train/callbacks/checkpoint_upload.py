"""Committed checkpoints reach the workspace where that is a bucket."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints


class SaveCheckpoints(TrainerCallback):
    """Brings each committed checkpoint to the workspace; it comes behind the callback that commits."""

    def __init__(self, workspace: Workspace) -> None:
        self._checkpoints = BucketCheckpoints(workspace)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the lease in the bucket, on the first rank."""
        if state.is_world_process_zero:
            self._checkpoints.take_lease()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Upload what was committed, on the first rank.

        Raises:
            StorageError: the bucket does not answer.
            InfrastructureError: another attempt has taken over.
        """
        if state.is_world_process_zero:
            self._checkpoints.save()
