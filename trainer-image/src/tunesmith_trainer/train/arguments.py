"""Training arguments common to all TRL trainers."""

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from tunesmith_contract.run_config import Scheduler
from tunesmith_trainer.gpu.device import uses_gpu
from tunesmith_trainer.train.callbacks.tracking import run_name, set_up_tracking
from tunesmith_trainer.train.distributed.parallel import (
    accumulation_steps,
    deepspeed_settings,
    micro_batch_size,
    world_size,
)

from .context import TrainingContext

_SCHEDULERS = {
    Scheduler.LINEAR: "linear",
    Scheduler.COSINE: "cosine",
    Scheduler.CONSTANT: "constant_with_warmup",
}
_MAX_LOG_ENTRIES = 200


def common_arguments(training: TrainingContext) -> dict[str, Any]:
    """Keyword arguments for any of TRL's configurations; the effective batch is the same on any number of devices.

    Raises:
        UserError: the batch can't be divided among the devices, or a tracker's Secret lacks a key.
    """
    config = training.config
    numbers = config.hyperparameters
    micro_batch = micro_batch_size(numbers)
    on_gpu = uses_gpu(config)
    steps = numbers.max_steps or numbers.epochs * -(-len(training.rows.train) // numbers.batch_size)
    return {
        "output_dir": str(training.output_dir),
        "num_train_epochs": numbers.epochs,
        "max_steps": numbers.max_steps or -1,
        "learning_rate": numbers.learning_rate,
        "per_device_train_batch_size": micro_batch,
        "per_device_eval_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation_steps(numbers.batch_size, micro_batch, world_size()),
        "warmup_steps": numbers.warmup_ratio,
        "weight_decay": numbers.weight_decay,
        "max_grad_norm": numbers.max_grad_norm,
        "lr_scheduler_type": _SCHEDULERS[numbers.scheduler],
        "seed": numbers.seed,
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "deepspeed": deepspeed_settings(config),
        "activation_checkpointing": config.activation_checkpointing,
        # None leaves it to transformers, which searches for unused parameters after each pass.
        "ddp_find_unused_parameters": False if uses_all_parameters(training.model.config) else None,
        "dataloader_pin_memory": on_gpu,
        "save_strategy": "steps",
        "save_steps": config.checkpoints.every_steps,
        "save_total_limit": None,
        # Each checkpoint is evaluated, so that the best one is known.
        "eval_strategy": "steps" if training.rows.validation else "no",
        "eval_steps": config.checkpoints.every_steps,
        "logging_steps": max(1, steps // _MAX_LOG_ENTRIES),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "run_name": run_name(config),
        "report_to": set_up_tracking(config, training.logs, reports_steps=training.reports_steps) or "none",
    }


def uses_all_parameters(model: PretrainedConfig) -> bool:
    """True if each pass over text uses all parameters of a model: it has no experts to choose and no other input."""
    numbers = model.get_text_config().to_dict().items()
    experts = any("expert" in name and isinstance(value, int) and value > 1 for name, value in numbers)
    return not experts and not set(model.sub_configs) - {"text_config"}


def one_row_per_pass(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same arguments with a micro batch of one row and an unchanged effective batch, for DeepSpeed too."""
    accumulation = arguments["gradient_accumulation_steps"] * arguments["per_device_train_batch_size"]
    overrides: dict[str, Any] = {
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": accumulation,
    }
    if arguments["deepspeed"]:
        sizes = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": accumulation}
        overrides["deepspeed"] = arguments["deepspeed"] | sizes
    return {**arguments, **overrides}
