"""What happens between the steps of training."""

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_contract.run_config import Checkpoints, Parallelism
from tunesmith_data.failures import UserError
from tunesmith_trainer.checkpoints.announcement import LastCheckpoint
from tunesmith_trainer.checkpoints.folder import CheckpointFolder
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.distributed.parallel import any_worker, barrier


class StopWhenPreempted(TrainerCallback):
    """Stops all ranks at the same step boundary, with a checkpoint.

    Attributes:
        stopped: training ended early.
    """

    def __init__(self, preemption: Preemption) -> None:
        self._preemption = preemption
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint and an end when any rank was told to go."""
        if any_worker(self._preemption.requested) and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True


class CommitCheckpoints(TrainerCallback):
    """Commits each saved checkpoint once every rank has written its part, and removes old ones after that.

    Args:
        folder: the run's checkpoints.
        settings: how many are kept.
        parallelism: how the ranks share the weights.
        last: is told of each commit.
    """

    def __init__(
        self, folder: CheckpointFolder, settings: Checkpoints, parallelism: Parallelism, last: LastCheckpoint
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._parallelism = parallelism
        self._last = last

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Find the best checkpoint of the steps before."""
        self._name_best(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write nothing for an attempt that another has taken over from."""
        if control.should_save and state.is_world_process_zero:
            self._folder.lease.check()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Commit the checkpoint of this step; no rank goes on, or ends, before that."""
        barrier()
        if state.is_world_process_zero:
            step, world = state.global_step, args.world_size
            committed = self._folder.commit(step, world, self._parallelism, _eval_loss(state))
            self._last.announce(committed, step, state.max_steps)
            best = {state.best_global_step} if state.best_global_step else set()
            self._folder.keep(self._settings.keep, best)
        barrier()
        self._name_best(state)

    def _name_best(self, state: TrainerState) -> None:
        """transformers looks for the best checkpoint where it was saved; it has been moved by then."""
        if state.best_global_step:
            best = self._folder.root / f"checkpoint-{state.best_global_step}"
            state.best_model_checkpoint = str(best) if best.is_dir() else None


class StopWhenDiverged(TrainerCallback):
    """Ends a run whose loss is no number any more."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Look at a logged loss.

        Raises:
            UserError: it is not finite.
        """
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise_diverged(f"the loss became {loss} at step {state.global_step}")


def raise_diverged(what: str) -> None:
    """Fail because training did not converge.

    Raises:
        UserError: always.
    """
    raise UserError("Diverged", f"training diverged: {what}; lower learningRate")


def _eval_loss(state: TrainerState) -> float | None:
    """The validation loss that was measured at this very step."""
    logged = reversed(state.log_history)
    return next(
        (
            entry["eval_loss"]
            for entry in logged
            if entry.get("step") == state.global_step and "eval_loss" in entry
        ),
        None,
    )
