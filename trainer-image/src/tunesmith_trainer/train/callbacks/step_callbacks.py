"""Trainer callbacks for preemption, checkpoint commit and upload, and divergence."""

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_contract.layout import checkpoint_name
from tunesmith_contract.run_config import Checkpoints, Parallelism
from tunesmith_data.failures import UserError
from tunesmith_trainer.checkpoints.announcement import CheckpointAnnouncer
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints
from tunesmith_trainer.checkpoints.folder import CheckpointFolder
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.distributed.control_group import wait_for_all
from tunesmith_trainer.train.distributed.parallel import (
    any_worker,
    is_first_of_node,
    ranks_per_node,
    world_size,
)
from tunesmith_trainer.train.distributed.shared_digests import describe_together


class StopWhenPreempted(TrainerCallback):
    """Stop of all ranks at the same step, with a checkpoint, when a pod is preempted.

    Attributes:
        stopped: training ended before its last step.
    """

    def __init__(self, preemption: Preemption) -> None:
        self._preemption = preemption
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Request a checkpoint and the end of training if any rank has received SIGTERM."""
        if self.stop_if_preempted(state, control):
            control.should_save = True

    def stop_if_preempted(self, state: TrainerState, control: TrainerControl) -> bool:
        """End training if any rank has received SIGTERM; True if it ends. All ranks must call it."""
        if not any_worker(self._preemption.requested) or state.global_step >= state.max_steps:
            return False
        self.stopped = control.should_training_stop = True
        return True


class StopAfterCheckpoint(TrainerCallback):
    """Stop at a checkpoint if a pod is preempted while it is saved; must come after all that works on checkpoints.

    Otherwise another step would be made and saved, for which the grace period need not last.

    Args:
        stop: the stop at the end of a step.
    """

    def __init__(self, stop: StopWhenPreempted) -> None:
        self._stop = stop

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """End training if any rank has received SIGTERM."""
        self._stop.stop_if_preempted(state, control)


class CommitCheckpoints(TrainerCallback):
    """Commit of each checkpoint after all ranks have saved their part, and removal of old ones.

    Args:
        folder: the run's checkpoints.
        settings: number of checkpoints to keep.
        parallelism: DDP or a ZeRO stage, recorded in the manifest.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        settings: Checkpoints,
        parallelism: Parallelism,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._parallelism = parallelism

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Record the best checkpoint of the earlier steps in the trainer's state."""
        self._set_best_checkpoint(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Check the write lease before a checkpoint is saved.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        if control.should_save and state.is_world_process_zero:
            self._folder.lease.check()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Commit the checkpoint of this step; all ranks digest their files and wait for the commit.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        step, world = state.global_step, args.world_size
        described = describe_together(self._folder.staged(step))
        if state.is_world_process_zero:
            self._folder.commit(step, world, self._parallelism, _eval_loss(state), described)
            best = {state.best_global_step} if state.best_global_step else set()
            self._folder.keep(self._settings.keep, best)
        elif copies_on_nodes(self._folder) and is_first_of_node():
            self._folder.adopt(step)
        wait_for_all()
        self._set_best_checkpoint(state)

    def _set_best_checkpoint(self, state: TrainerState) -> None:
        """Set the path of the best checkpoint, which transformers expects in the staging folder."""
        if state.best_global_step:
            best = self._folder.root / checkpoint_name(state.best_global_step)
            state.best_model_checkpoint = str(best) if best.is_dir() else None


class UploadCheckpoints(TrainerCallback):
    """Upload of committed checkpoints if the workspace is a bucket; must come after CommitCheckpoints.

    Each node uploads the files that it wrote, at the same time as the others. The first rank uploads the manifest when
    all are there.

    Args:
        bucket: the bucket's checkpoints.
        folder: the run's checkpoints on this node.
    """

    def __init__(self, bucket: BucketCheckpoints, folder: CheckpointFolder) -> None:
        self._bucket = bucket
        self._folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the lease in the bucket, and remove what does not count there, on the first rank.

        Raises:
            StorageError: the bucket does not answer.
            InfrastructureError: a later attempt holds the lease.
        """
        if state.is_world_process_zero:
            self._bucket.take_lease()
            self._bucket.remove_others()
        wait_for_all()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Upload the new checkpoint; all ranks wait until the bucket has it whole.

        Raises:
            StorageError: the bucket does not answer.
            InfrastructureError: another attempt has taken over.
        """
        on_nodes = copies_on_nodes(self._folder)
        if state.is_world_process_zero or (on_nodes and is_first_of_node()):
            self._bucket.upload(checkpoint_name(state.global_step))
        wait_for_all()
        if state.is_world_process_zero:
            self._bucket.commit()
        wait_for_all()
        if on_nodes and is_first_of_node() and not state.is_world_process_zero:
            self._folder.drop_copies()


class AnnounceCheckpoints(TrainerCallback):
    """Announcement of each checkpoint; must come after all that it takes for the checkpoint to count.

    Args:
        folder: the run's checkpoints.
        announcer: announces to operator and launcher.
    """

    def __init__(self, folder: CheckpointFolder, announcer: CheckpointAnnouncer) -> None:
        self._folder = folder
        self._announcer = announcer

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Announce the checkpoint of this step, on the first rank."""
        if state.is_world_process_zero:
            committed = self._folder.describe(self._folder.root / checkpoint_name(state.global_step))
            self._announcer.announce(committed, state.global_step, state.max_steps)


def copies_on_nodes(folder: CheckpointFolder) -> bool:
    """True if each of several nodes has its own copy of the folder of checkpoints."""
    return not folder.shared and world_size() > ranks_per_node()


class StopWhenDiverged(TrainerCallback):
    """Failure of a run whose loss is NaN or infinite."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Check the logged loss.

        Raises:
            UserError: it is not finite.
        """
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise_diverged(f"the loss became {loss} at step {state.global_step}")


def raise_diverged(evidence: str) -> None:
    """Fail because training diverged.

    Raises:
        UserError: always.
    """
    raise UserError("Diverged", f"training diverged: {evidence}; lower learningRate")


def _eval_loss(state: TrainerState) -> float | None:
    """Validation loss of the current step; None if it was not evaluated."""
    logged = reversed(state.log_history)
    return next(
        (
            entry["eval_loss"]
            for entry in logged
            if entry.get("step") == state.global_step and "eval_loss" in entry
        ),
        None,
    )
