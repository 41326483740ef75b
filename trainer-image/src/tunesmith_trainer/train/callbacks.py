"""What happens between the steps of training."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_trainer.failures import UserError
from tunesmith_trainer.preemption import Preemption

from .checkpoints import commit_checkpoint, keep_newest


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
        if self._any_rank(args.device) and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def _any_rank(self, device: torch.device) -> bool:
        if not torch.distributed.is_initialized():
            return self._preemption.requested
        flag = torch.tensor([float(self._preemption.requested)], device=device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


class CommitCheckpoints(TrainerCallback):
    """Commits each saved checkpoint once every rank has written its part, and removes old ones after that."""

    def __init__(self, root: Path, keep: int) -> None:
        self._root = root
        self._keep = keep

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Commit the checkpoint of this step."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            commit_checkpoint(self._root / f"checkpoint-{state.global_step}")
            keep_newest(self._root, self._keep)


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
