"""Metrics of a training run: throughput, peak memory, kernels, losses, and their members of the report."""

import resource
import time
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_contract.progress import EVAL_REWARD, KERNELS, OVERFITTING_STEP, REWARD
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_trainer.train.distributed.parallel import world_size
from tunesmith_trainer.train.kernels import describe_kernels

from .early_stopping import LOSS, CheckpointSelection
from .history import last_logged
from .overfitting import build_curve

_KIB = 1024


class ThroughputMeter(TrainerCallback):
    """Throughput of the training steps of this process, without validation, saving and earlier attempts.

    Args:
        on_gpu: the run computes on GPUs.

    Attributes:
        seconds: wall time of the training loop.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        self.seconds = 0.0
        self._step_start = self._step_seconds = self._step_seconds_at_log = 0.0
        self._tokens = self._earlier_tokens = 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second of all devices together; None for methods that count no tokens."""
        return (
            self._tokens / self._step_seconds_at_log if self._tokens and self._step_seconds_at_log else None
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note the tokens of earlier attempts, which some of TRL's trainers include in their count."""
        self._earlier_tokens = state.num_input_tokens_seen

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        self._step_start = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop the clock."""
        self._step_seconds += time.monotonic() - self._step_start

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Read the token count, and note the step time that belongs to it."""
        if logs and "num_tokens" in logs:
            self._tokens = int(logs["num_tokens"]) - self._earlier_tokens
            self._step_seconds_at_log = self._step_seconds

    def peak_memory(self) -> int:
        """Peak memory in bytes: maximum of all GPUs, or of this process on a CPU; all workers must call it."""
        if not self._on_gpu:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
        peak = torch.tensor(torch.cuda.max_memory_reserved(), device="cuda")
        if dist.is_initialized():
            dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        return int(peak.item())


class AnnounceMetrics(TrainerCallback):
    """Sender of metrics that transformers does not report: kernels, overfitting step.

    Args:
        selection: finds the overfitting step.
        progress: connection to the operator.
    """

    def __init__(self, selection: CheckpointSelection, progress: ProgressReporter | None = None) -> None:
        self._selection = selection
        self._progress = progress or ProgressReporter()
        self._announced_step: int | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Announce the kernels."""
        self._announce(state, **{KERNELS: describe_kernels(model, args)})

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Announce the overfitting step when it is first detected."""
        step = self._selection.overfitting_step(state.log_history)
        if step is not None and step != self._announced_step:
            self._announced_step = step
            self._announce(state, **{OVERFITTING_STEP: step})

    def _announce(self, state: TrainerState, **metrics: str | int) -> None:
        if state.is_world_process_zero:
            self._progress.announce(state.global_step, state.max_steps, **metrics)


def final_metrics(state: TrainerState, best_step: int | None) -> dict[str, Any]:
    """Steps, epochs, losses and rewards at the end; validation metrics are those of the published weights."""
    published_step = best_step or state.global_step
    history = state.log_history
    evaluations = [entry for entry in history if entry["step"] == published_step]
    return {
        "steps": state.global_step,
        "best_step": best_step,
        "epochs": state.epoch or 0.0,
        "loss": last_logged(history, "loss"),
        "eval_loss": last_logged(evaluations, LOSS),
        "reward": last_logged(history, REWARD),
        "eval_reward": last_logged(evaluations, EVAL_REWARD),
    }


def describe_training(
    trainer: Any,
    config: TrainConfig,
    selection: CheckpointSelection,
    meter: ThroughputMeter,
    metrics: dict[str, Any],
) -> dict[str, Any]:
    """Members of a finished run's training report that the trainer knows.

    Args:
        trainer: the trainer after the run.
        config: the run.
        selection: selection of the best checkpoint.
        meter: throughput and wall time.
        metrics: result of ``final_metrics``.
    """
    history = trainer.state.log_history
    return {
        **metrics,
        "tokens_per_second": meter.tokens_per_second,
        "gpu_seconds": meter.seconds * world_size() if config.gpus_per_node else 0.0,
        "seconds": meter.seconds,
        "precision": "bfloat16" if trainer.args.bf16 else "float32",
        "overfitting_step": selection.overfitting_step(history),
        "curve": build_curve(history, selection.best_step(history)),
        "kernels": describe_kernels(trainer.model, trainer.args),
        "micro_batch_size": trainer.args.per_device_train_batch_size,
    }
