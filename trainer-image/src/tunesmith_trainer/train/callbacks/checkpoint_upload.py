"""Committed checkpoints reach the workspace where that is a bucket."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_data.pod.workspace import Workspace


class SaveCheckpoints(TrainerCallback):
    """Brings each committed checkpoint to the workspace; it comes behind the callback that commits."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the lease in the bucket, on the first rank."""
        if state.is_world_process_zero:
            self._workspace.take_checkpoints()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Upload what was committed, on the first rank.

        Raises:
            StorageError: another attempt has taken over, or the bucket does not answer.
        """
        if state.is_world_process_zero:
            self._workspace.save_checkpoints()
