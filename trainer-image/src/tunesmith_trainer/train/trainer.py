"""From a run's configuration to TRL's trainer."""

import os
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from tunesmith_contract.progress import SERVER_URL_ENV
from tunesmith_contract.run_config import Hyperparameters, LoRAAdapter, Scheduler, TrainConfig
from tunesmith_trainer.data.checks import Row
from tunesmith_trainer.data.render import Renderer
from tunesmith_trainer.failures import UserError

ALL_LINEAR = "all-linear"
_SCHEDULERS = {
    Scheduler.LINEAR: "linear",
    Scheduler.COSINE: "cosine",
    Scheduler.CONSTANT: "constant_with_warmup",
}
_MOST_LOGS = 200


def load_model(folder: Path) -> Any:
    """The base model: bfloat16 on a GPU, float32 on a CPU, however it was saved."""
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True
    )


def build_trainer(
    config: TrainConfig,
    model: Any,
    renderer: Renderer,
    train_rows: tuple[Row, ...],
    validation_rows: tuple[Row, ...],
    checkpoints: Path,
    callbacks: list[TrainerCallback],
) -> SFTTrainer:
    """TRL's trainer for a run, on rows that are tokenised here as prepare counted them.

    Raises:
        UserError: batch size and devices don't fit, or a target module is not in the model.
    """
    sft = config.method.sft
    evaluation = build_dataset(renderer, validation_rows, sft.assistant_only_loss, sft.max_length)
    arguments = build_arguments(config, checkpoints, len(train_rows))
    try:
        return SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=build_dataset(renderer, train_rows, sft.assistant_only_loss, sft.max_length),
            eval_dataset=evaluation if validation_rows else None,
            processing_class=renderer.tokenizer,
            peft_config=build_lora(config.adapter),
            callbacks=callbacks,
        )
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        raise UserError(
            "TargetModules", f"{error}: name linear layers of the model, or all-linear"
        ) from error


def build_dataset(renderer: Renderer, rows: tuple[Row, ...], answers_only: bool, max_length: int) -> Dataset:
    """Rows as token ids and labels."""
    tokens = [renderer.tokens(row) for row in rows]
    return Dataset.from_dict(
        {
            "input_ids": [row.ids[:max_length] for row in tokens],
            "labels": [row.labels(answers_only)[:max_length] for row in tokens],
        }
    )


def build_lora(adapter: LoRAAdapter) -> LoraConfig:
    """PEFT's configuration of the adapter."""
    names = list(adapter.target_modules)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=ALL_LINEAR if names == [ALL_LINEAR] else names,
    )


def build_arguments(config: TrainConfig, checkpoints: Path, rows: int) -> SFTConfig:
    """TRL's arguments; the effective batch is the configured one on any number of devices.

    Raises:
        UserError: the batch can't be divided among the devices.
    """
    numbers = config.hyperparameters
    on_gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=numbers.epochs,
        max_steps=numbers.max_steps or -1,
        learning_rate=numbers.learning_rate,
        per_device_train_batch_size=numbers.micro_batch_size,
        per_device_eval_batch_size=numbers.micro_batch_size,
        gradient_accumulation_steps=accumulation_steps(numbers, world_size()),
        warmup_steps=numbers.warmup_ratio,
        weight_decay=numbers.weight_decay,
        lr_scheduler_type=_SCHEDULERS[numbers.scheduler],
        seed=numbers.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        activation_checkpointing=on_gpu,
        dataloader_pin_memory=on_gpu,
        max_length=config.method.sft.max_length,
        packing=config.method.sft.packing,
        eval_packing=False,
        save_strategy="steps",
        save_steps=config.checkpoints.every_steps,
        save_total_limit=None,
        logging_steps=_logging_steps(numbers, rows),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=["kubeflow"] if SERVER_URL_ENV in os.environ else "none",
    )


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


def _logging_steps(numbers: Hyperparameters, rows: int) -> int:
    """Every step of a short run, and no more than a few hundred lines of a long one."""
    steps = numbers.max_steps or numbers.epochs * -(-rows // numbers.batch_size)
    return max(1, steps // _MOST_LOGS)


def set_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad with the end token where the tokenizer names no padding; its labels are ignored either way."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
