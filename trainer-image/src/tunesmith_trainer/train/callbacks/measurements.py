"""What is measured while training, and told: throughput, memory, kernels, losses."""

import resource
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_contract.progress import EVAL_REWARD, KERNELS, OVERFITTING_STEP, REWARD
from tunesmith_contract.report import TrainingReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_trainer.train.distributed.parallel import world_size
from tunesmith_trainer.train.kernels import describe_kernels

from .early_stopping import LOSS, Selection
from .history import last_logged
from .overfitting import build_curve

_KIB = 1024


class Meter(TrainerCallback):
    """Counts this process's steps only: neither what a resumed run did before, nor validation and saving.

    Attributes:
        seconds: wall time of the training loop.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun = self._in_steps = self._in_steps_logged = 0.0
        self._tokens = self._tokens_before = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all devices; None where the method counts none."""
        return self._tokens / self._in_steps_logged if self._tokens and self._in_steps_logged else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Some of TRL's trainers go on counting where the interrupted run was."""
        self._tokens_before = state.num_input_tokens_seen

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        self._begun = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop the clock."""
        self._in_steps += time.monotonic() - self._begun

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Take the tokens that belong to the time so far."""
        if logs and "num_tokens" in logs:
            self._tokens = int(logs["num_tokens"]) - self._tokens_before
            self._in_steps_logged = self._in_steps

    def peak_memory(self) -> int:
        """Bytes that the fullest GPU's allocator held, or this process on a CPU; all workers have to ask."""
        if not torch.cuda.is_available():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
        peak = torch.tensor(torch.cuda.max_memory_reserved(), device="cuda")
        if dist.is_initialized():
            dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        return int(peak.item())


class Announce(TrainerCallback):
    """Tells the operator what transformers' own reports leave out, when it is known.

    Args:
        selection: finds the step where the validation loss turned.
        progress: sends it.
    """

    def __init__(self, selection: Selection, progress: ProgressReporter | None = None) -> None:
        self._selection = selection
        self._progress = progress or ProgressReporter()
        self._turned: int | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Say how the model is run."""
        self._say(state, **{KERNELS: describe_kernels(model, args)})

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Say once where the validation loss turned."""
        turned = self._selection.overfitting_step(state.log_history)
        if turned is not None and turned != self._turned:
            self._turned = turned
            self._say(state, **{OVERFITTING_STEP: turned})

    def _say(self, state: TrainerState, **metrics: str | int) -> None:
        if state.is_world_process_zero:
            self._progress.announce(state.global_step, state.max_steps, **metrics)


def _last(numbers: Sequence[float]) -> float | None:
    return numbers[-1] if numbers else None


def kept_numbers(state: TrainerState, best_step: int | None) -> dict[str, Any]:
    """Steps, epochs, losses and rewards at the end; what was measured on validation rows is of the kept weights."""
    kept = best_step or state.global_step
    measured = {
        name: [entry[name] for entry in state.log_history if name in entry and entry["step"] == kept]
        for name in (LOSS, EVAL_REWARD)
    }
    return {
        "steps": state.global_step,
        "best_step": best_step,
        "epochs": state.epoch or 0.0,
        "loss": last_logged(state.log_history, "loss"),
        "eval_loss": _last(measured[LOSS]),
        "reward": last_logged(state.log_history, REWARD),
        "eval_reward": _last(measured[EVAL_REWARD]),
    }


def describe_training(
    trainer: Any,
    config: TrainConfig,
    selection: Selection,
    meter: Meter,
    numbers: dict[str, Any],
    published: dict[str, Any],
) -> TrainingReport:
    """How training went.

    Args:
        numbers: of ``kept_numbers``.
        published: the report's members that tell what came out and how the end was come to.
    """
    history = trainer.state.log_history
    return TrainingReport(
        **numbers,
        **published,
        tokens_per_second=meter.tokens_per_second,
        gpu_seconds=meter.seconds * world_size() if config.gpus_per_node else 0.0,
        seconds=meter.seconds,
        precision="bfloat16" if trainer.args.bf16 else "float32",
        overfitting_step=selection.overfitting_step(history),
        curve=build_curve(history, selection.best_step(history)),
        kernels=describe_kernels(trainer.model, trainer.args),
        micro_batch_size=trainer.args.per_device_train_batch_size,
    )
