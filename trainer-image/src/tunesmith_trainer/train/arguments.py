"""What the arguments of all of TRL's trainers have in common."""

import os
from typing import Any

import torch

from tunesmith_contract.layout import TENSORBOARD_FOLDER
from tunesmith_contract.run_config import Hyperparameters, Scheduler, TrainConfig
from tunesmith_trainer.failures import UserError

from .context import Training
from .tracking import run_name, set_up_tracking

_SCHEDULERS = {
    Scheduler.LINEAR: "linear",
    Scheduler.COSINE: "cosine",
    Scheduler.CONSTANT: "constant_with_warmup",
}
_MOST_LOGS = 200


def common_arguments(training: Training) -> dict[str, Any]:
    """Keyword arguments for any of TRL's configurations; the effective batch is the same on any number of devices.

    Raises:
        UserError: the batch can't be divided among the devices.
    """
    config = training.config
    numbers = config.hyperparameters
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(training.checkpoints),
        "num_train_epochs": numbers.epochs,
        "max_steps": numbers.max_steps or -1,
        "learning_rate": numbers.learning_rate,
        "per_device_train_batch_size": numbers.micro_batch_size,
        "per_device_eval_batch_size": numbers.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps(numbers, world_size()),
        "warmup_steps": numbers.warmup_ratio,
        "weight_decay": numbers.weight_decay,
        "max_grad_norm": numbers.max_grad_norm,
        "lr_scheduler_type": _SCHEDULERS[numbers.scheduler],
        "seed": numbers.seed,
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "activation_checkpointing": config.activation_checkpointing,
        "dataloader_pin_memory": on_gpu,
        "save_strategy": "steps",
        "save_steps": config.checkpoints.every_steps,
        "save_total_limit": None,
        "logging_steps": _logging_steps(config, len(training.rows.train)),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "run_name": run_name(config),
        "report_to": set_up_tracking(config, training.checkpoints.parent / TENSORBOARD_FOLDER) or "none",
    }


def accumulation_steps(numbers: Hyperparameters, world: int) -> int:
    """How many micro batches of all devices make one effective batch.

    Raises:
        UserError: they make no whole number.
    """
    together = numbers.micro_batch_size * world
    steps, rest = divmod(numbers.batch_size, together)
    if rest or not steps:
        devices = "1 device" if world == 1 else f"{world} devices"
        message = (
            f"batchSize {numbers.batch_size} is no multiple of {together} "
            f"(micro batch {numbers.micro_batch_size} on {devices}): write a multiple of it"
        )
        raise UserError("BatchSize", message)
    return steps


def world_size() -> int:
    """Workers of the whole run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_rank() -> bool:
    """Whether this worker writes what is written once."""
    return int(os.environ.get("RANK", "0")) == 0


def _logging_steps(config: TrainConfig, rows: int) -> int:
    """Every step of a short run, and no more than a few hundred lines of a long one."""
    numbers = config.hyperparameters
    steps = numbers.max_steps or numbers.epochs * -(-rows // numbers.batch_size)
    return max(1, steps // _MOST_LOGS)
