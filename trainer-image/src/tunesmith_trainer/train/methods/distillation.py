"""Distillation trainers: on-policy from a teacher's logits, or supervised on a teacher's answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from trl import DistillationConfig, DistillationTrainer

from tunesmith_contract.methods import DistillationMethod
from tunesmith_data.failures import UserError
from tunesmith_data.models.inspection import load_config
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.prepare.teacher_answers import as_supervised
from tunesmith_trainer.gpu.device import uses_gpu
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.context import TrainingContext

from .online import prompt_arguments, require_prompts
from .supervised import build_sft_trainer
from .trainer_mixins import EpochSeededSampling, LoggedMetricsFilter, SavedCheckpoints


class _DistillationTrainer(SavedCheckpoints, EpochSeededSampling, LoggedMetricsFilter, DistillationTrainer):
    pass


def build_distillation_trainer(training: TrainingContext) -> Any:
    """Build the trainer for a teacher given by weights (on-policy) or by endpoint (supervised).

    Raises:
        UserError: the teacher has another vocabulary, rows have tools, or there are too few for a batch.
    """
    method = training.config.method.distillation
    assert method is not None
    if method.teacher.uri is None:
        # The prepared rows contain the teacher's answers.
        supervised = {"method": as_supervised(training.config.method)}
        return build_sft_trainer(replace(training, config=training.config.model_copy(update=supervised)))
    return _build_on_policy(training, method, method.teacher.uri)


def _build_on_policy(training: TrainingContext, method: DistillationMethod, uri: str) -> DistillationTrainer:
    require_prompts(training.config.hyperparameters.batch_size, len(training.rows.train))
    folder = training.storage.model_folder(uri, weights=True)
    _require_same_vocabulary(training, folder, uri)
    return _DistillationTrainer(
        teacher_model=_load_teacher(folder, on_gpu=uses_gpu(training.config)),
        args=DistillationConfig(
            **common_arguments(training),
            temperature=method.temperature,
            max_completion_length=method.max_completion_length,
            disable_dropout=True,
            use_vllm=False,
        ),
        **prompt_arguments(training),
    )


def _load_teacher(folder: Path, *, on_gpu: bool) -> Any:
    """Teacher for inference: bfloat16 on a GPU, float32 on a CPU."""
    dtype = torch.bfloat16 if on_gpu else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True
    )


def _require_same_vocabulary(training: TrainingContext, folder: Path, uri: str) -> None:
    """Check that teacher and student have the same tokens and number of logits.

    Raises:
        UserError: they have not; distillation compares logits token by token.
    """
    teacher, student = load_tokenizer(folder), training.tokenizer
    sizes = [config.get_text_config().vocab_size for config in (load_config(folder), training.model.config)]
    if teacher.get_vocab() == student.get_vocab() and sizes[0] == sizes[1]:
        return
    message = (
        f"the teacher {uri} has another vocabulary than the base model ({sizes[0]:,} and {sizes[1]:,} output tokens): "
        "name a teacher of the same family, or let it answer by teacher.endpoint"
    )
    raise UserError("TeacherVocabulary", message)
